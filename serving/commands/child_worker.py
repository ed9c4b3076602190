"""A worker as a child of the gateway's process, where nobody else starts one. It ends with its
parent, however that ends, and is started anew where it ends by itself."""

import logging
import os
import sqlite3
import subprocess
import sys
from datetime import datetime
from logging import ERROR, INFO
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Final

from serving.monitoring.kpis import FILE, KpiReader
from serving.settings import Settings

log = logging.getLogger(__name__)

_PATIENCE_S = 10.0
PORT: Final = 9464
PAUSE_S: Final = 10.0  # before it is started anew


class ChildWorker:
    """`tillwise-serve worker` on the state folder of `settings`, with its own settings from the
    environment as the gateway's are. Its metrics are on a port of its own, in its log; it writes
    what is at least of `log_level` there."""

    def __init__(
        self,
        settings: Settings,
        *arguments: str,
        port: int = 0,
        pause_s: float = PAUSE_S,
        log_level: str = "warning",
    ) -> None:
        folders = ("--state", str(settings.state), "--releases", str(settings.releases))
        told = (*folders, "--port", str(port), "--with-parent", *arguments)
        self._command = [sys.executable, "-m", "serving", "worker", *told]
        self._pause_s, self._log_level, self._ended = pause_s, log_level, Flag()
        self._process = self._started()
        self._watch = Thread(target=self._keep, name="worker", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        """Of the one that runs, or ran last."""
        return self._process.pid

    def close(self) -> None:
        """Let it finish what it does, and end."""
        self._ended.set()
        self._close_input()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # it counts from where it was, at the next start
            self._process.wait()
        self._watch.join(_PATIENCE_S)

    def _started(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            env=os.environ | {"TILLWISE_LOG_LEVEL": self._log_level},
            stdin=subprocess.PIPE,
        )

    def _keep(self) -> None:
        """Start it anew whenever it has ended by itself."""
        while True:
            status = self._process.wait()
            if self._ended.is_set():
                return
            # 0: somebody told it to end; on Ctrl-C that is the same as told the gateway.
            log.log(ERROR if status else INFO, "the worker ended with %d", status)
            self._close_input()
            if self._ended.wait(self._pause_s):
                return
            self._process = self._started()
            if self._ended.is_set():
                self._close_input()

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def counted_until(state: Path) -> datetime | None:
    """When the latest event happened that a worker counted here; None before there is one."""
    try:
        with KpiReader.open(state / FILE) as kpis:
            return kpis.as_of()
    except (FileNotFoundError, sqlite3.Error):
        return None
