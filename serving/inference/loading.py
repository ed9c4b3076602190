"""Loading a release beside running traffic. It is a second of work for a core, half of it in Python
and so under the one lock that every checkout needs too; everything here is for those checkouts."""

import _thread
import asyncio
import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from contract.pieces import pausing
from serving.inference.release import compute_single_threaded

T = TypeVar("T")

# A thread that wants the interpreter asks the one that has it to let go after this time. A decision
# changes threads a dozen times, and would wait out the usual 5 ms at each of them.
_SWITCH_SECONDS = 0.0005
# At most so long before one piece, and for a whole release.
_HELD_UP_S = 0.05
_HELD_UP_IN_ALL_S = 3.0
# What still has to be written when the last of them is decided, and who comes right behind.
_ANSWERED_S = 0.002


class GiveWay:
    """Holds a thread up, between two pieces of its work, while anybody is `busy`: what both do at
    once takes the one that somebody waits for three times as long. Others say `quiet` when they
    are done; under a load that leaves no gap the thread gets on nevertheless."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._quiet = threading.Event()
        self._left_s = _HELD_UP_IN_ALL_S

    def __call__(self) -> None:
        if self._left_s <= 0 or not self._busy():
            return
        began = time.monotonic()
        until = began + min(_HELD_UP_S, self._left_s)
        while (left := until - time.monotonic()) > 0:
            self._quiet.clear()
            if not self._busy():
                break
            self._quiet.wait(left)
            time.sleep(_ANSWERED_S)
        self._left_s -= time.monotonic() - began

    def quiet(self) -> None:
        """Nobody is busy now."""
        self._quiet.set()


async def load_beside(load: Callable[[], T], give_way: GiveWay) -> T:
    """What `load` returns or raises, on a thread of its own that gives way. Its priority is the
    usual one: at a lower one it is set aside while it holds the interpreter, and all wait."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    # Emptied where it is taken: what this thread still named would stay in memory after everybody
    # else has let go of it.
    loaded: list[T] = []

    def settle(error: Exception | None) -> None:
        found = loaded.pop() if loaded else None
        if outcome.done():  # whoever waited was cancelled
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(found)  # type: ignore[arg-type] # there is one without an error

    def run() -> None:
        compute_single_threaded()
        failed = None
        try:
            with pausing(give_way):
                loaded.append(load())
        except Exception as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended, and with it all interest
            loop.call_soon_threadsafe(settle, failed)

    with _others_first():
        # Not of a pool: its threads keep what they were told of OpenMP.
        start_aside(threading.Thread(target=run, name="load-release", daemon=True))
        found = await outcome
    # Its hundreds of thousands of small objects live as long as it is live: a collection
    # that walks over them stops every decision for 30 ms and finds nothing.
    gc.freeze()
    return found


def start_aside(thread: threading.Thread) -> None:
    """Start `thread` without waiting until it runs, as its `start` does: on a busy machine that can
    take a tenth of a second, and every checkout would wait with the event loop."""
    _thread.start_new_thread(thread.start, ())


@contextmanager
def _others_first() -> Iterator[None]:
    """Quick changes between threads, and no collection over the objects that are being made."""
    usual, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(usual, _SWITCH_SECONDS))
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
        if collecting:
            gc.enable()


def give_back_memory() -> None:
    """Return to the system what an ended release has left free in the allocator's pools, which is
    as much as a release again after a few swaps. Takes some milliseconds; call it on a thread."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
