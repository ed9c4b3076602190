"""A real PostgreSQL server as a process that benchmarks and tests may kill, pause and start again
on its files. It refuses to run as root: root starts it under another user."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg

from benchmarks.valkey_process import free_port
from contract.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
_FETCHED = ROOT / ".tools/postgres"
_DATABASE = "postgres"
_USER = "tillwise"
# Where Debian, others and `make postgres` put the programs.
_FOLDERS = (
    *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    *sorted(_FETCHED.glob("usr/lib/postgresql/*/bin"), reverse=True),
)


def binaries() -> Path:
    """The folder of `initdb` and `postgres`. Raises UserError."""
    for folder in _FOLDERS:
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    if found is None:
        raise UserError("no PostgreSQL server; get it: make postgres")
    return Path(found).resolve().parent


def _other_user() -> list[str]:
    """Words before a command, so that root does not run it."""
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam(_unprivileged())
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _unprivileged() -> str:
    names = {one.pw_name for one in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _environment() -> dict[str, str]:
    """With the libraries that were fetched beside the server."""
    found = dict(os.environ)
    if binaries().is_relative_to(_FETCHED):
        found["LD_LIBRARY_PATH"] = ":".join(map(str, _FETCHED.glob("usr/lib/*-linux-gnu")))
    return found


class PostgresServer:
    """One server on a port that stays the same, in a folder of its own."""

    def __init__(self, **settings: str) -> None:
        """`settings` of the server, such as `fsync`."""
        self._folder = Path(tempfile.mkdtemp(prefix="tillwise-postgres-"))
        self._settings = settings
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As the setting `control_store` has it."""
        return f"postgresql://127.0.0.1:{self.port}/{_DATABASE}"

    def url_of_own(self) -> str:
        """The same with a schema that nobody else uses."""
        return f"{self.url}?schema=shop_{uuid4().hex}"

    @property
    def user(self) -> str:
        return _USER

    def make(self) -> None:
        """Make the files of a new database."""
        if os.getuid() == 0:
            user = pwd.getpwnam(_unprivileged())
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        made = subprocess.run(
            [
                *_other_user(),
                str(binaries() / "initdb"),
                *("--pgdata", str(self._folder / "data"), "--username", _USER),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            ],
            cwd="/",
            env=_environment(),
            capture_output=True,
        )
        if made.returncode:
            raise UserError(f"PostgreSQL made no database: {made.stderr.decode().strip()}")

    def take(self, file: Path) -> str:
        """A copy of `file` that the server alone may read; its path, for a setting."""
        copy = self._folder / file.name
        shutil.copyfile(file, copy)
        copy.chmod(0o600)
        if os.getuid() == 0:
            user = pwd.getpwnam(_unprivileged())
            os.chown(copy, user.pw_uid, user.pw_gid)
        return str(copy)

    def set(self, **settings: str) -> None:
        """Further settings, from the next start on."""
        self._settings |= settings

    def start(self) -> None:
        """Start, on the files that are there, and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._settings,
        }
        words = [word for name, said in settings.items() for word in ("-c", f"{name}={said}")]
        server = [str(binaries() / "postgres"), "-D", str(self._folder / "data")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_other_user(), *server, *words],
                cwd="/",
                env=_environment(),
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        until = time.monotonic() + 30
        while True:
            try:
                self.ask("SELECT 1")
                return
            except psycopg.Error as error:
                if time.monotonic() > until or self._process.poll() is not None:
                    said = (self._folder / "log").read_text()[-2_000:]
                    raise UserError(f"PostgreSQL did not start: {error}; {said}") from None
                time.sleep(0.05)

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """What a statement answers, if it does."""
        place = f"host=127.0.0.1 port={self.port} dbname={_DATABASE} user={_USER}"
        with psycopg.connect(place, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """End it at once, with all its processes, as a machine that goes down."""
        assert self._process is not None
        self._signal_all(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Stop it in its tracks: connections stay, and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        # The server first, so that it starts no others meanwhile.
        for one in (self._process.pid, *_children(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def stop(self) -> None:
        """End it for good and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self.go_on()
            self._process.send_signal(signal.SIGINT)  # without waiting for those connected
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def postgres(**settings: str) -> Iterator[PostgresServer]:
    """A running server, ended on the way out."""
    server = PostgresServer(**settings)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
