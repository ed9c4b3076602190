"""Models on a real Triton server answer as those in this process, and only those that do are
used."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry

from benchmarks.kserve_server import WRONG, KServe, serving
from contract.errors import UserError
from contract.manifest import MODELS, QUERY_TOWER, RANKER
from serving.decision.deadline import Deadline
from serving.decision.decide import Decider
from serving.decision.watch import ReleaseWatch
from serving.inference.backend import InferenceFailed, ServerNotReady
from serving.inference.embedded import MAX_BATCH, EmbeddedBackend
from serving.inference.follower import Follower
from serving.inference.guard import Guard
from serving.inference.probe import probe, probe_inputs
from serving.inference.releases import LiveRelease, load_release
from serving.inference.time_left import within
from serving.inference.triton import TritonBackends
from serving.inference.triton_client import TritonClient, address_of
from serving.inference.triton_process import Ports, TritonProcess, installed, running
from serving.inference.triton_watch import TritonSettings
from serving.monitoring.releases import ReleaseMetrics
from tests.serving.decision.setting import CLOCK, SIGNER, Forbidden, nobody, request
from tests.serving.release_factory import Factory
from tests.serving.triton_repository import prepare

QUICK = TritonSettings(period_s=0.1)
Open = Callable[..., LiveRelease]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """One release; tests that add others give them names and versions of their own."""
    made = Factory(tmp_path_factory.mktemp("triton"))
    made.write("one")
    prepare(made)
    return made


@pytest.fixture(scope="module")
def triton(factory: Factory) -> Iterator[TritonProcess]:
    with running(factory.models_dir) as process:
        yield process


@pytest.fixture
async def live_on(factory: Factory) -> AsyncIterator[Open]:
    """Opens releases whose models run on the server at an address."""
    opened: list[tuple[LiveRelease, TritonBackends]] = []

    def open_one(
        address: str, settings: TritonSettings = QUICK, release_root: Factory = factory
    ) -> LiveRelease:
        backends = TritonBackends(TritonClient(address), settings)
        live = LiveRelease(release_root.releases_dir, release_root.models_dir, backends=backends)
        opened.append((live, backends))
        return live

    yield open_one
    for live, backends in opened:
        live.close()
        await backends.close()


@pytest.fixture
def mode(tmp_path: Path) -> Path:
    path = tmp_path / "mode"
    path.write_text("right")
    return path


@pytest.fixture
def kserve(factory: Factory, mode: Path) -> Iterator[tuple[KServe, str]]:
    service = KServe(factory.models_dir, mode)
    with serving(service) as port:
        yield service, f"127.0.0.1:{port}"


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """That it does come about; how soon is for benchmarks.triton_faults to say."""
    ends_at = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < ends_at, "it did not come about in time"
        await asyncio.sleep(0.05)


async def answers(live: LiveRelease) -> bool:
    try:
        with within(2.0):
            await probe(live.current)
    except (InferenceFailed, TimeoutError):
        return False
    return True


async def silent(live: LiveRelease) -> bool:
    return not await answers(live)


async def test_answers_equal_those_of_this_process_singly_and_together(
    triton: TritonProcess, factory: Factory, live_on: Open
) -> None:
    live = live_on(triton.address)
    await live.load_or_keep("one")
    here = load_release(factory.releases_dir, factory.models_dir, "one")
    draw = np.random.default_rng(1)
    inputs = probe_inputs(here)
    for name in MODELS:
        for together in (1, 40):
            asked = [_varied(inputs[name], draw) for _ in range(together)]
            expected = await asyncio.gather(*(here.models.run(name, one) for one in asked))
            found = await asyncio.gather(*(live.current.models.run(name, one) for one in asked))
            for one, other in zip(found, expected, strict=True):
                assert one.keys() == other.keys()
                for output, wanted in other.items():
                    assert one[output].shape == wanted.shape
                    assert np.abs(one[output] - wanted).max() <= 1e-4  # type: ignore[operator]
    here.models.close()
    text = httpx.get(triton.metrics_url).text
    count, runs = (_counter(text, f"nv_inference_{name}") for name in ("count", "exec_count"))
    assert runs < count  # batches did form


def _varied(inputs: Any, draw: np.random.Generator) -> dict[str, Any]:
    return {
        name: draw.normal(size=array.shape).astype(array.dtype)
        if array.dtype == np.float32
        else np.where(array > 1, draw.integers(2, 40, array.shape), array)
        for name, array in inputs.items()
    }


def _counter(text: str, name: str) -> float:
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{{")
    )


async def test_swaps_and_a_return_to_an_old_version_lose_no_request(
    triton: TritonProcess, factory: Factory, live_on: Open
) -> None:
    """Three versions more than the version policy keeps, then back to the first one."""
    live = live_on(triton.address)
    await live.load_or_keep("one")
    failed: list[BaseException] = []
    done = asyncio.Event()

    async def ask() -> int:
        count = 0
        inputs = probe_inputs(live.current)
        while not done.is_set():
            with live.lease() as release:
                try:
                    await release.models.run(RANKER, inputs[RANKER])
                except Exception as error:
                    failed.append(error)
            count += 1
        return count

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for version in (2, 3, 4):
        other = Factory(factory.root, seed=version)
        other.write(f"v{version}", version=version, current=False)
        prepare(other)
        await live.load_or_keep(f"v{version}")
        assert live.current.release_id == f"v{version}"
    await live.load_or_keep("one")
    assert await answers(live)
    done.set()
    assert sum(await asyncio.gather(*asking)) > 100
    assert failed == []


async def test_a_release_that_the_server_lacks_waits_and_the_old_one_serves(
    triton: TritonProcess, factory: Factory, live_on: Open, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    Factory(factory.root, seed=9).write("late", version=9, current=False)
    prepare(factory)
    names = [f"{name}/9" for name in MODELS]
    copy = Factory(tmp_path / "copy")  # the gateway's own files, which the server does not see
    shutil.copytree(factory.root, copy.root)
    for name in names:
        shutil.move(factory.models_dir / name, away / name)
    impatient = TritonSettings(period_s=0.1, wait_s=0.5)
    live = live_on(triton.address, impatient, copy)
    await live.load_or_keep("one")
    follower = Follower(live, Guard(), ReleaseMetrics(CollectorRegistry()))
    (copy.releases_dir / "current").write_text("late\n")
    await follower.look()
    assert live.current.release_id == "one"
    assert await answers(live)
    with pytest.raises(ServerNotReady, match="version 9"):
        await live.load_or_keep("late")
    for name in names:
        shutil.move(away / name, factory.models_dir / name)

    async def arrived() -> bool:
        await follower.look()
        return live.current.release_id == "late"

    await until(arrived, 15)
    assert await answers(live)


async def revived(process: TritonProcess, live: LiveRelease) -> bool:
    """Whether models answer again after the process behind one was killed; False where the whole
    server went with it."""
    server = psutil.Process(process.pid)
    for child in server.children(recursive=True):
        with suppress(psutil.Error):
            if any(f"/{RANKER}/" in part for part in child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
    await until(lambda: silent(live))

    def died() -> bool:
        return bool(server.status() == psutil.STATUS_ZOMBIE)

    async def settled() -> bool:
        return died() or await answers(live)

    await until(settled)
    return not died()


async def test_a_dead_process_behind_a_model_is_started_anew(
    factory: Factory, live_on: Open
) -> None:
    """Now and then the server dies of it: to start that is for whoever runs it, here as well."""
    for _ in range(3):
        with running(factory.models_dir) as process:
            live = live_on(process.address)
            await live.load_or_keep("one")
            if await revived(process, live):
                assert await answers(live)
                return
    pytest.fail("the server died each time")


async def test_a_server_that_comes_later_is_taken_up_and_its_restart_too(
    factory: Factory, live_on: Open, tmp_path: Path
) -> None:
    process = TritonProcess(factory.models_dir, Ports.free(), load=(), log=tmp_path / "log")
    live = live_on(process.address)
    began = time.monotonic()
    await live.load_or_keep("one")  # without a server: on lower rungs, and at once
    assert time.monotonic() - began < 30
    assert live.current.models.remote
    assert live.current.models.away
    assert await silent(live)
    guard = Guard()
    guard.follow("one", None)
    decider = Decider(live, Forbidden(), CLOCK, SIGNER)
    decider.watch = ReleaseWatch(live, guard, ReleaseMetrics(CollectorRegistry()))
    decision = await decider.decide(request("item-1"), nobody())
    assert decision.rung == "session_knn"
    assert not len(guard._recent("one"))  # no fault of the release
    try:
        for _ in range(2):
            await asyncio.to_thread(process.start)  # with no model loaded: it is asked for them
            await until(lambda: answers(live))
            assert not live.current.models.away
            assert (await decider.decide(request("item-1"), nobody())).rung == "full"
            process.kill()
            await until(lambda: silent(live))
        assert len(guard._recent("one")) == 2
    finally:
        process.kill()
        decider.close()


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_answers_are_never_used_and_end_with_their_cause(
    kserve: tuple[KServe, str], mode: Path, live_on: Open, wrong: str
) -> None:
    service, address = kserve
    live = live_on(address, TritonSettings(period_s=0.1, probe_s=0.3))
    await live.load_or_keep("one")
    inputs = probe_inputs(live.current)
    service.withdrawn.clear()
    mode.write_text(wrong)
    if wrong not in ("nan", "other", "silent"):  # what can be seen without knowing the answer
        with pytest.raises(InferenceFailed):
            await live.current.models.run(RANKER, inputs[RANKER])
    await until(lambda: silent(live))
    mode.write_text("right")
    await until(lambda: answers(live))


async def test_a_release_on_a_server_that_answers_wrongly_is_refused(
    kserve: tuple[KServe, str], mode: Path, live_on: Open, factory: Factory
) -> None:
    live = live_on(kserve[1], TritonSettings(period_s=0.1, wait_s=0.5))
    await live.load_or_keep("one")
    before = live.current
    mode.write_text("other")
    with pytest.raises(ServerNotReady, match=r"differs by .* from what its file answers"):
        await live.load_or_keep("one")
    assert live.current is before


async def test_a_configuration_that_departs_from_the_manifest_is_refused(
    kserve: tuple[KServe, str], live_on: Open
) -> None:
    service, address = kserve
    live = live_on(address, TritonSettings(period_s=0.1, wait_s=0.5))
    await live.load_or_keep("one")
    service.configs[RANKER].output[0].dims[0] = 7
    with pytest.raises(ServerNotReady, match="ranker version 1: output scores is"):
        await live.load_or_keep("one")
    service.configs[RANKER].output[0].dims[0] = -1
    service.configs[QUERY_TOWER].input[0].name = "other"
    with pytest.raises(ServerNotReady, match="query_tower version 1: input frequent_items is None"):
        await live.load_or_keep("one")


async def test_the_time_left_travels_and_a_request_given_up_is_withdrawn(
    kserve: tuple[KServe, str], mode: Path, live_on: Open
) -> None:
    service, address = kserve
    live = live_on(address, TritonSettings(period_s=60))
    await live.load_or_keep("one")
    inputs = probe_inputs(live.current)
    service.seconds_left.clear()
    await live.current.models.run(RANKER, inputs[RANKER])
    deadline = Deadline(1_000)
    await deadline.stage(
        "ranker", 400, lambda: live.current.models.run(RANKER, inputs[RANKER]), None
    )
    unlimited, limited = service.seconds_left
    assert unlimited is not None  # nobody said, and still nobody waits for ever
    assert 1 < unlimited <= 6
    assert limited is not None
    assert 0.1 < limited < 0.41
    mode.write_text("silent")
    service.withdrawn.clear()
    began = time.monotonic()
    work = live.current.models.run(RANKER, inputs[RANKER])
    assert await deadline.stage("ranker", 100, lambda: work, None) is None
    assert time.monotonic() - began < 1
    assert await asyncio.to_thread(service.withdrawn.wait, 3)


async def test_one_connection_serves_every_release(
    kserve: tuple[KServe, str], live_on: Open
) -> None:
    port = int(kserve[1].rpartition(":")[2])
    live = live_on(kserve[1])
    for _ in range(3):
        await live.load_or_keep("one")
        inputs = probe_inputs(live.current)
        await asyncio.gather(
            *(live.current.models.run(RANKER, inputs[RANKER]) for _ in range(MAX_BATCH))
        )
    mine = [
        one
        for one in psutil.Process().net_connections("tcp")
        if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED
    ]
    assert len(mine) == 1


def test_where_a_server_is() -> None:
    assert address_of("grpc://triton:8001") == "triton:8001"
    assert address_of("127.0.0.1:8001") == "127.0.0.1:8001"
    for wrong in ("http://triton:8001", "triton", "grpc://:8001", "triton:port", ""):
        with pytest.raises(UserError, match="no address of a Triton server"):
            address_of(wrong)


def test_a_missing_or_half_made_installation_names_the_line_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"make \.triton"):
        installed(tmp_path)
    (tmp_path / "pytriton").mkdir()
    with pytest.raises(UserError, match=r"make \.triton"):
        installed(tmp_path)


def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Triton did not start"), running(tmp_path / "nothing"):
        pass


def test_embedded_models_are_this_processs_own(factory: Factory) -> None:
    release = load_release(factory.releases_dir, factory.models_dir, "one")
    assert isinstance(release.models, EmbeddedBackend)
    assert not release.models.remote
    release.models.close()
