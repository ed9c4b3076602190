"""Telling a coupon system that speaks Voucherify's HTTP API what became of its coupons: a session
locks one while it is reserved, a redemption uses it, the session's end or a rollback gives it back.

An answer may be lost on its way. The session is named by our reservation, and a redemption carries
its name in `metadata`: before it is sent again, the outside is asked whether it is there already.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from contract.clock import Clock
from contract.errors import UserError
from serving.state.coupon_outbox import LEASE, CouponOutbox, Message
from serving.state.delivery import Delivery, refuse_address

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
# For one message, its questions together: others may take it when its lease is over.
_WHOLE_TIMEOUT_S = LEASE.total_seconds() * 2 / 3
_MOST_BYTES = 1 << 20  # of an answer
_MOST_AT_ONCE = 100
_UNSURE = 500  # from this status on the outside may do it another time
# So it may where it is asked too much, or where keys or the address are not right (yet): that is
# nothing against the coupon.
_LATER = (401, 403, 405, 407, 408, 421, 425, 429)


class Counts(Protocol):
    """Who counts what became of messages."""

    def waiting(self, count: int) -> None:
        """So many are still to be told."""
        ...

    def sent(self, outcome: Literal["told", "refused", "again"]) -> None:
        """One was sent."""
        ...


class _Again(Exception):  # noqa: N818 - what is to be done
    """Nobody knows, or the outside can not now."""


@dataclass(frozen=True)
class VoucherifyPlace:
    """Where it is, and with which application's key."""

    url: str
    app_id: str
    app_token: str = field(repr=False)

    @classmethod
    def of(cls, url: str, app_id: str, app_token: str) -> "VoucherifyPlace":
        """From the settings. UserError: the address is not https, unless it is of this machine, or
        there is no key."""
        refuse_address("TILLWISE_VOUCHERIFY_URL", url)
        for name, said in (("ID", app_id), ("TOKEN", app_token)):
            if not said or not said.isascii() or not said.isprintable():
                raise UserError(f"TILLWISE_VOUCHERIFY_APP_{name}: say the application's")
        return cls(url, app_id, app_token)


class VoucherifyDelivery(Delivery[Message]):
    """Delivers the outbox."""

    def __init__(
        self,
        outbox: CouponOutbox,
        place: VoucherifyPlace,
        clock: Clock,
        metrics: Counts,
    ) -> None:
        headers = {"X-App-Id": place.app_id, "X-App-Token": place.app_token}
        client = httpx.AsyncClient(
            base_url=place.url.rstrip("/"), headers=headers, timeout=_TIMEOUT_S
        )
        super().__init__(client, _MOST_AT_ONCE)
        self._outbox, self._clock, self._metrics = outbox, clock, metrics

    async def deliver(self) -> int:
        told = await super().deliver()
        self._metrics.waiting(await self._outbox.waiting())
        return told

    async def _take(self) -> Message | None:
        return await self._outbox.take(self._clock.now())

    async def _tell(self, message: Message) -> bool:
        try:
            # The client's own time is for each piece that arrives.
            async with asyncio.timeout(_WHOLE_TIMEOUT_S):
                remote_id, problem = await self._said(message)
        except (_Again, httpx.HTTPError, TimeoutError) as error:
            said = str(error) or type(error).__name__
            log.warning("the coupon system was not told of a %s: %s", message.kind, said)
            self._metrics.sent("again")
            await self._outbox.again(message, self._clock.now(), said)
            return False
        if problem is not None:  # the ledger stands; a person has to look why the outside differs
            log.error("the coupon system refuses a %s: %s", message.kind, problem)
        self._metrics.sent("told" if problem is None else "refused")
        now = self._clock.now()
        await self._outbox.done(message, now, remote_id=remote_id, problem=problem)
        return True

    async def _said(self, message: Message) -> tuple[str | None, str | None]:
        """The outside's name of what was done, or why it will not do it."""
        code, key = str(message.body["code"]), message.reservation_id
        if message.kind == "lock":
            return await self._send("POST", "/v1/validations", _lock(message))
        if message.kind == "unlock":
            path = f"/v1/vouchers/{quote(code, safe='')}/sessions/{key}"
            return await self._send("DELETE", path, None, gone_is_done=True)
        if message.kind == "redeem":
            return await self._redeem(message)
        if message.redeemed_as is None:
            return None, "it was never redeemed there"
        path = f"/v1/redemptions/{quote(message.redeemed_as, safe='')}/rollback"
        return await self._send("POST", path, {"reason": "order undone"}, repeated_is_done=True)

    async def _redeem(self, message: Message) -> tuple[str | None, str | None]:
        if message.attempts:
            known = await self._redeemed_already(message)
            if known is not None:
                return known, None
        remote_id, problem = await self._send("POST", "/v1/redemptions", _redemption(message))
        if problem is not None:  # perhaps because an answer was lost that we took for none
            known = await self._redeemed_already(message)
            if known is not None:
                return known, None
        elif remote_id is None:  # without its name nobody could roll it back
            raise _Again("an answer that names no redemption")
        return remote_id, problem

    async def _redeemed_already(self, message: Message) -> str | None:
        wanted = message.reservation_id
        query = {"filters[metadata.reservation_id][conditions][$is]": wanted}
        status, told = await self._ask("GET", "/v1/redemptions", query=query)
        if status != 200:
            raise _Again(f"status {status}")
        for one in told.redemptions or ():
            named = (one.metadata or {}).get("reservation_id")
            if named == wanted and one.result == "SUCCESS":
                return one.id
        return None

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        gone_is_done: bool = False,
        repeated_is_done: bool = False,
    ) -> tuple[str | None, str | None]:
        status, told = await self._ask(method, path, body=body)
        if gone_is_done and status == 404:
            return None, None
        if repeated_is_done and told.key == "already_rolled_back":
            return None, None
        if status >= 300:
            why = told.key or told.message
            if why is None:  # a refusal of that system has its reasons
                raise _Again(f"status {status}")
            return None, f"status {status}: {why[:200]}"
        if told.valid is False:
            return None, "not valid there"
        if told.redemptions == []:
            return None, "passed over there"
        return (told.redemptions[0].id if told.redemptions else told.id), None

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, "_Told"]:
        """The status, and what was told with it. Raises _Again, httpx.HTTPError."""
        content = b""
        async with self._client.stream(method, path, json=body, params=query) as answer:
            status = answer.status_code
            if status >= _UNSURE or status in _LATER or 300 <= status < 400:
                raise _Again(f"status {status}")
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > _MOST_BYTES:
                    raise _Again("an answer without an end")
        if not content:
            return status, _Told()
        try:
            return status, _Told.model_validate_json(content)
        except ValidationError:
            raise _Again(f"an answer that is not understood, status {status}") from None


class _Redeemed(BaseModel):
    id: str
    result: str | None = None
    metadata: dict[str, Any] | None = None


class _Told(BaseModel):
    """What is read of an answer; another form is not of the system that we know."""

    id: str | None = None
    key: str | None = None
    message: str | None = None
    valid: bool | None = None
    redemptions: list[_Redeemed] | None = None


def _lock(message: Message) -> dict[str, Any]:
    session = {
        "type": "LOCK",
        "key": message.reservation_id,
        "ttl": message.body["seconds"],
        "ttl_unit": "SECONDS",
    }
    return {"redeemables": [_redeemable(message)], "session": session}


def _redemption(message: Message) -> dict[str, Any]:
    body = message.body
    return {
        "redeemables": [_redeemable(message)],
        "order": {"source_id": body["transaction_id"], "amount": body["value"]},
        "session": {"type": "LOCK", "key": message.reservation_id},
        "metadata": {
            "reservation_id": message.reservation_id,
            "discount_amount": body["amount"],
            "currency": body["currency"],
        },
    }


def _redeemable(message: Message) -> dict[str, Any]:
    return {"object": "voucher", "id": message.body["code"]}
