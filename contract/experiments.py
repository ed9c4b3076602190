"""Experiments: what is compared, on whom, and who gets which variant.

Assignment is a pure function of the definitions, the unit and the time, so that every replica,
every restart and every later analysis agrees without asking anybody. The bucketing is the one that
users of GrowthBook know: a unit has one place in 0..1 for every experiment, the weights of the
variants divide 0..1 from the left, and of each variant's part the first `share` takes part. So a
unit that takes part keeps its variant however far the share is raised.

Experiments of one layer divide the layer by their `slots`, so nobody is in two of them. Layers are
independent of one another. Whoever is in the global holdout takes part in nothing else.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StringConstraints,
    model_validator,
)

from contract.assignment import as_bytes, placer

HOLDOUT: Final = "holdout"  # the experiment whose control takes part in no other
HELD_OUT: Final = "held_out"
OPEN: Final = "open"
MOST_EXPERIMENTS = 200
MOST_LAYERS_IN_USE = 20  # each is hashed for every checkout
LEAST_FRACTION = 1e-6  # of a variant; nobody would ever be in a smaller one

Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Words = Annotated[str, StringConstraints(max_length=500)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
Status = Literal["draft", "running", "stopped"]
Metric = Literal["conversion", "order_value", "revenue", "margin", "abandonment", "take_rate"]
METRICS: tuple[Metric, ...] = (
    *("conversion", "order_value", "revenue", "margin", "abandonment", "take_rate"),
)
LESS_IS_BETTER: Final[frozenset[Metric]] = frozenset({"abandonment"})

# What may not change once people have been told apart by it.
_FROZEN = ("variants", "salt", "layer", "slots", "starts_at")
# What its intervals promise at every look rests on what was said before anybody looked.
_PROMISED = ("planned_units", "primary_metric")


class ExperimentRefused(ValueError):  # noqa: N818 - it names what happened, not a fault
    """A definition that may not be saved; `field` says where, as `variants` or `layer`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _distinct(name: str, values: Sequence[str]) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"{name}: must not name the same thing twice")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Changes(_Strict):
    """What a variant takes away from the decision. Consent is never widened by it.

    `personalization: false` is the generic checkout: no history, no recent items, no search terms.
    `offers: false` makes no offers.
    """

    personalization: StrictBool = True
    offers: StrictBool = True

    @property
    def only_personal(self) -> bool:
        """Whether only shoppers whose history may be used can tell the difference."""
        return not self.personalization and self.offers


class Variant(_Strict):
    """One variant; `weight` is relative to those of the others."""

    key: Key
    weight: Annotated[float, Strict(), Field(gt=0, le=1_000_000, allow_inf_nan=False)] = 1.0
    changes: Changes = Changes()


class Guardrail(_Strict):
    """A metric that must not lose more than `max_loss` of the control's; where it certainly has,
    and `stops` is set, the experiment ends by itself."""

    metric: Metric
    max_loss: Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    stops: StrictBool = True


class Experiment(_Strict):
    """One experiment. The first variant is the control. `share` of those in its part of the layer
    take part. It runs while its status says so, from `starts_at` until `ends_at`."""

    key: Key
    title: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    description: Words = ""
    layer: Key | None = None  # None: one of its own
    slots: tuple[Fraction, Fraction] = (0.0, 1.0)
    salt: Key | None = None  # None: the key
    variants: Annotated[tuple[Variant, ...], Field(min_length=2, max_length=10)]
    share: Fraction = 1.0
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    status: Status = "draft"
    primary_metric: Metric = "conversion"
    guardrails: Annotated[tuple[Guardrail, ...], Field(max_length=len(METRICS))] = ()
    planned_units: Annotated[int, Strict(), Field(ge=100, le=10**10)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _distinct("variants", [one.key for one in self.variants])
        _distinct("guardrails", [one.metric for one in self.guardrails])
        if self.slots[0] >= self.slots[1]:
            raise ValueError("slots: the first must be below the second")
        if self.layer is None and self.slots != (0.0, 1.0):
            raise ValueError("slots: are parts of a layer, and none is named")
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise ValueError("ends_at: must be after starts_at")
        if self.key == HOLDOUT:
            self._as_holdout()
        return self

    def _as_holdout(self) -> None:
        if [one.key for one in self.variants] != [HELD_OUT, OPEN]:
            raise ValueError(f"variants: of {HOLDOUT} are {HELD_OUT} and {OPEN}, in this order")
        if any(one.changes != Changes() for one in self.variants):
            raise ValueError(f"variants: of {HOLDOUT} change nothing themselves")
        if self.layer is not None or self.share != 1.0:
            raise ValueError(f"{HOLDOUT}: its weights say who is held out; no layer, share 1")

    @property
    def control(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]

    @property
    def fractions(self) -> tuple[float, ...]:
        """The part of each variant, summing to 1."""
        total = sum(one.weight for one in self.variants)
        return tuple(one.weight / total for one in self.variants)

    @property
    def only_personal(self) -> bool:
        """Whether only shoppers whose history may be used can tell its variants apart."""
        changed = [one.changes for one in self.variants if one.changes != Changes()]
        return bool(changed) and all(one.only_personal for one in changed)

    def variant(self, key: str) -> Variant | None:
        """The variant of that key."""
        return next((one for one in self.variants if one.key == key), None)

    @property
    def hashed_as(self) -> str:
        """What a unit is hashed with: two of one salt put everybody in like places."""
        return self.salt or self.key

    def over(self, now: datetime) -> bool:
        """Whether its end is past, which it stays."""
        return self.ends_at is not None and now >= self.ends_at

    def runs(self, now: datetime) -> bool:
        """Whether people are told apart by it `now`."""
        begun = self.starts_at is None or now >= self.starts_at
        return self.status == "running" and begun and (self.ends_at is None or now < self.ends_at)


def personalised_against_generic(share: float = 1.0) -> Experiment:
    """The first test that a shop should run: what does personalization earn?"""
    return Experiment(
        key="personalised-against-generic",
        title="Personalised against generic checkout",
        description="The generic checkout uses no history, no recent items and no search terms.",
        variants=(
            Variant(key="generic", changes=Changes(personalization=False)),
            Variant(key="personalised"),
        ),
        share=share,
        guardrails=(Guardrail(metric="order_value", max_loss=0.05),),
    )


class ExperimentBook(_Strict):
    """All experiments of a shop, kept as one document, because layers tie them together."""

    experiments: Annotated[tuple[Experiment, ...], Field(max_length=MOST_EXPERIMENTS)] = (
        personalised_against_generic(),
    )

    def get(self, key: str) -> Experiment | None:
        """The experiment of that key."""
        return next((one for one in self.experiments if one.key == key), None)

    def saved(self, new: Experiment, now: datetime) -> "ExperimentBook":
        """The book with `new` in the place of what had its key. Raises ExperimentRefused where that
        would move people who are told apart, put somebody into two of one layer, or change what the
        figures rest on."""
        old = self.get(new.key)
        if old is None and len(self.experiments) >= MOST_EXPERIMENTS:
            raise ExperimentRefused("key", f"there are {MOST_EXPERIMENTS} already")
        if old is not None:
            _check_change(old, new, now)
        if new.status == "running" and min(new.fractions) < LEAST_FRACTION:
            raise ExperimentRefused("variants", "one has less than a millionth of the weights")
        others = [one for one in self.experiments if one.key != new.key]
        if new.status == "running":
            running = [one for one in others if one.status == "running" and not one.over(now)]
            _check_place(new, running)
            begun = old is not None and old.status == "running"
            begins = new.starts_at if begun else max(new.starts_at or now, now)
            for one in running:
                _check_holdout((one, one.starts_at), (new, begins))
                _check_holdout((new, begins), (one, one.starts_at))
        kept = [new if one.key == new.key else one for one in self.experiments]
        return ExperimentBook(experiments=tuple(kept if old is not None else [*kept, new]))


def _check_change(old: Experiment, new: Experiment, now: datetime) -> None:
    if old.status == "draft":
        return
    if new.status == "draft":
        raise ExperimentRefused("status", "it has run; it can be stopped, not forgotten")
    if old.status == "stopped" and new.status == "running":
        raise ExperimentRefused("status", "it was stopped; run it again under another key")
    for name in _FROZEN:
        if getattr(old, name) != getattr(new, name):
            raise ExperimentRefused(
                name, "may not change once it has run: people would change sides; stop it first"
            )
    for name in _PROMISED:
        if getattr(old, name) != getattr(new, name):
            raise ExperimentRefused(
                name, "may not change once it has run: its figures rest on it; take another key"
            )
    if not set(old.guardrails) <= set(new.guardrails):
        raise ExperimentRefused("guardrails", "once it has run, some may be added, none changed")
    if old.over(now) and new.ends_at != old.ends_at:
        raise ExperimentRefused("ends_at", "is past; run it again under another key")
    if new.share < old.share:
        raise ExperimentRefused("share", f"may only grow while it runs; it is {old.share}")


def _check_place(new: Experiment, running: Sequence[Experiment]) -> None:
    for one in running:
        if one.layer is None or one.layer != new.layer:
            if one.hashed_as == new.hashed_as:
                raise ExperimentRefused(
                    "salt",
                    f"{one.key} has it too: everybody would have like variants in both, and no "
                    "difference could be told from the other's; take another, or one layer",
                )
            continue
        if one.slots[0] < new.slots[1] and new.slots[0] < one.slots[1]:
            raise ExperimentRefused("slots", f"{one.key} has a part of them in this layer")
    layers = {one.layer or one.key for one in (*running, new)}
    if len(layers) > MOST_LAYERS_IN_USE:
        raise ExperimentRefused("layer", f"at most {MOST_LAYERS_IN_USE} layers may be in use")


def _check_holdout(
    holdout: tuple[Experiment, datetime | None], test: tuple[Experiment, datetime | None]
) -> None:
    """Each with when it begins (None: long ago). A test that the holdout begins in the middle of
    loses the people who are held out."""
    (first, begins), (other, began) = holdout, test
    if first.key != HOLDOUT or begins is None or (began is not None and began >= begins):
        return
    if other.ends_at is None or other.ends_at > begins:
        raise ExperimentRefused(
            "status",
            f"the holdout would begin while {other.key} runs and take people out of it; start the "
            "holdout first, or when it has ended",
        )


class _Bounds:
    """Where in 0..1 the variants of an experiment begin, and where those end who take part."""

    __slots__ = ("begins", "ends", "ends_at", "key", "keys", "place", "starts_at")

    def __init__(self, experiment: Experiment) -> None:
        self.key, self.place = experiment.key, placer(experiment.hashed_as)
        self.keys = [one.key for one in experiment.variants]
        begin, self.begins, self.ends = 0.0, list[float](), list[float]()
        for part in experiment.fractions:
            self.begins.append(begin)
            self.ends.append(begin + part * experiment.share)
            begin += part
        if experiment.share == 1.0:
            # Parts that are computed must not leave a gap between them that belongs to nobody.
            self.ends = [*self.begins[1:], 1.0]
        self.starts_at, self.ends_at = experiment.starts_at, experiment.ends_at

    def variant(self, unit: bytes, now: datetime) -> str | None:
        """The variant of `unit`, None where it does not take part."""
        if self.starts_at is not None and now < self.starts_at:
            return None
        if self.ends_at is not None and now >= self.ends_at:
            return None
        at = self.place(unit)
        which = bisect_right(self.begins, at) - 1
        return self.keys[which] if at < self.ends[which] else None


class Assigner:
    """Tells people apart by the running experiments. Immutable; under a microsecond for each layer
    and each experiment that somebody is in."""

    def __init__(self, experiments: Iterable[Experiment] = ()) -> None:
        running = [one for one in experiments if one.status == "running"]
        self._holdout = next((_Bounds(one) for one in running if one.key == HOLDOUT), None)
        others = [one for one in running if one.key != HOLDOUT]
        self._alone = [_Bounds(one) for one in others if one.slots == (0.0, 1.0)]
        shared: dict[str, list[Experiment]] = {}
        for one in others:
            if one.slots != (0.0, 1.0):
                shared.setdefault(str(one.layer), []).append(one)
        self._layers = [
            (placer(f"layer:{layer}"), [(one.slots, _Bounds(one)) for one in members])
            for layer, members in sorted(shared.items())
        ]
        self._changes = {
            (one.key, variant.key): variant.changes for one in others for variant in one.variants
        }
        self._only_personal = {one.key for one in others if one.only_personal}

    def assign(self, unit: str, now: datetime, *, personal: bool = True) -> list[tuple[str, str]]:
        """The (key, variant) of every experiment that `unit` takes part in at `now`. Those that
        only somebody with a usable history could notice are left out where not `personal`: they
        would blur what is measured."""
        found: list[tuple[str, str]] = []
        hashed = as_bytes(unit)
        if self._holdout is not None and (side := self._holdout.variant(hashed, now)) is not None:
            found.append((HOLDOUT, side))
            if side == HELD_OUT:
                return found
        for one in self._alone:
            self._add(found, one, hashed, now, personal)
        for layer_place, members in self._layers:
            at = layer_place(hashed)
            for (begin, end), one in members:
                if begin <= at < end:
                    self._add(found, one, hashed, now, personal)
        return found

    def _add(
        self, found: list[tuple[str, str]], one: _Bounds, unit: bytes, now: datetime, personal: bool
    ) -> None:
        if not personal and one.key in self._only_personal:
            return
        if (variant := one.variant(unit, now)) is not None:
            found.append((one.key, variant))

    def changes(self, assigned: Iterable[tuple[str, str]]) -> Changes:
        """What all of the variants together take away."""
        told = [self._changes.get(one, Changes()) for one in assigned]
        return Changes(
            personalization=all(one.personalization for one in told),
            offers=all(one.offers for one in told),
        )
