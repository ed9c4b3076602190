"""`GET` and `PUT /v1/experiments/{key}`: the shop's experiments, every version of which is kept
with who wrote it."""

import asyncio
import sqlite3

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from contract.experiments import Experiment, ExperimentBook, ExperimentRefused
from serving.api import idempotency
from serving.api.auth import Caller, authenticate
from serving.api.bodies import parse_document, read_json_body
from serving.api.documentation import body_of
from serving.api.documents import Held, Written, answered, overtaken, told
from serving.api.gateway import Gateway, gateway_of
from serving.api.problems import ApiProblem, FieldProblem, documented
from serving.decision.experiment_arms import DOCUMENT
from serving.experiments.report_form import ExperimentReport
from serving.experiments.rollup import FILE, read_report
from serving.state.documents import Document, DocumentConflict
from serving.state.group_writer import StoreError

router = APIRouter()
_TRIES = 5  # of a write that names no version, against others that write meanwhile


class WrittenExperiment(Written):
    """The request. `version`: the one of all experiments that it was made from (0: there is none
    yet); refused where somebody else has written meanwhile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: Experiment


class HeldExperiment(Held):
    """An experiment, and whether it runs at this moment. `version` is that of all experiments, 0
    where nobody has written any: what is there then is ready to be started."""

    experiment: Experiment
    running: bool


class HeldExperiments(BaseModel):
    """All experiments."""

    experiments: list[Experiment]
    version: int


@router.get(
    "/v1/experiments",
    summary="List the experiments",
    response_model=HeldExperiments,
    responses=documented(401, 403, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["experiments"],
)
async def list_experiments(request: Request) -> Response:
    """All of them, those that have ended too."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "admin")
    document = gateway.control.document(DOCUMENT)
    book = book_of(document)
    held = HeldExperiments(experiments=list(book.experiments), version=_version(document))
    return answered(held)


@router.get(
    "/v1/experiments/{key}",
    summary="Read an experiment",
    response_model=HeldExperiment,
    responses=documented(401, 403, 404, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["experiments"],
)
async def get_experiment(request: Request, key: str) -> Response:
    """As it was written last."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "admin")
    return _answer(gateway, key)


@router.put(
    "/v1/experiments/{key}",
    summary="Write an experiment",
    response_model=HeldExperiment,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=body_of(WrittenExperiment) | {"parameters": [idempotency.PARAMETER]},
    tags=["experiments"],
)
async def put_experiment(request: Request, key: str) -> Response:
    """In effect here for the next decision, elsewhere within a second. Once it has run, what tells
    people apart (variants and weights, salt, layer, slots) may not change, its share may only grow,
    and it can only be stopped. One that is stopped is not started again: use another key."""
    gateway = gateway_of(request)
    caller = authenticate(request, gateway, "admin")
    body = await read_json_body(request, gateway.settings.body_limit_bytes)
    written = parse_document(WrittenExperiment, body)
    if written.experiment.key != key:
        raise _refused("experiment.key", f"is not the key in the address, {key!r}")

    async def act() -> Response:
        await _write(gateway, caller, written)
        return _answer(gateway, key)

    return await idempotency.once(request, gateway, caller, body, act)


@router.get(
    "/v1/experiments/{key}/report",
    summary="Read what an experiment has shown",
    response_model=ExperimentReport,
    responses=documented(401, 403, 404, 503),
    openapi_extra={"security": [{"api_key": []}]},
    tags=["experiments"],
)
async def get_report(request: Request, key: str) -> Response:
    """The latest report of the worker, which reads the event log beside the gateway; `as_of` says
    of when it is."""
    gateway = gateway_of(request)
    authenticate(request, gateway, "admin")
    _known(gateway.control.document(DOCUMENT), key)
    try:
        body = await asyncio.to_thread(read_report, gateway.settings.state / FILE, key)
    except sqlite3.Error as error:
        raise StoreError(f"the reports could not be read: {error}") from None
    if body is None:
        raise ApiProblem(
            404,
            "There is no report of it yet; `tillwise-serve worker` makes them, or once "
            "`tillwise-serve experiment report`.",
        )
    return Response(body, media_type="application/json")


async def _write(gateway: Gateway, caller: Caller, written: WrittenExperiment) -> None:
    for _ in range(_TRIES):
        document = gateway.control.document(DOCUMENT)
        found = _version(document)
        try:
            book = book_of(document).saved(written.experiment, gateway.clock.now())
        except ExperimentRefused as refused:
            raise _refused(f"experiment.{refused.field}", str(refused)) from None
        expected = found if written.version is None else written.version
        try:
            await gateway.control.put_document(
                DOCUMENT,
                book.model_dump_json(exclude_none=True),
                expected,
                caller.actor,
                written.note,
            )
        except DocumentConflict as conflict:
            if written.version is None:
                continue
            raise overtaken(conflict.current) from None
        gateway.experiments.follow()
        return
    raise overtaken(found)


def book_of(document: Document | None) -> ExperimentBook:
    """The experiments of the document; until there is one, what every shop begins with."""
    if document is None:
        return ExperimentBook()
    return ExperimentBook.model_validate_json(document.body)


def _version(document: Document | None) -> int:
    return 0 if document is None else document.version


def _known(document: Document | None, key: str) -> Experiment:
    experiment = book_of(document).get(key)
    if experiment is None:
        raise ApiProblem(404, "There is no such experiment.")
    return experiment


def _answer(gateway: Gateway, key: str) -> Response:
    document = gateway.control.document(DOCUMENT)
    experiment = _known(document, key)
    held = HeldExperiment(
        experiment=experiment,
        running=experiment.runs(gateway.clock.now()),
        version=_version(document),
    )
    if document is not None:
        held = held.model_copy(update=dict(told(document.head)))
    return answered(held)


def _refused(field: str, message: str) -> ApiProblem:
    problem = FieldProblem(field=field, message=message)
    return ApiProblem(422, f"{field}: {message}", errors=[problem])
