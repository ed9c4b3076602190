"""What `processes.Launcher` runs. A line on standard input (a program, its arguments, a file for
what it says, one for what it complains of) starts it in a fork of this process; two lines answer:
its process id, and at its end its exit status."""

import json
import multiprocessing
import os
import sys
from importlib import import_module

from torch.distributed import run

from training.__main__ import main
from training.data.item_text import sentence_model

PROGRAMS = {"torchrun": run.main, "tillwise-train": main}
# What the commands import late.
USED = ("fit", "run_folder", "pipeline", "evaluation.cross_validation")


def forked(program: str, arguments: list[str], *files: str) -> None:
    """The program, with its two streams in `files`."""
    for stream, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    sys.exit(PROGRAMS[program](arguments))


if __name__ == "__main__":
    for name in USED:
        import_module(f"training.{name}")
    sentence_model()
    for line in sys.stdin:
        fork = multiprocessing.get_context("fork").Process(target=forked, args=json.loads(line))
        fork.start()
        print(fork.pid, flush=True)
        fork.join()
        print(fork.exitcode, flush=True)
