"""Loading a release beside running traffic. It is a second of work for a core, half of it in Python
and so under the one lock that every checkout needs too; everything here is for those checkouts."""

import _thread
import asyncio
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from serving.inference.release import compute_single_threaded

T = TypeVar("T")

# A thread that wants the interpreter asks the one that has it to let go after this time. A decision
# changes threads a dozen times, and would wait out the usual 5 ms at each of them.
_SWITCH_SECONDS = 0.0005
# Below all that answers, yet not so far below that it never gets on beside a busy neighbour: while
# it holds the interpreter, a checkout waits for it to be given a core.
_NICENESS = 10


async def load_beside(load: Callable[[], T]) -> T:
    """What `load` returns or raises, on a thread of its own at a low priority."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    # Emptied where it is taken: this thread has a low priority, and what it still named would stay
    # in memory after everybody else has let go of it.
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
        _step_back()
        failed = None
        try:
            loaded.append(load())
        except Exception as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended, and with it all interest
            loop.call_soon_threadsafe(settle, failed)

    with _others_first():
        # Not of a pool: a thread can not take back its priority.
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


def _step_back() -> None:
    compute_single_threaded()
    if sys.platform == "linux":  # elsewhere priority belongs to the process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


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
