"""Fitting the weights of `contract.choices` by penalised likelihood, in torch. Shapes: N choices,
O options at most, K known options, R regions, D devices, J knots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contract.choices import DEVICES, ChoiceWeights, hats, relative_price, waiting
from training.choices.examples import Choice

KNOTS = 8
# Tried on validation: how strongly regions, devices and values are drawn to none, and against how
# many choices of anybody one's own count.
PENALTIES = (0.3, 3.0, 30.0)
PSEUDO_COUNTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 1e6)
_STEPS = 60


@dataclass(frozen=True)
class _Batch:
    names: list[str]  # [K]
    regions: list[str]  # [R]
    knots: list[float]  # [J]
    option: Tensor  # [N, O] place among the names
    there: Tensor  # [N, O]
    region: Tensor  # [N] place among the regions, R where it is not known
    device: Tensor  # [N] the same, D
    value: Tensor  # [N, J]
    price: Tensor  # [N, O]
    days: Tensor  # [N, O]
    taken: Tensor  # [N]

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> "_Batch":
        names = sorted({option.id for choice in choices for option in choice.options})
        regions = sorted({c.context.region for c in choices if c.context.region is not None})
        logs = np.log([max(choice.value, 1) for choice in choices])
        knots = np.unique(np.quantile(logs, np.linspace(0.02, 0.98, KNOTS))).tolist()
        place = {name: at for at, name in enumerate(names)}
        where = {name: at for at, name in enumerate(regions)}
        shape = (len(choices), max(len(choice.options) for choice in choices))
        option, there = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        price, days = np.zeros(shape), np.zeros(shape)
        for row, choice in enumerate(choices):
            for at, one in enumerate(choice.options):
                option[row, at], there[row, at] = place[one.id], True
                price[row, at] = relative_price(one.price, choice.value)
                days[row, at] = waiting(one.days)
        devices = [
            len(DEVICES) if (named := choice.context.device) is None else DEVICES.index(named)
            for choice in choices
        ]
        return cls(
            *(names, regions, knots),
            *(torch.from_numpy(option), torch.from_numpy(there)),
            torch.tensor([where.get(c.context.region or "", len(regions)) for c in choices]),
            torch.tensor(devices),
            torch.from_numpy(np.stack([hats(at, knots) for at in logs.tolist()])),
            *(torch.from_numpy(price), torch.from_numpy(days)),
            torch.tensor([choice.taken for choice in choices]),
        )


class _Logit(torch.nn.Module):
    def __init__(self, names: int, regions: int, knots: int) -> None:
        super().__init__()
        self.base = torch.nn.Parameter(torch.zeros(names, dtype=torch.float64))
        self.region = torch.nn.Parameter(torch.zeros(regions + 1, names, dtype=torch.float64))
        self.device = torch.nn.Parameter(torch.zeros(len(DEVICES) + 1, names, dtype=torch.float64))
        self.value = torch.nn.Parameter(torch.zeros(knots, names, dtype=torch.float64))
        self.option = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))  # price, days

    def forward(self, batch: _Batch) -> Tensor:
        """Log-shares [N, O]."""
        regions = torch.cat((self.region[:-1], torch.zeros_like(self.region[:1])))
        devices = torch.cat((self.device[:-1], torch.zeros_like(self.device[:1])))
        weight = self.base + regions[batch.region] + devices[batch.device]
        weight = weight + batch.value @ self.value
        scores = weight.gather(1, batch.option)
        scores = scores + self.option[0] * batch.price + self.option[1] * batch.days
        shares: Tensor = scores.masked_fill(~batch.there, -torch.inf).log_softmax(dim=1)
        return shares

    def penalty(self, strength: float) -> Tensor:
        """Normal priors; the base and the two weights of options a hundred times as wide."""
        free = self.base.square().sum() + self.option.square().sum()
        drawn = self.region.square().sum() + self.device.square().sum()
        return strength * (drawn + self.value.square().sum() + free / 100) / 2


def fit(choices: Sequence[Choice], penalty: float, pseudo_counts: float) -> ChoiceWeights:
    """The weights that make `choices` most likely."""
    batch = _Batch.of(choices)
    model = _fitted(batch, len(choices), penalty)
    price, days = model.option.tolist()
    return ChoiceWeights(
        names=tuple(batch.names),
        regions=tuple(batch.regions),
        base=tuple(model.base.tolist()),
        by_region=tuple(map(tuple, model.region[:-1].tolist())),
        by_device=tuple(map(tuple, model.device[:-1].tolist())),
        knots=tuple(batch.knots),
        by_value=tuple(map(tuple, model.value.tolist())),
        price=price,
        days=days,
        pseudo_counts=pseudo_counts,
    )


def chosen(train: Sequence[Choice], validate: Sequence[Choice]) -> tuple[float, float]:
    """The penalty and the pseudo-counts that make `validate` most likely, fitted on `train`."""
    batch, best = _Batch.of((*train, *validate)), (math.inf, 0.0, 0.0)
    later = torch.arange(len(train), len(batch.taken))
    own = torch.tensor([_own(choice) for choice in validate], dtype=torch.float64)
    for penalty in PENALTIES:
        model = _fitted(batch, len(train), penalty)
        with torch.no_grad():
            usual = model(batch)[later, batch.taken[later]].exp()
        for pseudo in PSEUDO_COUNTS:
            likely = (own[:, 0] + pseudo * usual) / (own[:, 1] + pseudo)
            best = min(best, (-float(likely.log().mean()), penalty, pseudo))
    return best[1], best[2]


def _own(choice: Choice) -> tuple[float, float]:
    """How often the same was taken before, and anything that could be taken now."""
    counts = [choice.own.get(option.id, 0.0) for option in choice.options]
    return counts[choice.taken], sum(counts)


def _fitted(batch: _Batch, size: int, penalty: float) -> _Logit:
    """Fitted on the first `size` choices of `batch`."""
    model = _Logit(len(batch.names), len(batch.regions), len(batch.knots))
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe"
    )
    first = torch.arange(size)

    def loss() -> Tensor:
        optimizer.zero_grad()
        found: Tensor = model.penalty(penalty) - model(batch)[first, batch.taken[:size]].sum()
        torch.autograd.backward(found)
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return model
