"""Commands that go on until somebody ends them."""

import signal
from threading import Event as Flag


def told_to_end() -> Flag:
    """Set by SIGTERM or SIGINT from now on."""
    ended = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended
