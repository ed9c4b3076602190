"""Limits for whoever calls with what stands in a page, a collect key or a page's token: anybody can
read those and use them as often as they like. Servers hold their own keys, and what they may ask at
once is the admission's matter."""

from ipaddress import IPv6Network, ip_address

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from contract.consent import may_store_behaviour
from contract.events import ClientEvent
from serving.api.auth import Caller
from serving.api.gateway import Gateway
from serving.api.problems import ApiProblem
from serving.decision.messages import DecideRequest
from serving.ingest.traffic import Foreign

_RETRY_AFTER_S = 10
_IPV6_PREFIX = 64  # what a network gives to one household at the least


class PageLimits:
    """Counts requests and new visitors by address and events by visitor, in this process and for a
    minute or two. None of them is written down anywhere."""

    def __init__(
        self, requests_per_minute: int, events_per_minute: int, new_visitors_per_minute: int
    ) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(requests_per_minute)
        self._events = RateLimitItemPerMinute(events_per_minute)
        self._new = RateLimitItemPerMinute(new_visitors_per_minute)

    async def check(self, request: Request, caller: Caller) -> None:
        """Raises a 429 problem when the caller's address asks too often."""
        if not is_page(caller):
            return
        if not await self._limiter.hit(self._requests, "requests", _household(request)):
            raise ApiProblem(
                429,
                "Too many requests from this address; try again.",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )

    async def takes(self, visitor_id: str) -> bool:
        """Whether one more event of this visitor is what a person could do."""
        return await self._limiter.hit(self._events, "events", visitor_id)

    async def takes_new(self, request: Request) -> bool:
        """Whether one more visitor whom nobody knows may come from the request's address."""
        return await self._limiter.hit(self._new, "new", _household(request))


def is_page(caller: Caller) -> bool:
    """Whether the caller's credential is one that a page may show."""
    return caller.role == "collect" or caller.from_page


def makes_subject(gateway: Gateway, sent: ClientEvent | DecideRequest, *, gpc: bool) -> bool:
    """Whether to take what was sent means to remember somebody from now on: a stranger, or another
    visitor of somebody who is logged in. Raises StoreError."""
    found = gateway.subjects.recognise(sent.visitor_id, sent.user_id, sent.consent, gpc=gpc)
    stranger = found.subject_id is None or sent.user_id is not None
    return stranger and found.unsettled and may_store_behaviour(found.purposes)


def foreign_to_shoppers(request: Request, gateway: Gateway, caller: Caller) -> Foreign | None:
    """What a page's caller is where that is no shopper. A server speaks for whom it serves."""
    if not is_page(caller):
        return None
    return gateway.traffic.foreign(request.headers.get("user-agent", ""), address_of(request))


def _household(request: Request) -> str:
    """The address as limits count it. Whoever has one of IPv6 has 2**64, so those count as one."""
    address = address_of(request)
    try:
        at = ip_address(address or "?")
    except ValueError:  # a socket's path, or a name
        return address or "?"
    if at.version == 4:
        return str(at)
    if at.ipv4_mapped is not None:
        return str(at.ipv4_mapped)
    return str(IPv6Network((int(at), _IPV6_PREFIX), strict=False))


def address_of(request: Request) -> str | None:
    """The address that the request came from; behind a proxy that is trusted, the one it names."""
    return None if request.client is None else request.client.host
