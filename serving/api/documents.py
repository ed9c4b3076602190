"""What the documents that a merchant writes as a whole have in common: who wrote which version, and
that nobody overwrites what somebody else has written meanwhile."""

from datetime import datetime
from typing import Annotated

from fastapi.responses import Response
from pydantic import BaseModel, Field, Strict

from contract.events import Note
from serving.api.auth import Caller
from serving.api.gateway import Gateway
from serving.api.problems import ApiProblem
from serving.state.documents import DocumentConflict, Version


class Written(BaseModel):
    """Beside a draft: the version that it replaces, and what for."""

    version: Annotated[int, Strict(), Field(ge=0, le=10**9)] | None = None
    note: Note = ""


class Held(BaseModel):
    """Beside a document: its version, and who wrote it when."""

    version: int
    written_at: datetime | None = None
    written_by: str | None = None
    note: str = ""


class VersionTold(BaseModel):
    """Who wrote a version, when, and what for."""

    version: int
    written_at: datetime
    written_by: str
    note: str


def told(head: Version) -> VersionTold:
    """A version as it is answered."""
    return VersionTold(
        version=head.version,
        written_at=head.written_at,
        written_by=head.by.key_id,
        note=head.note,
    )


async def put(gateway: Gateway, name: str, body: str, written: Written, caller: Caller) -> None:
    """Write the next version. Raises a 409 problem, and StoreError."""
    try:
        await gateway.control.put_document(name, body, written.version, caller.actor, written.note)
    except DocumentConflict as conflict:
        raise overtaken(conflict.current) from None


def overtaken(current: int) -> ApiProblem:
    """Somebody else has written meanwhile."""
    return ApiProblem(409, f"version: {current} is the current one; read it and write again.")


def answered(body: BaseModel) -> Response:
    """What is not there is left out."""
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")
