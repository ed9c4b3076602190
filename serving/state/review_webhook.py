"""Telling the shop's own system of review items, by a webhook as `standardwebhooks.com` has it: the
body is signed together with its id and its time, so that the receiver can tell who sent it, drop
what comes twice, and refuse what somebody sends again later.

Delivery is at least once, in the order of each item, and waits for nobody: what can not be told is
tried again, less and less often, for a day.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import httpx

from contract.clock import Clock
from contract.errors import UserError
from serving.state.control_records import ReviewMessage
from serving.state.control_store import ControlStore
from serving.state.delivery import Delivery, refuse_address
from serving.state.review_items import LONGEST_WAIT_S

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_MOST_AT_ONCE = 20
_PREFIX: Final = "whsec_"
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64


@dataclass(frozen=True)
class WebhookPlace:
    """Where to, and what is signed with."""

    url: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, url: str, secret: str) -> "WebhookPlace":
        """From the settings; `secret` is base64, with or without `whsec_` before it. UserError:
        the address is not https, unless it is of this machine, or the secret is too short."""
        refuse_address("TILLWISE_REVIEW_WEBHOOK_URL", url)
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not _LEAST_SECRET_BYTES <= len(key) <= _MOST_SECRET_BYTES:
            raise UserError(
                "TILLWISE_REVIEW_WEBHOOK_SECRET: send 24 to 64 random bytes in base64, such as "
                "`openssl rand -base64 32` prints"
            )
        return cls(url, key)


def signature(secret: bytes, message_id: str, seconds: int, body: bytes) -> str:
    """The value of `webhook-signature`: version 1, HMAC-SHA-256 over id, time and body."""
    signed = f"{message_id}.{seconds}.".encode() + body
    made = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode()


class ReviewWebhook(Delivery[ReviewMessage]):
    """Delivers what is to be told of review items."""

    def __init__(self, store: ControlStore, place: WebhookPlace, clock: Clock) -> None:
        # No redirects: the body goes where the operator said, or nowhere.
        client = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False)
        super().__init__(client, _MOST_AT_ONCE)
        self._store, self._place, self._clock = store, place, clock

    async def _take(self) -> ReviewMessage | None:
        if not self._store.review_messages_due():  # a look, where taking would be a write
            return None
        return await self._store.take_review_message()

    async def _tell(self, message: ReviewMessage) -> bool:
        problem, wait_s = await self._sent(message, self._clock.now())
        over = await self._store.settle_review_message(message, problem, wait_s)
        if problem is None:
            return True
        said = "was given up" if over else "is tried again"
        level = logging.ERROR if over else logging.WARNING
        log.log(level, "the webhook for review items %s: %s", said, problem)
        return False

    async def _sent(self, message: ReviewMessage, now: datetime) -> tuple[str | None, float]:
        """What is wrong, and how long to wait at least."""
        body, seconds = message.body.encode(), int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": signature(self._place.secret, message.message_id, seconds, body),
        }
        try:
            # The answer's body is never read: it may be endless, and says nothing that is needed.
            async with (
                asyncio.timeout(_TIMEOUT_S),  # the client's is for each piece that arrives
                self._client.stream(
                    "POST", self._place.url, content=body, headers=headers
                ) as answer,
            ):
                status, later = answer.status_code, answer.headers.get("retry-after", "")
        except (httpx.HTTPError, TimeoutError) as error:
            return str(error) or type(error).__name__, 0.0
        if 200 <= status < 300:
            return None, 0.0
        wait_s = min(float(later), LONGEST_WAIT_S) if later.isdecimal() else 0.0
        return f"status {status}", wait_s
