"""Review items in tables, and what is told of them outside."""

from collections.abc import Sequence
from typing import Literal

from contract.reviews import Finding, Review, Source, State
from serving.state import review_items
from serving.state.audit import GATEWAY, Actor
from serving.state.control_records import ReviewMessage
from serving.state.sql_control_tables import ControlTables


class SqlReviews(ControlTables):
    """Review items of a `ControlStore`."""

    def reviews(self, state: State | None = None, limit: int = 100) -> list[Review]:
        return self._read(lambda connection: review_items.listed(connection, state, limit))

    def review(self, review_id: str) -> Review | None:
        return self._read(lambda connection: review_items.read(connection, review_id))

    async def note_findings(
        self,
        source: Source,
        findings: Sequence[Finding],
        *,
        complete: bool = True,
        by: Actor = GATEWAY,
    ) -> list[Review]:
        return await self._write(
            lambda writing: review_items.note_findings(writing, source, findings, complete, by)
        )

    async def move_review(
        self,
        review_id: str,
        to: Literal["acknowledged", "closed"],
        by: Actor,
        *,
        who: str = "",
        note: str = "",
    ) -> Review | None:
        return await self._write(
            lambda writing: review_items.move(writing, review_id, to, by, who, note)
        )

    def review_messages_due(self) -> bool:
        now = self._clock.now()
        return self._read(lambda connection: review_items.due(connection, now))

    async def take_review_message(self) -> ReviewMessage | None:
        return await self._write(
            lambda writing: review_items.take(writing.connection, writing.clock.now())
        )

    async def settle_review_message(
        self, message: ReviewMessage, problem: str | None = None, wait_s: float = 0.0
    ) -> bool:
        return await self._write(
            lambda writing: review_items.settle(
                writing.connection, message, writing.clock.now(), problem, wait_s
            )
        )
