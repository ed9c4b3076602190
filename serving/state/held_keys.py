"""API keys that a control store found in force a moment ago. Every request asks for one, and a read
hands the interpreter to other threads, which costs the event loop more than the read itself."""

import time
from collections.abc import Callable

from serving.state.control_records import ApiKey

# A key that was found in force counts for this long; the promise to shops is a second.
KEY_HELD_S = 0.25
_MOST = 1_024


class HeldKeys:
    """Keys by what they were asked for by, each for `KEY_HELD_S`. Only what is there is held: a
    new key counts at once, and guesses of strangers take no room."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._held: dict[str, tuple[ApiKey, float]] = {}

    def of(self, asked: str, read: Callable[[str], ApiKey | None]) -> ApiKey | None:
        """The key held for `asked`, else what `read` finds."""
        now = self._monotonic()
        held = self._held.get(asked)
        if held is not None and now - held[1] < KEY_HELD_S:
            return held[0]
        key = read(asked)
        if key is None:
            self._held.pop(asked, None)
        else:
            if len(self._held) >= _MOST:
                self._held.clear()
            self._held[asked] = key, now
        return key

    def clear(self) -> None:
        """A key was revoked here."""
        self._held.clear()
