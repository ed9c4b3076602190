"""Telling a coupon system that speaks Voucherify's HTTP API what became of its coupons: a session
locks one while it is reserved, a redemption uses it, the session's end or a rollback gives it back.

An answer may be lost on its way. The session is named by our reservation, and a redemption carries
its name in `metadata`: before it is sent again, the outside is asked whether it is there already.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from contract.clock import Clock
from serving.state.coupon_outbox import CouponOutbox, Message
from serving.state.delivery import Delivery

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_MOST_AT_ONCE = 100
_UNSURE = 500  # from this status on, and at 408 and 429, the outside may do it another time
_LATER = (408, 425, 429)


class _Again(Exception):  # noqa: N818 - what is to be done
    """Nobody knows, or the outside can not now."""


@dataclass(frozen=True)
class VoucherifyPlace:
    """Where it is, and with which application's key."""

    url: str
    app_id: str
    app_token: str = field(repr=False)


class VoucherifyDelivery(Delivery[Message]):
    """Delivers the outbox."""

    def __init__(self, outbox: CouponOutbox, place: VoucherifyPlace, clock: Clock) -> None:
        headers = {"X-App-Id": place.app_id, "X-App-Token": place.app_token}
        client = httpx.AsyncClient(
            base_url=place.url.rstrip("/"), headers=headers, timeout=_TIMEOUT_S
        )
        super().__init__(client, _MOST_AT_ONCE)
        self._outbox, self._clock = outbox, clock

    async def _take(self) -> Message | None:
        return await self._outbox.take(self._clock.now())

    async def _tell(self, message: Message) -> bool:
        try:
            remote_id, problem = await self._said(message)
        except (_Again, httpx.HTTPError) as error:
            said = str(error) or type(error).__name__
            log.warning("the coupon system was not told of a %s: %s", message.kind, said)
            await self._outbox.again(message, self._clock.now(), said)
            return False
        if problem is not None:  # the ledger stands; a person has to look why the outside differs
            log.error("the coupon system refuses a %s: %s", message.kind, problem)
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
        return remote_id, problem

    async def _redeemed_already(self, message: Message) -> str | None:
        wanted = message.reservation_id
        found = await self._client.get(
            "/v1/redemptions", params={"filters[metadata.reservation_id][conditions][$is]": wanted}
        )
        if found.status_code != 200:
            raise _Again(f"status {found.status_code}")
        for one in _object(found).get("redemptions") or ():
            named = (one.get("metadata") or {}).get("reservation_id")
            if named == wanted and one.get("result") == "SUCCESS":
                return str(one["id"])
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
        answer = await self._client.request(method, path, json=body)
        status = answer.status_code
        if status >= _UNSURE or status in _LATER:
            raise _Again(f"status {status}")
        if gone_is_done and status == 404:
            return None, None
        told = _object(answer)
        if repeated_is_done and told.get("key") == "already_rolled_back":
            return None, None
        if status >= 300:
            return None, f"status {status}: {str(told.get('key') or told.get('message'))[:200]}"
        if told.get("valid") is False:
            return None, "not valid there"
        made = (told.get("redemptions") or [told])[0]
        return (str(made["id"]) if "id" in made else None), None


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


def _object(answer: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object; what is none is not the system that we know."""
    if answer.status_code == 204 or not answer.content:
        return {}
    try:
        told = answer.json()
    except ValueError:
        raise _Again("an answer that is not JSON") from None
    if not isinstance(told, dict):
        raise _Again("an answer that is not an object")
    return told
