"""The JobSet's own command, as two machines would run it: here two agents on this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.k8s.objects import ROOT, pods
from tests.k8s.overlays import overlay
from tests.serving.commands.processes import free_port
from tests.training.conftest import SMALL, shop_folder

__all__ = ["shop_folder"]


def worker_arguments() -> list[str]:
    ((_, pod),) = pods(overlay("training"))
    arguments: list[str] = pod["containers"][0]["args"]
    return arguments


@pytest.mark.slow
def test_two_machines_fit_one_run(shop_folder: Path, tmp_path: Path) -> None:
    program, *arguments = worker_arguments()
    assert program == "torchrun"
    here = {
        "/data/shop": str(shop_folder),
        "/data/runs/base": str(tmp_path / "run"),
        "cuda": "cpu",
        "base": "demo",
    }
    endpoint = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    small = [part for one in SMALL for part in ("--set", one)]
    command = [
        endpoint if one.startswith("--rdzv-endpoint=") else here.get(one, one) for one in arguments
    ]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *command, *small],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        ended = [agent.communicate(timeout=240) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], ended
    assert any((tmp_path / "run").iterdir())
