"""The report of one experiment, from its units."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from contract.experiments import METRICS, Experiment, Guardrail, Metric, Variant
from serving.experiments.moments import Moments
from serving.experiments.report_form import (
    CutTold,
    ExperimentReport,
    GuardrailTold,
    Interval,
    MetricTold,
    SampleRatio,
    VariantTold,
)
from serving.experiments.sequential import MIN_UNITS
from serving.experiments.statistics import (
    UNBALANCED_P,
    Effect,
    broken,
    corrected,
    effect,
    sample_ratio_p,
)
from serving.experiments.units import Units

# Where nobody said how many units are planned, the always valid intervals are tightest about here.
USUAL_UNITS: Final = 20_000
_ALPHA = 0.05
_WORDS: Final[dict[Metric, str]] = {
    "conversion": "conversion",
    "order_value": "the average order",
    "revenue": "revenue per person",
    "margin": "margin per person",
    "abandonment": "cart abandonment",
    "take_rate": "the take rate of suggestions",
}


def made_report(experiment: Experiment, units: Units, as_of: datetime) -> ExperimentReport:
    """What `experiment` has shown."""
    sides = {one.key: units.moments(one.key) for one in experiment.variants}
    counts = [side.units for side in sides.values()]
    p = sample_ratio_p(counts, experiment.fractions)
    ratio = SampleRatio(p=p, ok=p >= UNBALANCED_P)
    told = [_variant(experiment, one, sides, units) for one in experiment.variants]
    return ExperimentReport(
        experiment=experiment,
        as_of=as_of,
        units=sum(counts),
        mixed=units.mixed,
        sample_ratio=ratio,
        variants=told,
        summary=_summary(experiment, told, ratio),
        orders_without_cost=units.orders_without_cost,
    )


def _variant(
    experiment: Experiment, variant: Variant, sides: dict[str, Moments], units: Units
) -> VariantTold:
    side = sides[variant.key]
    told = VariantTold(
        variant=variant.key,
        units=side.units,
        orders=round(side.total("orders")),
        revenue=round(side.total("revenue")),
    )
    if variant == experiment.control:
        return told
    control = sides[experiment.control.key]
    # A margin of which a part is not known is no margin.
    measured = [one for one in METRICS if one != "margin" or not units.orders_without_cost]
    effects = {one: _effect(experiment, one, control, side) for one in measured}
    metrics = [_metric(one, experiment.primary_metric) for one in effects.values() if one]
    guardrails = [
        _guardrail(experiment, one, control, side, effects) for one in experiment.guardrails
    ]
    cuts = _cuts(experiment, variant, units)
    update = {"metrics": metrics, "guardrails": guardrails, "cuts": cuts}
    return told.model_copy(update=update)


def _planned(experiment: Experiment) -> float:
    return experiment.planned_units or USUAL_UNITS


def _effect(
    experiment: Experiment, metric: Metric, control: Moments, side: Moments
) -> Effect | None:
    return effect(
        metric,
        control,
        side,
        planned_units=_planned(experiment),
        alpha=_ALPHA,
        comparisons=len(experiment.variants) - 1,
    )


def _metric(found: Effect, primary: Metric) -> MetricTold:
    return MetricTold(
        metric=found.metric,
        primary=found.metric == primary,
        control=found.control,
        treatment=found.treatment,
        lift=found.lift,
        interval=Interval(low=found.lift_low, high=found.lift_high),
        p=found.p,
        always=Interval(low=found.always_low, high=found.always_high),
        always_p=found.always_p,
        cuped=found.cuped,
        variance_kept=found.variance_kept,
    )


def _guardrail(
    experiment: Experiment,
    guardrail: Guardrail,
    control: Moments,
    side: Moments,
    effects: Mapping[Metric, Effect | None],
) -> GuardrailTold:
    lost = None
    if guardrail.metric in effects:
        lost = broken(
            guardrail,
            control,
            side,
            effects[guardrail.metric],
            planned_units=_planned(experiment),
            # Any of them may end it, so they share the chance of a false alarm.
            alpha=_ALPHA / (len(experiment.variants) - 1) / len(experiment.guardrails),
        )
    return GuardrailTold(
        metric=guardrail.metric,
        max_loss=guardrail.max_loss,
        broken=bool(lost),
        measured=lost is not None,
    )


def _cuts(experiment: Experiment, variant: Variant, units: Units) -> list[CutTold]:
    found = []
    for cut, values in units.cuts.items():
        for value in sorted({one for one in values if one is not None}):
            sides = [
                units.moments(one, cut, value) for one in (experiment.control.key, variant.key)
            ]
            told = _effect(experiment, experiment.primary_metric, *sides)
            if told is not None:
                found.append((cut, value, sides[0].units + sides[1].units, told))
    return [
        CutTold(
            cut=cut,
            value=value,
            units=count,
            lift=told.lift,
            always=Interval(low=told.always_low, high=told.always_high),
            always_p=p,
        )
        for (cut, value, count, told), p in zip(
            found, corrected([told.always_p for *_, told in found]), strict=True
        )
    ]


def _summary(
    experiment: Experiment, variants: Sequence[VariantTold], ratio: SampleRatio
) -> list[str]:
    if not ratio.ok:
        return [
            "The variants do not have the shares that were asked for (sample-ratio mismatch), so "
            "something loses people of one of them. Believe no figure until it is found.",
            *(line for one in variants[1:] for line in _losses(one)),
        ]
    return [line for one in variants[1:] for line in _told(variants[0], one)]


def _told(control: VariantTold, one: VariantTold) -> list[str]:
    metric = next((told for told in one.metrics if told.primary), None)
    if metric is None:
        return [_untold(control, one), *_losses(one)]
    word = _WORDS[metric.metric]
    span = f"{metric.always.low:+.1%} to {metric.always.high:+.1%}"
    known = metric.always.low > 0 or metric.always.high < 0
    return [
        f"{one.variant} changes {word} by {metric.lift:+.1%} against {control.variant} ({span}, at "
        "whatever moment one looks)" + ("." if known else ": no difference is shown yet."),
        *_losses(one),
    ]


def _untold(control: VariantTold, one: VariantTold) -> str:
    if min(control.units, one.units) < MIN_UNITS:
        return f"{one.variant}: fewer than {MIN_UNITS} people a variant."
    without = [side.variant for side in (control, one) if not side.orders]
    if without:
        return f"{one.variant}: no orders at all in {' and '.join(without)}."
    return f"{one.variant}: nothing yet of which a lift could be told."


def _losses(one: VariantTold) -> list[str]:
    return [
        f"{one.variant} loses more of {_WORDS[bad.metric]} than {bad.max_loss:.0%}."
        for bad in one.guardrails
        if bad.broken
    ]


def to_stop(report: ExperimentReport) -> Guardrail | None:
    """The guardrail that ends this experiment, if one does; also where people are lost, since a
    variant that breaks the checkout may well be what loses them."""
    stops = {one.metric: one for one in report.experiment.guardrails if one.stops}
    for variant in report.variants:
        for told in variant.guardrails:
            if told.broken and told.metric in stops:
                return stops[told.metric]
    return None
