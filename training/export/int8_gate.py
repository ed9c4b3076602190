"""Which models of a release go out in int8, and whether it may go out at all: what quantisation
costs the decisions on the run's validation days is measured, with each model alone and with all
that were chosen together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from torch import nn

from contract.errors import GateRefused
from contract.manifest import MODELS, QUERY_TOWER, SEQUENCE_ENCODER
from training.export import int8, parity
from training.export.exported_decisions import NEAREST, Answers
from training.export.index import share_found
from training.export.int8 import FORMS, Form, Inputs, Speed

LOSS_GATE: Final = 0.01  # of NDCG@5, relative to the float models
# Without being asked for by name, a model is quantised only where that pays: a call takes at most
# this many times as long, or this much longer, and the file gets this much smaller or a call takes
# at most this share of the time.
SLOWEST: Final = 1.15
NOTICEABLE_MS: Final = 0.005
SAVED_BYTES: Final = 2**18
QUICKER: Final = 0.9
_AT_RANDOM = 200
_TOWER_OF = {QUERY_TOWER: "query_tower", SEQUENCE_ENCODER: "sequence"}


class Decisions(Protocol):
    """What judges a set of files; see exported_decisions.Questions."""

    def answers(self, files: Mapping[str, bytes]) -> Answers:
        """The decisions that the models in `files` make."""

    def calibration(self, files: Mapping[str, bytes]) -> dict[str, Inputs]:
        """Real inputs of every model, from before the days that it is judged on."""


@dataclass(frozen=True)
class Change:
    """What a set of quantised files does to the decisions; overlaps are shares of what the float
    models find."""

    loss: Mapping[str, float]  # of NDCG@5, relative; by kind of shopper, negative where it gains
    top5: float
    top100: Mapping[str, float]  # by tower, of its nearest items

    @property
    def worst(self) -> float:
        """The largest loss; infinite where one can not be told."""
        return max(np.inf if np.isnan(one) else one for one in self.loss.values())

    @property
    def passed(self) -> bool:
        """Whether it may go out."""
        return self.worst <= LOSS_GATE


@dataclass(frozen=True)
class Tried:
    """One model in one form."""

    model: str
    form: Form
    content: bytes
    float_bytes: int
    drift: float  # largest difference to torch over real checkouts
    batch_difference: float  # the same inputs alone and in a batch
    float_speed: Speed
    speed: Speed
    change: Change | None = None  # with this model alone in int8; None where it was not asked

    @property
    def steady(self) -> bool:
        """Whether an answer is finite and does not depend on who else is in the batch."""
        return self.batch_difference <= parity.TOLERANCE and bool(np.isfinite(self.drift))

    @property
    def pays(self) -> bool:
        """Whether it is not slower, and much smaller or quicker."""
        return not self.slower and (
            self.float_bytes - len(self.content) >= SAVED_BYTES
            or any(ms <= self.float_speed.ms[size] * QUICKER for size, ms in self.speed.ms.items())
        )

    @property
    def slower(self) -> bool:
        """Whether a call takes noticeably longer."""
        was = self.float_speed.ms
        return any(
            ms > max(was[size] * SLOWEST, was[size] + NOTICEABLE_MS)
            for size, ms in self.speed.ms.items()
        )

    @property
    def refused(self) -> str | None:
        """Why it is out of the question whatever the user says, None where it is not."""
        if not self.steady:
            return f"differs by {self.batch_difference:.1e} between a batch and alone"
        if self.change is not None and not self.change.passed:
            return f"loses {self.change.worst:.2%} of NDCG@5"
        return None


@dataclass(frozen=True)
class Int8:
    """The outcome: the chosen form by model, everything tried, and what all chosen ones together
    do to the decisions."""

    chosen: Mapping[str, Tried]
    tried: Sequence[Tried]
    change: Change
    ndcg: Mapping[str, float]  # of the float models


def choose(
    files: Mapping[str, bytes],
    modules: Mapping[str, nn.Module],
    decisions: Decisions,
    num_items: int,
    named: Sequence[str] = (),
) -> Int8:
    """The int8 forms of `files`: of each model in `named`, or of those where it pays.

    Raises GateRefused where a named model has no form that passes, where none pays, and where all
    chosen ones together lose more than LOSS_GATE of NDCG@5.
    """
    reference = decisions.answers(files)
    calibration = decisions.calibration(files)
    tried: list[Tried] = []
    chosen: dict[str, Tried] = {}
    for name in named or MODELS:
        for one in _forms(name, files[name], modules[name], calibration[name], num_items):
            if name not in chosen and one.steady and (named or one.pays):
                answers = decisions.answers({**files, name: one.content})
                one = replace(one, change=change(reference, answers))
            tried.append(one)
            if one.change is not None and one.refused is None:
                chosen[name] = one
    _need(chosen, tried, named)
    together = {**files, **{name: one.content for name, one in chosen.items()}}
    all_of_them = change(reference, decisions.answers(together))
    if not all_of_them.passed:
        raise GateRefused(
            f"int8: {', '.join(chosen)} together lose {all_of_them.worst:.2%} of NDCG@5 on the "
            f"validation days, more than {LOSS_GATE:.0%}; name fewer models or none"
        )
    return Int8(chosen, tried, all_of_them, reference.ndcg)


def change(before: Answers, after: Answers) -> Change:
    """What became of `before`."""
    loss = {who: 1.0 - after.ndcg[who] / max(was, 1e-12) for who, was in before.ndcg.items()}
    near = {
        tower: share_found(after.nearest[tower], before.nearest[tower]) for tower in before.nearest
    }
    return Change(loss, share_found(after.ranked, before.ranked), near)


def _forms(
    name: str, content: bytes, module: nn.Module, calibration: Inputs, num_items: int
) -> Iterator[Tried]:
    """Every form that there is of the model, measured alone: one half of the real checkouts gives
    the ranges, the other is what drift and speed are measured on."""
    known, unseen = ({n: a[half::2] for n, a in calibration.items()} for half in (0, 1))
    anything = parity.random_inputs(name, _AT_RANDOM, num_items, np.random.default_rng(0))
    for form in int8.FORMS:
        made = int8.quantised(content, form, known)
        if made is None:
            continue
        drift = parity.difference(module, made, unseen)
        apart = max(int8.batch_difference(made, one) for one in (anything, unseen))
        float_speed, speed = int8.speeds(content, made, unseen)
        yield Tried(name, form, made, len(content), drift, apart, float_speed, speed)


def _need(chosen: Mapping[str, Tried], tried: Sequence[Tried], named: Sequence[str]) -> None:
    absent = [name for name in named if name not in chosen]
    if absent:
        why = "; ".join(
            f"{one.form} {one.refused}" for one in tried if one.model == absent[0] and one.refused
        )
        raise GateRefused(f"int8: {absent[0]}: {why or 'nothing in it to quantise'}")
    if not chosen:
        why = "; ".join(f"{one.model} {one.form}: {verdict(one, chosen)}" for one in tried)
        raise GateRefused(f"int8: no model gains by it ({why}); export without --int8")


def verdict(one: Tried, chosen: Mapping[str, Tried]) -> str:
    """What became of a form, in a few words."""
    if chosen.get(one.model) is one:
        return "taken"
    if one.refused:
        return one.refused
    if one.model in chosen and one.form != FORMS[0]:
        return "not needed"
    return "slower than float" if one.slower else "saves too little"


def rows(found: Int8) -> Iterator[tuple[str, dict[str, list[float]], str]]:
    """For the figures: a row's name, its metrics and what became of it. Sizes in MiB, times in
    milliseconds of one thread's CPU."""
    for one in found.tried:
        row = {
            "float_MiB": [one.float_bytes / 2**20],
            "MiB": [len(one.content) / 2**20],
            "drift": [one.drift],
            "batch_difference": [one.batch_difference],
        }
        for size in int8.BATCHES:
            row[f"float_batch{size}_ms"] = [one.float_speed.ms[size]]
            row[f"batch{size}_ms"] = [one.speed.ms[size]]
        yield (
            f"int8/{one.model}/{one.form}",
            row | ({} if one.change is None else _of_change(one.change, one.model)),
            verdict(one, found.chosen),
        )
    yield "int8", _of_change(found.change), f"{', '.join(found.chosen)} in int8"


def _of_change(change: Change, model: str | None = None) -> dict[str, list[float]]:
    row = {f"NDCG@5_loss_{who}": [loss] for who, loss in change.loss.items()}
    row["overlap@5"] = [change.top5]
    for name, tower in _TOWER_OF.items():
        if model in (None, name):
            row[f"overlap@{NEAREST}_{tower}"] = [change.top100[tower]]
    return row
