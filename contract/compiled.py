"""Loops over numbers as machine code, where a line of numpy per step would cost more than the step.

Numba compiles at import for the types that are declared, so that no checkout ever waits for a
compiler, and keeps the result beside the source (or in NUMBA_CACHE_DIR). Its cache looks at one
file alone: a compiled function may use nothing of another file, neither functions nor constants.
An image carries what was compiled when it was built, and reads it where it may not write.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.core.caching import InTreeCacheLocator
from numba.np.numpy_support import from_dtype

R = TypeVar("R")

INT, FLOAT, KEY = types.int64, types.float64, types.uint64


def array(dtype: Any, dimensions: int = 1) -> Any:
    """A contiguous array that is only read; one that may be written will do as well."""
    return types.Array(dtype, dimensions, "C", readonly=True)


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
INTS_2D, INTS32_2D, FLOATS_2D, BYTES_2D, MASK_2D = (
    array(one, 2) for one in (types.int64, types.int32, types.float32, types.uint8, types.boolean)
)


class Shipped(InTreeCacheLocator):
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


_config: Any = numba.config
if not _config.CACHE_LOCATOR_CLASSES:
    _config.CACHE_LOCATOR_CLASSES = ",".join(
        ("UserProvidedCacheLocator", f"{__name__}.{Shipped.__name__}", "UserWideCacheLocator")
    )


def compiled(
    *arguments: Any, others: tuple[tuple[Any, ...], ...] = ()
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Compile for `arguments`, and for each of `others`; a call with other types is a TypeError.

    Without the interpreter's lock, so that decisions on other threads go on meanwhile.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        signatures = [arguments, *others]
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return cast(Callable[..., R], numba.njit(signatures, cache=True, **options)(function))
        except Exception:  # nowhere to write, a full disk, half a file: compiled anew
            return cast(Callable[..., R], numba.njit(signatures, **options)(function))

    return decorate
