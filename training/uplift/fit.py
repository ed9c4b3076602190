"""Fitting the uplift network on randomised decisions, by the inverse of their propensities.

Effects are learned from what people did and from what an X-learner on the same people makes of it.
Outcomes are mostly noise: of few people a network follows it, where boosted trees that impute one
arm's outcome from another's stay near the mean. Their word has no noise, so that it steadies the
network, and the file that goes out is the network alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from contract.errors import UserError
from training.data.offer_log import Floats, Ints, OfferLog
from training.models.offer_uplift import Members, OfferUplift
from training.uplift.learners import XLearner

_SPEND_SHARE = 0.05


@dataclass(frozen=True)
class UpliftRecipe:
    """How a network is fitted. `effect_decay` is weight decay on what makes people differ in
    effect, `decay` on the rest; `transformed` weighs the loss on the effects that outcomes tell,
    `taught` on those that an X-learner tells. Each of the `members` learns without another part of
    the people."""

    hidden: int = 32
    dropout: float = 0.1
    learning_rate: float = 5e-3
    decay: float = 1e-3
    effect_decay: float = 1e-2
    transformed: float = 1.0
    taught: float = 5.0
    batch_size: int = 4_096
    most_epochs: int = 24
    patience: int = 4
    members: int = 5


@dataclass(frozen=True)
class _Batch:
    features: Tensor  # [B, F]
    arm: Tensor  # [B, 1]
    weight: Tensor  # [B] 1 / propensity, 1 on average
    outcome: Tensor  # [B]
    effect: Tensor  # [B, A - 1] transformed outcomes, see `_effects`
    taught: Tensor  # [B, A - 1] effects as the X-learner tells them
    ratio: Tensor  # [B] spend over value, 1 on average where the outcome is 1

    def rows(self, chosen: Tensor) -> "_Batch":
        return _Batch(**{name: column[chosen] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Fitted:
    """A network, and the chances [N, A] of the decisions that it learned from, each told by the
    member that did not learn from the person."""

    model: Members
    out_of_fold: Floats


def fit_uplift(log: OfferLog, recipe: UpliftRecipe, seed: int) -> Fitted:
    """A network whose members, each with a teacher of its own, learn from all people but a part of
    their own, which says where to stop. UserError where there are fewer people than members."""
    part = _parts(log.subject, recipe.members, seed)
    told = np.zeros((len(log), len(log.arms)))
    members = []
    for number in range(recipe.members):
        apart = part == number
        learned, held_out = log.take(~apart), log.take(apart)
        own = 1_000 * seed + number
        teacher = XLearner(learned, held_out, own)
        learn, check = (_batch(one, learned, teacher.tell(one)[1]) for one in (learned, held_out))
        member = _member(learn, check, recipe, own)
        member.spend_ratio.fill_(_ratio(learned))
        told[apart] = predicted(Members([member]).eval(), held_out)[0]
        members.append(member)
    return Fitted(Members(members).eval(), told)


def _parts(subject: Ints, count: int, seed: int) -> Ints:
    """[N] which of `count` equal parts of the people each decision's person is in."""
    people, who = np.unique(subject, return_inverse=True)
    if len(people) < count:
        raise UserError(f"decisions of {len(people)} people; at least {count} are needed")
    return (np.random.default_rng(seed).permutation(len(people)) % count)[who]


def predicted(model: Members, log: OfferLog) -> tuple[Floats, Floats]:
    """Chance of the outcome and expected spend under every arm, [N, A] each."""
    with torch.no_grad():
        value = torch.from_numpy(log.value.astype(np.float32))[:, None]
        answer = model(torch.from_numpy(log.features), value).numpy().astype(np.float64)
    return answer[..., 0], answer[..., 1]


def _member(learn: _Batch, check: _Batch, recipe: UpliftRecipe, seed: int) -> OfferUplift:
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    num_arms = learn.effect.shape[1] + 1
    model = OfferUplift(learn.features.shape[1], num_arms, recipe.hidden, recipe.dropout)
    model.standardise_on(learn.features)
    _start_from_means(model, learn)
    heads = [*model.effects.parameters()]
    rest = [p for p in model.parameters() if all(p is not head for head in heads)]
    optimiser = torch.optim.AdamW(
        [
            {"params": rest, "weight_decay": recipe.decay},
            {"params": heads, "weight_decay": recipe.effect_decay},
        ],
        lr=recipe.learning_rate,
    )
    best, kept, waited = float("inf"), _copy(model), 0
    for _ in range(recipe.most_epochs):
        model.train()
        for rows in torch.split(torch.randperm(len(learn.arm), generator=order), recipe.batch_size):
            optimiser.zero_grad()
            part = learn.rows(rows)
            loss = _loss(model, part, recipe) + _spend_loss(model, part)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        model.eval()
        with torch.no_grad():
            missed = float(_loss(model, check, recipe))
        if missed < best - 1e-6:
            best, kept, waited = missed, _copy(model), 0
        else:
            waited += 1
            if waited > recipe.patience:
                break
    model.load_state_dict(kept)
    return model


def _loss(model: OfferUplift, batch: _Batch, recipe: UpliftRecipe) -> Tensor:
    """Log-loss of what was seen, and squared error of the effects, seen and taught."""
    logits_BA, _ = model.logits(batch.features)
    seen = logits_BA.gather(1, batch.arm).squeeze(1)
    loss = F.binary_cross_entropy_with_logits(seen, batch.outcome, batch.weight)
    chance_BA = torch.sigmoid(logits_BA)
    effect = chance_BA[:, 1:] - chance_BA[:, :1]
    loss = loss + recipe.transformed * (effect - batch.effect).square().mean()
    return loss + recipe.taught * (effect - batch.taught).square().mean()


def _spend_loss(model: OfferUplift, batch: _Batch) -> Tensor:
    """A Poisson loss of the spend where there was some: its best answer is the mean, and one
    amount far out does not rule it. It may not stop the training: amounts are noise mostly."""
    _, ratio_BA = model.logits(batch.features)
    told = ratio_BA.gather(1, batch.arm).squeeze(1)
    counted = batch.weight * batch.outcome
    missed = torch.exp(told) - batch.ratio * told
    return _SPEND_SHARE * (counted * missed).sum() / counted.sum().clamp(min=1.0)


def _batch(log: OfferLog, train: OfferLog, taught: Floats) -> _Batch:
    row = np.arange(len(log))
    weight = 1.0 / log.propensity[row, log.arm]
    return _Batch(
        features=torch.from_numpy(log.features),
        arm=torch.from_numpy(log.arm)[:, None],
        weight=torch.from_numpy((weight / weight.mean()).astype(np.float32)),
        outcome=torch.from_numpy(log.outcome.astype(np.float32)),
        effect=torch.from_numpy(_effects(log, train).astype(np.float32)),
        taught=torch.from_numpy(taught.astype(np.float32)),
        ratio=torch.from_numpy((log.spend / log.value / _ratio(train)).astype(np.float32)),
    )


def _effects(log: OfferLog, train: OfferLog) -> Floats:
    """[N, A - 1] outcomes transformed so that their mean, given the features, is the effect of the
    arm: the mean of each arm in `train`, and what the row adds to it by its propensity."""
    means = np.array([_mean(train, arm) for arm in range(len(train.arms))])
    row = np.arange(len(log))
    beyond = (log.outcome - means[log.arm]) / log.propensity[row, log.arm]
    of_arm = means + np.eye(len(train.arms))[log.arm] * beyond[:, None]
    effects: Floats = of_arm[:, 1:] - of_arm[:, :1]
    return effects


def _mean(log: OfferLog, arm: int) -> float:
    got = log.arm == arm
    weight = 1.0 / log.propensity[got, arm]
    return float((weight * log.outcome[got]).sum() / max(weight.sum(), 1e-9))


def _ratio(train: OfferLog) -> float:
    """Mean spend over value where it came to the outcome."""
    came = train.outcome > 0
    return max(float((train.spend[came] / train.value[came]).mean()), 1e-6) if came.any() else 1.0


def _start_from_means(model: OfferUplift, learn: _Batch) -> None:
    """Everybody alike, at the means of the arms: what is learned is how people differ."""
    with torch.no_grad():
        arm, weight = learn.arm.squeeze(1), learn.weight
        odds = []
        for number in range(learn.effect.shape[1] + 1):
            counted = weight * (arm == number)
            mean = (counted * learn.outcome).sum() / counted.sum().clamp(min=1e-6)
            odds.append(torch.logit(mean.clamp(1e-4, 1 - 1e-4)))
        model.level.bias.fill_(float(odds[0]))
        model.effects.bias.copy_(torch.stack(odds[1:]) - odds[0])


def _copy(model: OfferUplift) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
