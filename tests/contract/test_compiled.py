"""Compiled loops where their cache can not be used."""

import subprocess
import sys
from pathlib import Path


def imports(cache: Path) -> subprocess.CompletedProcess[str]:
    """Import a compiled function in a process of its own, with its cache in `cache`."""
    code = "from contract.compiled import INT, compiled\n@compiled(INT)\ndef twice(n): return 2 * n"
    module = cache.parent / "twice.py"
    module.write_text(f"{code}\n")
    run = [sys.executable, "-c", "import twice; print(twice.twice(21))"]
    environment = {"PYTHONPATH": f"{cache.parent}:{Path.cwd()}", "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=False)


def test_a_damaged_cache_is_passed_over(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert imports(cache).stdout == "42\n"
    for kind in ("*.nbc", "*.nbi"):
        (held,) = cache.rglob(kind)
        held.write_bytes(held.read_bytes()[:20])  # as after a power cut
        found = imports(cache)
        assert (found.stdout, found.stderr) == ("42\n", "")
