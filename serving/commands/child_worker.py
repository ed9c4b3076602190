"""A worker as a child of the gateway's process, where nobody else starts one. It ends with its
parent, however that ends."""

import os
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from serving.monitoring.kpis import FILE, KpiReader
from serving.settings import Settings

_PATIENCE_S = 10.0


class ChildWorker:
    """`tillwise-serve worker` on the state folder of `settings`, with its own settings from the
    environment as the gateway's are. Its metrics are on a port of its own, in its log."""

    def __init__(self, settings: Settings, *arguments: str, port: int = 0) -> None:
        folders = ("--state", str(settings.state), "--releases", str(settings.releases))
        told = (*folders, "--port", str(port), "--with-parent", *arguments)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving", "worker", *told],
            env=os.environ | {"TILLWISE_LOG_LEVEL": "warning"},
            stdin=subprocess.PIPE,
        )

    def close(self) -> None:
        """Let it finish what it does, and end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # it counts from where it was, at the next start
            self._process.wait()


def counted_until(state: Path) -> datetime | None:
    """When the latest event happened that a worker counted here; None before there is one."""
    try:
        with KpiReader.open(state / FILE) as kpis:
            return kpis.as_of()
    except (FileNotFoundError, sqlite3.Error):
        return None
