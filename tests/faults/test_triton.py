"""Whatever happens to the model server under a stream of checkouts: all are answered, from the rung
that can be answered from, and from the full one again within 5 s of the server's return."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.kserve_server import WRONG
from benchmarks.servers import UNREMEMBERED
from contract.manifest import MANIFEST, MODELS, RANKER, ReleaseManifest
from contract.rollout_file import live_release_id
from serving.inference.triton_client import TritonClient
from serving.inference.triton_process import Ports, TritonProcess
from tests.faults.shoppers import shopping
from tests.serving.commands.processes import ROOT, Place, Served
from tests.serving.release_factory import Factory
from tests.serving.triton_repository import prepare

RETURN_SECONDS = 5.0
WITH_MODELS = {"full", "no_ranker"}
KINDS = WRONG if os.environ.get("TILLWISE_PROVE") else ("nan", "name", "other", "silent")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("faults")
    factory = Factory(root)
    factory.write()
    prepare(factory)
    return Place(factory, root / "state")


@pytest.fixture(scope="module")
def key(place: Place) -> str:
    return place.call("keys", "create", "--role", "checkout").stdout.strip()


@pytest.fixture(scope="module")
def triton(place: Place) -> Iterator[TritonProcess]:
    process = TritonProcess(
        place.factory.models_dir, Ports.free(), log=place.state.parent / "triton.log"
    )
    yield process
    process.end()


@pytest.fixture(scope="module")
def served(place: Place, triton: TritonProcess) -> Iterator[Served]:
    """One gateway for all faults of Triton, never started again; Triton is not there yet."""
    with place.gateway(**UNREMEMBERED, TILLWISE_TRITON_URL=f"grpc://{triton.address}") as served:
        yield served
        assert served.process.poll() is None


async def test_without_a_server_at_the_start_and_with_it_once_it_comes(
    served: Served, key: str, triton: TritonProcess
) -> None:
    async with shopping(served, key) as shoppers:
        await shoppers.sees("session_knn", 2)
        await asyncio.to_thread(triton.start)
        await shoppers.sees("full", RETURN_SECONDS)


async def test_killed(served: Served, key: str, triton: TritonProcess) -> None:
    async with shopping(served, key) as shoppers:
        await shoppers.sees("full", RETURN_SECONDS)
        triton.kill()
        await shoppers.sees("session_knn", 3)
        known = time.monotonic()
        await asyncio.sleep(0.5)
        assert not shoppers.since(known) & WITH_MODELS
        await asyncio.to_thread(triton.start)
        await shoppers.sees("full", RETURN_SECONDS)


async def test_paused(served: Served, key: str, triton: TritonProcess) -> None:
    async with shopping(served, key) as shoppers:
        await shoppers.sees("full", RETURN_SECONDS)
        triton.signal(signal.SIGSTOP)
        try:
            await shoppers.sees("session_knn", 3)
            await asyncio.sleep(2)
            await shoppers.sees("session_knn", 3)
        finally:
            triton.signal(signal.SIGCONT)
        await shoppers.sees("full", RETURN_SECONDS)


@pytest.mark.parametrize("model", MODELS)
async def test_the_process_behind_one_model_killed(
    served: Served, key: str, triton: TritonProcess, model: str
) -> None:
    """With one tower or without the ranker the rung is the same, and it is not the lowest."""
    rung = "no_ranker"
    async with shopping(served, key) as shoppers:
        await shoppers.sees("full", RETURN_SECONDS)
        killed = 0
        for child in psutil.Process(triton.pid).children(recursive=True):
            with suppress(psutil.Error):
                if any(f"/{model}/" in part for part in child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)
                    killed += 1
        assert killed == 1
        await shoppers.sees(rung, 3)  # before that, those who wait for it crowd the others out
        await shoppers.sees("full", RETURN_SECONDS)


async def two_servers(place: Place, tmp_path: Path, held: ExitStack) -> list[TritonProcess]:
    """Over the same models; they end with `held`."""
    servers = [
        TritonProcess(place.factory.models_dir, Ports.free(), log=tmp_path / "log")
        for _ in range(2)
    ]
    for server in servers:
        held.callback(server.end)
        await asyncio.to_thread(server.start)
    return servers


async def test_one_of_two_that_hangs_is_not_asked_for_long(place: Place, tmp_path: Path) -> None:
    """As when its machine is gone: nothing closes the connection, nothing answers on it."""
    entry = next(one for one in manifest(place).models if one.name == RANKER)
    batch = {one.name: np.zeros((1, *one.shape), one.dtype) for one in entry.inputs}
    with ExitStack() as held:
        servers = await two_servers(place, tmp_path, held)
        client = TritonClient("ipv4:" + ",".join(server.address for server in servers))

        async def answered(times: int) -> bool:
            """Whether all of so many calls are, which go to both in turn."""
            asked = (client.infer(entry, batch, 1.0) for _ in range(times))
            found = await asyncio.gather(*asked, return_exceptions=True)
            return not any(isinstance(one, BaseException) for one in found)

        async def soon() -> None:
            while not await answered(8):
                await asyncio.sleep(0.05)

        try:
            await asyncio.wait_for(soon(), 30)
            servers[0].signal(signal.SIGSTOP)
            held.callback(servers[0].signal, signal.SIGCONT)
            assert not await answered(8)
            await asyncio.wait_for(soon(), 60)
        finally:
            await client.close()


def manifest(place: Place) -> ReleaseManifest:
    """Of the release that is served."""
    release_id = live_release_id(place.factory.releases_dir)
    content = (place.factory.releases_dir / release_id / MANIFEST).read_bytes()
    return ReleaseManifest.model_validate_json(content)


@pytest.fixture
def other(place: Place, tmp_path: Path) -> tuple[Place, str]:
    """The same release with a state folder of its own, and a key for it."""
    other = Place(place.factory, tmp_path / "state")
    return other, other.call("keys", "create", "--role", "checkout").stdout.strip()


async def test_a_gateway_goes_on_with_the_other_of_two_servers(
    other: tuple[Place, str], tmp_path: Path
) -> None:
    place, key = other
    with ExitStack() as held:
        servers = await two_servers(place, tmp_path, held)
        both = "ipv4:" + ",".join(server.address for server in servers)
        served = held.enter_context(place.gateway(**UNREMEMBERED, TILLWISE_TRITON_URL=both))
        async with shopping(served, key) as shoppers:
            await shoppers.sees("full", 20)
            servers[0].signal(signal.SIGSTOP)
            held.callback(servers[0].signal, signal.SIGCONT)
            until, seen = time.monotonic() + 60, {"nothing yet"}
            await asyncio.sleep(1)
            while seen != {"full"}:
                assert time.monotonic() < until, seen
                began = time.monotonic()
                await asyncio.sleep(1)
                seen = shoppers.since(began)


async def test_a_server_that_answers_wrongly(other: tuple[Place, str], tmp_path: Path) -> None:
    """Through every kind of wrong answer in turn, with the right ones between them."""
    place, key = other
    mode = tmp_path / "mode"
    mode.write_text("right")
    port = Ports.free().grpc
    module = "benchmarks.kserve_server"
    wrong = subprocess.Popen(
        [sys.executable, "-m", module, place.factory.models_dir, "python", str(port), mode],
        cwd=ROOT,
    )
    try:
        with place.gateway(**UNREMEMBERED, TILLWISE_TRITON_URL=f"127.0.0.1:{port}") as served:
            async with shopping(served, key) as shoppers:
                await shoppers.sees("full", 10)
                for kind in KINDS:
                    mode.write_text(kind)
                    await shoppers.sees("session_knn", 4)
                    seen = time.monotonic()
                    await asyncio.sleep(0.4)
                    assert not shoppers.since(seen) & WITH_MODELS, kind
                    mode.write_text("right")
                    await shoppers.sees("full", RETURN_SECONDS)
            assert served.process.poll() is None
    finally:
        wrong.terminate()
        wrong.wait(10)
