"""Look-ups at the control store by requests that the event loop has read together, as one: each
statement costs more to begin than to look for one more, and hands the interpreter to other threads
and has to win it back."""

import asyncio

from serving.state.control_records import Identity
from serving.state.control_store import ControlStore
from serving.state.secrets import Pseudonyms

_Named = tuple[Pseudonyms, Pseudonyms | None]


class GatheredLookUps:
    """Used from one event loop."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._waiting: list[tuple[_Named, asyncio.Future[Identity]]] = []

    @property
    def under_way(self) -> bool:
        """Whether somebody waits for the others, so that one more costs next to nothing."""
        return bool(self._waiting)

    async def look_up(self, named: _Named) -> Identity:
        """As the store's, once everybody who is to run before the loop looks for new requests has
        asked. Raises StoreError."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._ask)
        told: asyncio.Future[Identity] = loop.create_future()
        self._waiting.append((named, told))
        return await told

    def _ask(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            found = self._control.look_up_all([named for named, _ in waiting])
        except Exception as error:  # of each of them: nobody else is there to be told
            for _, told in waiting:
                if not told.done():
                    told.set_exception(error)
            return
        for (_, told), identity in zip(waiting, found, strict=True):
            if not told.done():  # else its caller has gone away
                told.set_result(identity)
