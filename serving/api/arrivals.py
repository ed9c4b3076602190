"""When a request arrived: the moment at which its first bytes were read, which is not the moment at
which its turn comes. Under load the event loop reads many requests at once and then answers them
one by one; without this stamp the wait in between would belong to nobody."""

from time import perf_counter

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_ARRIVED = "tillwise.arrived"


class StampingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also notes when each request was first seen."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][_ARRIVED] = perf_counter()


def arrival_of(scope: Scope) -> float:
    """The perf_counter at which the request of `scope` was first seen; now, where its server does
    not say."""
    arrived = scope.get("state", {}).get(_ARRIVED)
    return arrived if isinstance(arrived, float) else perf_counter()
