"""The report of an experiment as it is kept and answered. It imports no statistics: the gateway
reads what the worker made."""

from datetime import datetime

from pydantic import BaseModel

from contract.experiments import Experiment, Metric


class Interval(BaseModel):
    """From `low` to `high`."""

    low: float
    high: float


class MetricTold(BaseModel):
    """A variant against the control on one metric, corrected for the number of variants. `lift` is
    relative to the control; `interval`
    and `p` are for whoever looks once, at the end; `always` and `always_p` hold at every look, so
    that one may stop when one likes. `cuped`: what they did before was taken into account."""

    metric: Metric
    primary: bool
    control: float
    treatment: float
    lift: float
    interval: Interval
    p: float
    always: Interval
    always_p: float
    cuped: bool
    variance_kept: float


class GuardrailTold(BaseModel):
    """Whether a metric has certainly lost more than it may, at whatever look this is; not
    `measured`: too little is known to say."""

    metric: Metric
    max_loss: float
    broken: bool
    measured: bool


class CutTold(BaseModel):
    """The primary metric among some of the units only. `always` holds at every look, for this cut;
    `always_p` is corrected for the number of cuts as well: among those below a level, at most that
    share is chance."""

    cut: str
    value: str
    units: int
    lift: float
    always: Interval
    always_p: float


class VariantTold(BaseModel):
    """One variant: how many units (people), and their totals. The control has no metrics."""

    variant: str
    units: int
    orders: int
    revenue: int
    metrics: list[MetricTold] = []
    guardrails: list[GuardrailTold] = []
    cuts: list[CutTold] = []


class SampleRatio(BaseModel):
    """Whether as many are in the variants as was asked for; `p` holds at every look. Where
    not `ok`, believe no figure."""

    p: float
    ok: bool


class ExperimentReport(BaseModel):
    """What an experiment has shown until `as_of`. Money is in minor units. `mixed` people have met
    several variants, on several devices, and are left out. `summary` says it in words."""

    experiment: Experiment
    as_of: datetime
    units: int
    mixed: int
    sample_ratio: SampleRatio
    variants: list[VariantTold]
    summary: list[str]
    orders_without_cost: int
