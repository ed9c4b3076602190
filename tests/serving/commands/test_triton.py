"""`tillwise-serve triton`: a server over the models until it is told to end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving.inference.triton_process import Ports
from tests.serving.commands.processes import ROOT, Place
from tests.serving.release_factory import Factory
from tests.serving.triton_repository import prepare


@pytest.fixture
def place(tmp_path: Path) -> Place:
    factory = Factory(tmp_path)
    factory.write()
    return Place(factory, tmp_path / "state")


def flags(ports: Ports) -> list[str]:
    return [f"--{name}-port={getattr(ports, name)}" for name in ("grpc", "http", "metrics")]


def test_it_serves_until_sigterm_and_leaves_nothing(place: Place) -> None:
    prepare(place.factory)
    ports = Ports.free()
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "triton", *flags(ports)],
        cwd=ROOT,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:  # closes its pipe and waits for it
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if "TILLWISE_TRITON_URL" in line)
            assert f"grpc://127.0.0.1:{ports.grpc}" in said
            children = psutil.Process(process.pid).children(recursive=True)
            names = sorted(child.name() for child in children)
            assert names == ["triton_python_backend_stub"] * 3 + ["tritonserver"]
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    _, alive = psutil.wait_procs(children, 5)
    assert alive == []
    assert not list(Path("/dev/shm").glob(f"tillwise_triton_{ports.grpc}_*"))


def test_what_is_missing_or_taken_is_said_in_one_line(place: Place) -> None:
    ended = place.call("triton", *flags(Ports.free()))
    assert ended.returncode == 2
    assert "export a release first" in ended.stderr
    prepare(place.factory)
    ports = Ports.free()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.http))
        taken.listen()
        ended = place.call("triton", *flags(ports))
    assert ended.returncode == 2
    assert f"port {ports.http} on 127.0.0.1 is in use" in ended.stderr
    for wrong in (("--grpc-port", "70000"), ("--http-port", "0"), ("--grpc-port", "8000")):
        ended = place.call("triton", *wrong)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert "must differ and lie in 1..65535" in ended.stderr
