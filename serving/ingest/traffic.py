"""Whose traffic it is. What crawlers do in a page, and what the shop's own people do, says nothing
about shoppers: it is kept out of the event log, so out of features, figures and training."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

from crawlerdetect import CrawlerDetect

Foreign = Literal["bot", "internal"]
Network = IPv4Network | IPv6Network
_LONGEST = 1_024  # characters of a user agent that are looked at


class Traffic:
    """Tells browsers of shoppers from others. `internal`: the networks of the shop itself."""

    def __init__(self, internal: Sequence[Network] = ()) -> None:
        self._internal = tuple(internal)
        self._detect = CrawlerDetect()
        self._is_bot = lru_cache(4_096)(self._looks_like_a_bot)  # a look takes up to a millisecond
        self._is_bot("Mozilla/5.0")  # compiles its patterns now, for tens of milliseconds

    def foreign(self, user_agent: str, address: str | None) -> Foreign | None:
        """What a page's caller is, None for a shopper. A browser always names itself."""
        if self._is_bot(user_agent[:_LONGEST]):
            return "bot"
        return "internal" if self._is_internal(address) else None

    def _looks_like_a_bot(self, user_agent: str) -> bool:
        return not user_agent or bool(self._detect.isCrawler(user_agent))

    def _is_internal(self, address: str | None) -> bool:
        if not self._internal or address is None:
            return False
        try:
            at = ip_address(address)
        except ValueError:  # a socket's path, or a name
            return False
        return any(at in network for network in self._internal)
