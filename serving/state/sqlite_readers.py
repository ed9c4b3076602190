"""Reading a SQLite file from several threads."""

import threading
from pathlib import Path
from typing import Any

from serving.state.group_writer import StoreError
from serving.state.sqlite_writer import connect


class SqliteReaders:
    """A read-only connection to the file at `path` for each thread. They must not share one: while
    a statement of one thread is under way, all others of that connection see the file as it was
    when that began, so not what was committed and answered since."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path, self._busy_seconds = path, busy_seconds
        self._own = threading.local()
        self._of: dict[threading.Thread, Any] = {}
        self._lock = threading.Lock()
        self._closed = False
        self.own()

    def own(self) -> Any:
        """The calling thread's. Raises StoreError once closed, sqlite3.Error."""
        found = getattr(self._own, "connection", None)
        return self._opened() if found is None else found

    def _opened(self) -> Any:
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            for ended in [thread for thread in self._of if not thread.is_alive()]:
                self._of.pop(ended).close()
            made = connect(self._path, read_only=True, busy_seconds=self._busy_seconds)
            self._of[threading.current_thread()] = self._own.connection = made
            return made

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            self._closed = True
            for connection in self._of.values():
                connection.close()
            self._of.clear()
