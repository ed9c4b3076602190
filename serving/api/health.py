"""For operators: `/healthz`, `/readyz` and `/metrics`, open to all because they name nobody."""

import asyncio
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from contract.errors import UserError
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, FieldProblem, documented
from serving.inference.backend import InferenceFailed
from serving.inference.probe import probe
from serving.state.sqlite_writer import StoreError

router = APIRouter(tags=["operations"])

_CHECK_SECONDS = 2.0


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Checkouts can be decided and events kept; with which release."""

    status: Literal["ready"] = "ready"
    release_id: str
    trial_release_id: str | None = None  # the canary or the shadow
    int8: list[str] | None = None  # the live release's quantised models
    problems: list[str] | None = None  # why another release is served than is wanted
    # What a checkout is answered without. What gateways share is away for all of them: to take them
    # out of service for it would leave every checkout without an answer.
    degraded: list[str] | None = None


@router.get("/healthz", summary="Alive", response_model=Health)
async def healthz(request: Request) -> Response:
    """Says only that the process answers."""
    return Response(Health().model_dump_json(), media_type="application/json")


@router.get("/readyz", summary="Ready", response_model=Readiness, responses=documented(503))
async def readyz(request: Request) -> Response:
    """Runs every model of the live release once and writes to the event log; 503 names what
    failed. `problems`, with 200, say why the live release is not the one that is wanted; what lies
    elsewhere (model server, feature store, event log, control store) and failed is named in
    `degraded`, with 200 as well: checkouts are answered without it."""
    gateway = gateway_of(request)
    async with gateway.checking:  # a storm of probes costs no more than one at a time
        found = await asyncio.gather(
            _failure("models", _infer(gateway)),
            _failure("event_log", gateway.event_log.check()),
            _failure("control_store", _read(gateway)),
        )
    problems = [problem for problem in found if problem is not None]
    release = gateway.live.current
    shared = _elsewhere(gateway)
    elsewhere = [one for one in problems if one.field in shared]
    if gateway.feed is not None and gateway.feed.problem is not None:
        elsewhere.append(FieldProblem(field="features", message=gateway.feed.problem))
    problems = [one for one in problems if one not in elsewhere]
    if problems:
        detail = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        raise ApiProblem(503, detail, errors=problems)
    candidate = gateway.live.candidate
    ready = Readiness(
        release_id=release.release_id,
        trial_release_id=None if candidate is None else candidate.release_id,
        int8=list(release.manifest.in_int8) or None,
        problems=gateway.follower.problems or None,
        degraded=[f"{one.field}: {one.message}" for one in elsewhere] or None,
    )
    return Response(ready.model_dump_json(exclude_none=True), media_type="application/json")


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """The Prometheus text format."""
    return Response(
        generate_latest(gateway_of(request).registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


def _elsewhere(gateway: Gateway) -> set[str]:
    """What lies outside this process and its folder."""
    settings = gateway.settings
    outside = {
        "models": gateway.live.current.models.remote,
        "event_log": settings.event_log != "sqlite",
        "control_store": settings.control_store != "sqlite",
    }
    return {part for part, is_outside in outside.items() if is_outside}


async def _failure(part: str, check: Awaitable[None]) -> FieldProblem | None:
    try:
        await asyncio.wait_for(check, _CHECK_SECONDS)
    except TimeoutError:
        return FieldProblem(field=part, message=f"no answer within {_CHECK_SECONDS:g} s")
    except (UserError, InferenceFailed, StoreError) as error:
        return FieldProblem(field=part, message=str(error))
    return None


async def _infer(gateway: Gateway) -> None:
    with gateway.live.lease() as release:
        await probe(release)


async def _read(gateway: Gateway) -> None:
    gateway.control.version()
