"""A run replaces another one whole or not at all."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import UserError
from tests.training.processes import ROOT
from training.commands import CHECKPOINTS, EVALUATION
from training.run_folder import RUN_FILE, described, replaced

_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from contract.errors import UserError
from training.run_folder import replaced
resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
try:
    with replaced(Path(sys.argv[1]), {"recipe": "second"}) as new:
        (new / "small.txt").write_text("second")
        np.savez(new / "table.npz", table=np.zeros(100_000))
except UserError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run with a checkpoint that its fit left and the figures of an evaluation."""
    run = tmp_path / "run"
    with replaced(run, {"recipe": "first"}) as new:
        (new / "small.txt").write_text("first")
        (new / "table.npz").write_bytes(b"first")
    (run / CHECKPOINTS).mkdir()
    (run / EVALUATION.format(protocol="session")).write_text("{}")
    return run


def test_a_new_run_takes_the_place_of_the_old_with_what_was_measured_on_it(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with replaced(folder, {"recipe": "second"}) as new:
        assert described(folder)["recipe"] == "first"
        (new / "small.txt").write_text("second")
    assert described(folder)["recipe"] == "second"
    names = {file.name for file in folder.iterdir()}
    assert names == {RUN_FILE, "small.txt", "table.npz", "notes.txt"}
    assert (folder / "small.txt").read_text() == "second"


def test_a_full_disk_leaves_the_old_run_whole(folder: Path) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", _FULL, str(folder)]
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    expected = f"{folder}: the run could not be written, one that stood there is untouched"
    assert said.stdout.startswith(expected)
    assert "File too large" in said.stdout
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert (folder / CHECKPOINTS).is_dir()


def test_what_a_torn_write_left_is_no_obstacle(folder: Path) -> None:
    def torn() -> None:
        with replaced(folder, {"recipe": "second"}) as new:
            (new / "small.txt").write_text("torn")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torn()
    assert described(folder)["recipe"] == "first"
    with replaced(folder, {"recipe": "third"}) as new:
        assert not list(new.iterdir())
    assert described(folder)["recipe"] == "third"
    assert (folder / "small.txt").read_text() == "first"


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "run"
    taken.write_text("")
    with pytest.raises(UserError, match="could not be written"), replaced(taken, {}):
        raise AssertionError
