"""What is compiled is found again: beside the source, and where that may only be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.compiled import INTS, compiled

_PROGRAM = """
import sys, tempfile
if sys.argv[1] == "read-only":
    def refuse(*arguments, **more):
        raise PermissionError("read-only")
    tempfile.TemporaryFile = refuse
sys.path.insert(0, sys.argv[2])
import kernel
print(kernel.total(kernel.np.arange(4)), sum(kernel.total.stats.cache_hits.values()))
"""
_KERNEL = """
import numpy as np
from contract.compiled import INTS, compiled

@compiled(INTS)
def total(numbers):
    found = 0
    for number in numbers:
        found += number
    return found
"""
_CALLER = """
from called import INTS, compiled, np, total as called

@compiled(INTS)
def total(numbers):
    return called(numbers) * 2
"""


def run(mode: str, folder: Path, home: Path) -> list[str]:
    """The sum and the number of times that the cache was hit."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "HOME": str(home)}
    environment.pop("NUMBA_CACHE_DIR", None)
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM, mode, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    return told.stdout.split()


def test_a_second_start_compiles_nothing_also_where_it_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(_KERNEL)
    assert run("usual", tmp_path, tmp_path) == ["6", "0"]
    assert list((tmp_path / "__pycache__").glob("*.nbi"))
    for mode in ("usual", "read-only"):
        assert run(mode, tmp_path, tmp_path) == ["6", "1"]


def test_a_damaged_cache_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(_KERNEL)
    run("usual", tmp_path, tmp_path)
    for kind in ("*.nbc", "*.nbi"):
        (held,) = (tmp_path / "__pycache__").glob(f"kernel.total{kind}")
        held.write_bytes(held.read_bytes()[:20])  # as after a power cut
        assert run("usual", tmp_path, tmp_path)[0] == "6"


def test_without_anywhere_to_write_it_still_runs(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(_KERNEL)
    assert run("read-only", tmp_path, tmp_path) == ["6", "0"]


def test_what_calls_another_file_is_compiled_anew_once_that_changes(tmp_path: Path) -> None:
    (tmp_path / "called.py").write_text(_KERNEL)
    (tmp_path / "kernel.py").write_text(_CALLER)
    for mode, expected in (("usual", ["12", "0"]), ("usual", ["12", "1"])):
        assert run(mode, tmp_path, tmp_path) == expected
    (tmp_path / "called.py").write_text(_KERNEL.replace("found = 0", "found = 1"))
    assert run("usual", tmp_path, tmp_path) == ["14", "0"]


def test_other_types_are_an_error_and_never_wait_for_a_compiler() -> None:
    @compiled(INTS)
    def first(numbers: list[int]) -> int:
        return numbers[0]

    with pytest.raises(TypeError, match="No matching definition"):
        first([1.5])
