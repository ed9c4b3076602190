"""Loops over numbers as machine code, where a line of numpy per step would cost more than the step.

Numba compiles at import for the types that are declared, so that no checkout ever waits for a
compiler, and keeps the result beside the source (or in NUMBA_CACHE_DIR). Its own cache looks at one
file alone; ours also at the files of the compiled functions that are called. Constants of another
file it does not see: they are handed over as arguments. An image carries what was compiled when it
was built, and reads it where it may not write.
"""

import inspect
import os
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.dispatcher import Dispatcher
from numba.np.numpy_support import from_dtype

R = TypeVar("R")

INT, FLOAT, KEY = types.int64, types.float64, types.uint64


def array(dtype: Any, dimensions: int = 1) -> Any:
    """A contiguous array that is only read; one that may be written will do as well."""
    return types.Array(dtype, dimensions, "C", readonly=True)


def written(dtype: Any, dimensions: int = 1) -> Any:
    """A contiguous array that is written to."""
    return types.Array(dtype, dimensions, "C")


def several(one: Any, count: int) -> Any:
    """A tuple of `count` of one type."""
    return types.UniTuple(one, count)  # type: ignore[no-untyped-call]


def column_of(dtype: str) -> Any:
    """A column of packed rows where it lies, other columns between its elements; only read."""
    return types.Array(from_dtype(np.dtype(dtype)), 1, "A", readonly=True, aligned=False)


def records(dtype: Any) -> Any:
    """Rows of a structured `dtype`, only read. Taken and given as they are: a column copied out of
    them, or an array given back for each column, costs more than most loops over it."""
    return types.Array(from_dtype(dtype), 1, "C", readonly=True)


INTS, FLOATS = array(types.int64), array(types.float32)
INTS32, KEYS, CODES, MASK = (
    array(one) for one in (types.int32, types.uint64, types.uint8, types.boolean)
)
INTS_2D, INTS32_2D, FLOATS_2D, KEYS_2D = (
    array(one, 2) for one in (types.int64, types.int32, types.float32, types.uint64)
)
BYTES_2D, MASK_2D = (array(one, 2) for one in (types.uint8, types.boolean))


def _files_of(function: Any) -> list[str]:
    """The files of `function` and of every compiled function that it calls, directly or not."""
    seen, left = {function}, [function]
    while left:
        one = left.pop()
        named = (one.__globals__.get(name) for name in one.__code__.co_names)
        called = {held.py_func for held in named if isinstance(held, Dispatcher)} - seen
        seen |= called
        left += called
    return sorted({inspect.getfile(one) for one in seen})


@cache
def _digest(path: str) -> bytes:
    return sha256(Path(path).read_bytes()).digest()


class _WithCallees:
    """What was compiled is stale once any file that it came from has changed."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)  # type: ignore[call-arg]
        self._files = _files_of(py_func)

    def get_source_stamp(self) -> bytes:
        """A digest of all of these files; of a single one the digest that Numba itself takes."""
        digests = [_digest(path) for path in self._files]
        return digests[0] if len(digests) == 1 else sha256(b"".join(digests)).digest()


class Provided(_WithCallees, UserProvidedCacheLocator):
    """The folder that NUMBA_CACHE_DIR names."""


class Shipped(_WithCallees, InTreeCacheLocator):
    """The folder beside the source, also where it may only be read but holds something."""

    def ensure_cache_path(self) -> None:
        """OSError where there is nothing to read and nowhere to write."""
        path = str(self.get_cache_path())  # type: ignore[no-untyped-call]
        try:
            os.makedirs(path, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError:
            if not (os.path.isdir(path) and any(one.endswith(".nbi") for one in os.listdir(path))):
                raise


class UserWide(_WithCallees, UserWideCacheLocator):
    """A folder of the user, where the one beside the source may not be written."""


_config: Any = numba.config
if not _config.CACHE_LOCATOR_CLASSES:
    _config.CACHE_LOCATOR_CLASSES = ",".join(
        f"{__name__}.{one.__name__}" for one in (Provided, Shipped, UserWide)
    )


def compiled(
    *arguments: Any, others: tuple[tuple[Any, ...], ...] = (), any_order: bool = False
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Compile for `arguments`, and for each of `others`; a call with other types is a TypeError.

    Without the interpreter's lock, so that decisions on other threads go on meanwhile. `any_order`:
    sums of floats may be taken in any order, so several at once.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        signatures = [arguments, *others]
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        if any_order:
            options["fastmath"] = {"reassoc", "contract"}
        try:
            return cast(Callable[..., R], numba.njit(signatures, cache=True, **options)(function))
        except Exception:  # nowhere to write, a full disk, half a file: compiled anew
            return cast(Callable[..., R], numba.njit(signatures, **options)(function))

    return decorate
