"""Loading beside running traffic. Everything here is for the checkouts that go on meanwhile."""

import asyncio
import gc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def load_beside(load: Callable[[], T]) -> T:
    """What `load` returns, on a thread."""
    loaded = await asyncio.to_thread(load)
    # Its hundreds of thousands of small objects live as long as it is live: a collection
    # that walks over them stops every decision for 30 ms and finds nothing.
    gc.freeze()
    return loaded
