"""A benchmark that is told to end ends what it has started."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARK = """
import time
from benchmarks.command import execute

def run():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("ended", flush=True)

raise SystemExit(execute("benchmark", run, None))
"""


def test_sigterm_lets_it_end_what_it_started() -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", BENCHMARK], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "ended\n"
        assert running.wait() == 130
