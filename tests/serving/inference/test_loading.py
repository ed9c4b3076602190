"""A release that is loaded beside checkouts lets them go first, and gets on nevertheless."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.pieces import pausing
from serving.inference import loading, release_files
from serving.inference.loading import GiveWay
from serving.inference.releases import LiveRelease, load_release
from tests.serving.release_factory import Factory


@pytest.fixture
def two(tmp_path: Path) -> Factory:
    factory = Factory(tmp_path)
    factory.write("two")
    factory.write("one")
    return factory


async def test_loading_waits_for_checkouts_that_are_under_way(
    two: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_HELD_UP_S", 600.0)
    monkeypatch.setattr(loading, "_HELD_UP_IN_ALL_S", 600.0)
    live = LiveRelease(two.releases_dir, two.models_dir)
    await live.load_or_keep("one")  # nobody is held up for
    with live.lease(), live.lease():
        loaded = asyncio.create_task(live.load_or_keep("two"))
        done, _ = await asyncio.wait((loaded,), timeout=2.0)
        assert not done
        assert live.current.release_id == "one"
    await loaded
    assert live.current.release_id == "two"
    live.close()


async def test_it_gets_on_under_a_load_without_gaps(
    two: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_HELD_UP_IN_ALL_S", 0.2)
    live = LiveRelease(two.releases_dir, two.models_dir)
    await live.load_or_keep("one")
    with live.lease():
        await live.load_or_keep("two")
    assert live.current.release_id == "two"
    live.close()


def test_who_is_held_up_looks_again_when_it_is_quiet() -> None:
    looks: list[bool] = []

    def busy() -> Iterator[bool]:
        yield from (True, True, True, False)

    answers = busy()

    def look() -> bool:
        looks.append(next(answers))
        give_way.quiet()  # somebody else has come meanwhile, though
        return looks[-1]

    give_way = GiveWay(look)
    give_way()
    assert looks == [True, True, True, False]


def test_it_is_not_held_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_HELD_UP_S", 0.01)
    monkeypatch.setattr(loading, "_HELD_UP_IN_ALL_S", 0.03)
    looks: list[None] = []

    def always() -> bool:
        looks.append(None)
        return True

    give_way = GiveWay(always)
    for _ in range(4):
        give_way()
    looks.clear()
    give_way()
    assert not looks


def test_a_release_is_loaded_in_pieces(two: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_files, "_HASHED", 64)
    largest = max(path.stat().st_size for path in two.models_dir.rglob("model.onnx"))
    pauses: list[None] = []
    with pausing(lambda: pauses.append(None)):
        load_release(two.releases_dir, two.models_dir, "two").models.close()
    assert len(pauses) > largest // 64
