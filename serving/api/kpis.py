"""`GET /v1/kpis`: key figures from the worker's sums, over time and told apart by one cut."""

import asyncio
import math
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from contract.clock import from_us, to_us
from serving.api.auth import authenticate
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, FieldProblem, documented
from serving.decision import experiment_arms, offer_shelf, rule_book
from serving.monitoring.kpi_metrics import METRICS, Better, Unit
from serving.monitoring.kpis import (
    ALL,
    DAY,
    FILE,
    HOUR,
    MINUTES_5,
    UNRIPE_US,
    Cut,
    KpiReader,
    Slice,
    Sums,
)
from serving.state.group_writer import StoreError

router = APIRouter()

Bucket = Literal["5m", "hour", "day"]
GRAIN: Final[dict[Bucket, int]] = {"5m": MINUTES_5, "hour": HOUR, "day": DAY}
MOST_BUCKETS: Final = 2_100  # a week of 5 minutes
MOST_GROUPS: Final = 50
_DEFAULT_SPAN = timedelta(hours=24)
_DOCUMENTS = {
    "rules": rule_book.DOCUMENT,
    "offers": offer_shelf.DOCUMENT,
    "experiments": experiment_arms.DOCUMENT,
}


class KpiQuery(BaseModel):
    """What is asked for. `start` and `end` are rounded down to whole buckets; without them the 24
    hours before the bucket that is under way, with it. `bucket`: how finely `series` goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    bucket: Bucket = "hour"
    group_by: Cut = "all"
    metrics: Annotated[str, StringConstraints(max_length=1_000)] | None = None
    series: bool = True


class Figure(BaseModel):
    """A metric over the whole range, and `before`: over as long a time right before it. `value` is
    `numerator` by `denominator`, null where nothing happened."""

    value: float | None
    numerator: float
    denominator: float
    before: float | None


class Points(BaseModel):
    """A metric bucket by bucket, in the order of `starts`."""

    value: list[float | None]
    numerator: list[float]
    denominator: list[float]


class Group(BaseModel):
    """One value of the cut; "" of `all`. An arm of an experiment is `key:variant`."""

    value: str
    decisions: float
    visits: float
    totals: dict[str, Figure]
    series: dict[str, Points] | None = None


class MetricTold(BaseModel):
    """What a metric is. `money` is in minor units of `currency`, `ms` milliseconds."""

    name: str
    title: str
    unit: Unit
    better: Better


class Mark(BaseModel):
    """Something went live: a release was first seen in a decision, or a version was written."""

    at: datetime
    kind: Literal["release", "rules", "offers", "experiments"]
    name: str
    note: str = ""


class Kpis(BaseModel):
    """Key figures. Visits that began after `unripe_from` may still become orders. `as_of`: the
    latest event that is counted, `now`: the gateway's time. `more`: how many groups follow those
    that are here."""

    start: datetime
    end: datetime
    bucket: Bucket
    group_by: Cut
    currency: str
    as_of: datetime | None
    now: datetime
    unripe_from: datetime | None
    metrics: list[MetricTold]
    starts: list[datetime]
    groups: list[Group]
    more: int
    marks: list[Mark]


async def _by_admin(request: Request) -> None:
    # Before the query is looked at: a stranger is told nothing of what it should be.
    authenticate(request, gateway_of(request), "admin")


@router.get(
    "/v1/kpis",
    summary="Read key figures",
    response_model=Kpis,
    responses=documented(401, 403, 404, 422, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["kpis"],
    dependencies=[Depends(_by_admin)],
)
async def get_kpis(request: Request, query: Annotated[KpiQuery, Query()]) -> Response:
    """Conversion, order value, abandonment, revenue and margin per decision, cost of offers, take
    rate, time, rungs and consent: from sums that `tillwise-serve worker` keeps, so nobody's data is
    read. Grouped values are those with the most visits; segments overlap. `metrics` names some,
    apart by commas."""
    gateway = gateway_of(request)
    asked = _asked(query, gateway.clock.now())
    try:
        answer = await asyncio.to_thread(_answer, gateway, asked)
    except FileNotFoundError:
        raise ApiProblem(
            404, "No key figures are kept yet; `tillwise-serve worker` keeps them."
        ) from None
    except sqlite3.Error as error:
        raise StoreError(f"key figures could not be read: {error}") from None
    return Response(answer, media_type="application/json")


@dataclass(frozen=True)
class _Asked:
    """A query that can be answered."""

    start: datetime
    end: datetime
    bucket: Bucket
    cut: Cut
    metrics: tuple[str, ...]
    series: bool

    @property
    def grain(self) -> int:
        return GRAIN[self.bucket]


def _asked(query: KpiQuery, now: datetime) -> _Asked:
    grain = GRAIN[query.bucket]
    end_us = to_us(now) // grain * grain + grain
    if query.end is not None:
        end_us = to_us(query.end) // grain * grain
    span = max(to_us(now) - to_us(now - _DEFAULT_SPAN), grain)
    start_us = end_us - span if query.start is None else to_us(query.start) // grain * grain
    if start_us >= end_us:
        raise _refused("start", "lies not before end, in whole buckets")
    if query.series and (end_us - start_us) // grain > MOST_BUCKETS:
        raise _refused("bucket", f"more than {MOST_BUCKETS} of them; ask for longer ones")
    names = tuple(METRICS)
    if query.metrics is not None:
        names = tuple(dict.fromkeys(one.strip() for one in query.metrics.split(",")))
        if not set(names) <= METRICS.keys():
            raise _refused("metrics", f"are some of {', '.join(METRICS)}")
    start, end = from_us(start_us), from_us(end_us)
    return _Asked(start, end, query.bucket, query.group_by, names, query.series)


def _answer(gateway: Gateway, asked: _Asked) -> str:
    """The answer as JSON, made on a thread: neither reading nor writing it takes the loop's time.
    Raises FileNotFoundError, sqlite3.Error."""
    with KpiReader.open(gateway.settings.state / FILE) as kpis:
        groups, more = _groups(kpis, asked)
        releases = kpis.slices("release")
        as_of = kpis.as_of()
    told = [METRICS[name] for name in asked.metrics]
    count = (to_us(asked.end) - to_us(asked.start)) // asked.grain if asked.series else 0
    unripe = None if as_of is None else as_of - timedelta(microseconds=UNRIPE_US)
    return Kpis(
        start=asked.start,
        end=asked.end,
        bucket=asked.bucket,
        group_by=asked.cut,
        currency=gateway.live.current.catalogue.currency,
        as_of=as_of,
        now=gateway.clock.now(),
        unripe_from=unripe,
        metrics=[
            MetricTold(name=one.name, title=one.title, unit=one.unit, better=one.better)
            for one in told
        ],
        starts=[from_us(to_us(asked.start) + n * asked.grain) for n in range(count)],
        groups=groups,
        more=more,
        marks=_marks(gateway, asked, releases),
    ).model_dump_json()


def _groups(kpis: KpiReader, asked: _Asked) -> tuple[list[Group], int]:
    """The groups, the largest first, and how many are left out."""
    before = from_us(2 * to_us(asked.start) - to_us(asked.end))
    wheres: list[tuple[str, str]] = [ALL]
    if asked.cut != "all":
        seen = (to_us(asked.start), to_us(asked.end))
        # Of many values those seen last; which are the largest is known only once they are read.
        found = [one for one in kpis.slices(asked.cut) if one.last_us >= seen[0]]
        wheres = [(one.cut, one.value) for one in found if one.first_us < seen[1]]
    read = [(where, kpis.totals(asked.start, asked.end, where)) for where in wheres]
    read.sort(key=lambda one: (-_size(one[1]), one[0]))
    groups = []
    for where, total in read[:MOST_GROUPS]:
        earlier = kpis.totals(before, asked.start, where)
        series = None
        if asked.series:
            sums = kpis.sums(asked.start, asked.end, asked.grain, where)
            series = {name: _points(sums, name) for name in asked.metrics}
        groups.append(
            Group(
                value=where[1],
                decisions=float(total.of("decisions")[0]),
                visits=float(total.of("visits")[0]),
                totals={name: _figure(total, earlier, name) for name in asked.metrics},
                series=series,
            )
        )
    return groups, max(len(read) - MOST_GROUPS, 0)


def _size(total: Sums) -> float:
    return float(total.of("visits")[0])


def _figure(total: Sums, earlier: Sums, name: str) -> Figure:
    now, before = total.series(name), earlier.series(name)
    anything = bool(earlier.counters.any())
    return Figure(
        value=_number(now.value[0]),
        numerator=float(now.numerator[0]),
        denominator=float(now.denominator[0]),
        before=_number(before.value[0]) if anything else None,
    )


def _points(sums: Sums, name: str) -> Points:
    series = sums.series(name)
    return Points(
        value=[_number(one) for one in series.value.tolist()],
        numerator=series.numerator.tolist(),
        denominator=series.denominator.tolist(),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _marks(gateway: Gateway, asked: _Asked, releases: Iterable[Slice]) -> list[Mark]:
    """What went live in the range, oldest first."""
    found = [Mark(at=from_us(one.first_us), kind="release", name=one.value) for one in releases]
    for kind, document in _DOCUMENTS.items():
        for head in gateway.control.document_history(document, None, 50):
            found.append(
                Mark.model_validate(
                    {
                        "at": head.written_at,
                        "kind": kind,
                        "name": f"version {head.version}",
                        "note": head.note,
                    }
                )
            )
    inside = [one for one in found if asked.start <= one.at < asked.end]
    return sorted(inside, key=lambda one: one.at)


def _refused(field: str, message: str) -> ApiProblem:
    problem = FieldProblem(field=field, message=message)
    return ApiProblem(422, f"{field}: {message}", errors=[problem])
