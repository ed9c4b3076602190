"""Releases in a running gateway: refused, on trial, in the shadow, live, rolled back."""

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract import manifest, rollout_file
from contract.assignment import takes_part
from contract.manifest import QUERY_TOWER
from contract.rollout import ROLLOUT, Canary
from contract.rollout_file import live_release_id
from serving.inference import follower, release_place
from tests.serving.conftest import ALL, Running, Start, purchase
from tests.serving.inference.broken_models import not_a_number
from tests.serving.release_factory import (
    Factory,
    _query_tower_nodes,
    onnx_model,
    usual_model,
)

AT = datetime(2024, 5, 1, tzinfo=UTC)
NEVER = 1_000.0  # seconds between the gateway's own looks: the tests look themselves


@dataclass(frozen=True)
class Other(Factory):
    """Sells other things under other ids, but for the items that carts here are made of, which
    stand at other places of the vocabulary."""

    def item_id(self, number: int) -> str:
        return f"item-{59 - number}" if number >= 50 else f"thing-{number}"


@dataclass
class Life:
    """A gateway on releases that a test may do anything to; "one" is live."""

    factory: Factory
    running: Running

    @property
    def releases(self) -> Path:
        return self.factory.releases_dir

    async def look(self) -> None:
        await self.running.gateway.follower.look()

    async def promote(self, release_id: str) -> None:
        rollout_file.promote(self.releases, release_id, AT)
        await self.look()

    async def try_out(self, release_id: str, percent: float, *, shadow: bool = False) -> None:
        now = datetime.now(UTC)
        trial = Canary(release_id=release_id, percent=percent, shadow=shadow, started_at=now)
        rollout_file.start_canary(self.releases, trial, again=True)
        await self.look()

    async def answers(self, count: int, **changed: Any) -> list[dict[str, Any]]:
        sent = [self.running.decide(visitor_id=f"visitor-{n}", **changed) for n in range(count)]
        answers = [await one for one in sent]
        assert {one.status_code for one in answers} == {200}
        return [one.json() for one in answers]

    async def release_id(self) -> str:
        found: str = (await self.answers(1))[0]["release_id"]
        return found

    async def ready(self) -> dict[str, Any]:
        answer = await self.running.client.get("/readyz")
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    async def metric(self, line: str) -> float:
        text = (await self.running.client.get("/metrics")).text
        found = [one for one in text.splitlines() if one.startswith(line + " ")]
        assert len(found) == 1, (line, found)
        return float(found[0].rpartition(" ")[2])


@pytest.fixture
async def life(start: Start, tmp_path: Path) -> Life:
    factory = Factory(tmp_path / "own")
    factory.write("one")
    running = await start(
        releases=factory.releases_dir,
        models=factory.models_dir,
        release_poll_seconds=NEVER,
        release_healthy_seconds=0,
        guard_min_decisions=50,
    )
    return Life(factory, running)


def another(factory: Factory, kind: type[Factory] = Factory, **changed: Any) -> Factory:
    return kind(factory.root, **changed)


def write_corrupt(factory: Factory) -> None:
    factory.write("two", version=2, current=False)
    path = factory.releases_dir / "two" / manifest.INDEX
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write_nan(factory: Factory) -> None:
    another(factory, models={"ranker": not_a_number(8)}).write("two", version=2, current=False)


def write_wrong_shape(factory: Factory) -> None:
    model = usual_model(QUERY_TOWER, np.ones((60, 5), np.float32), 1)
    another(factory, models={QUERY_TOWER: model}).write("two", version=2, current=False)


def write_stale_features(factory: Factory) -> None:
    factory.write("two", version=2, current=False, feature_hash="0" * 64)


class OtherPrices(Factory):
    """Its catalogue was written by something else: whole, sealed, and of another form."""

    def _catalogue(self) -> dict[str, Any]:
        return super()._catalogue() | {"price": pa.array(["cheap"] * self.num_items)}


def write_other_form(factory: Factory) -> None:
    another(factory, OtherPrices).write("two", version=2, current=False)


def write_half(factory: Factory) -> None:
    factory.write("two", version=2, current=False)
    (factory.releases_dir / "two" / manifest.SESSION_KNN).unlink()


def write_half_a_model(factory: Factory) -> None:
    factory.write("two", version=2, current=False)
    path = factory.models_dir / "ranker" / "2" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("way", ["live", "canary"])
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_corrupt, "items.faiss: content differs"),
        (write_nan, "output scores is not finite on a probe input"),
        (write_wrong_shape, "query_tower/2/model.onnx: output query_vector"),
        (write_stale_features, "feature_hash: release was made for features 000000000000"),
        (write_other_form, "a part can not be used: ArrowInvalid"),
        (write_half, "session_knn.npz: missing"),
        (write_half_a_model, "ranker/2/model.onnx: content differs"),
    ],
)
async def test_what_can_not_be_served_is_refused_while_the_old_one_serves(
    life: Life, write: Callable[[Factory], None], said: str, way: str
) -> None:
    write(life.factory)
    if way == "live":
        await life.promote("two")
    else:
        await life.try_out("two", 100)
    await life.look()  # once refused is enough
    answers = await life.answers(5)
    assert {(one["release_id"], one["rung"]) for one in answers} == {("one", "full")}
    ready = await life.ready()
    assert ready["release_id"] == "one"
    assert "trial_release_id" not in ready
    assert len(ready["problems"]) == 1
    assert said in ready["problems"][0]
    assert await life.metric("tillwise_releases_refused_total") == 1
    assert await life.metric("tillwise_release_as_wanted") == (0 if way == "live" else 1)
    assert await life.metric('tillwise_release_info{release_id="one",role="live"}') == 1
    assert rollout_file.read_rollout(life.releases).healthy == (("one",) if way != "live" else ())


async def test_no_file_is_looked_at_on_the_loop_when_a_release_is_refused(
    life: Life, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def noted(*folders: Any) -> release_place.Fingerprint:
        threads.append(threading.get_ident())
        return release_place.fingerprint(*folders)

    monkeypatch.setattr(follower, "fingerprint", noted)
    await life.look()  # "one" is remembered as healthy
    write_half(life.factory)
    await life.try_out("two", 100)
    await life.promote("two")
    await life.look()
    assert len(threads) >= 2
    await life.running.stop()
    folders = {"releases": life.factory.releases_dir, "models": life.factory.models_dir}
    again = await start(**folders, release_poll_seconds=NEVER)
    assert again.gateway.live.current.release_id == "one"
    before = len(threads)
    await again.gateway.follower.look()
    assert len(threads) == before + 1  # as it was refused at the start, not tried again
    assert threading.get_ident() not in threads


async def test_a_copy_that_becomes_whole_is_served_then(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    path = life.releases / "two" / manifest.CATALOGUE
    whole = path.read_bytes()
    path.unlink()
    await life.promote("two")
    path.write_bytes(whole[:100])
    await life.look()  # it changed since it was refused, and may still be changing
    assert await life.metric("tillwise_releases_refused_total") == 1
    path.write_bytes(whole)
    await life.look()
    assert await life.release_id() == "one"
    await life.look()  # nothing changes any more
    assert await life.release_id() == "two"
    assert "problems" not in await life.ready()


async def test_swaps_under_load_lose_nothing_and_mix_nothing(life: Life) -> None:
    """Each answer is of one release: its items, its vocabulary and its models."""
    other = another(life.factory, Other, seed=11)
    other.write("two", version=2, current=False)
    sold = {"one": set(life.factory.vocabulary().item_ids), "two": set(other.vocabulary().item_ids)}
    found: Counter[str] = Counter()
    ended = asyncio.Event()

    async def shop(number: int) -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            answer = await life.running.decide(visitor_id=f"visitor-{number}-{turn}")
            assert answer.status_code == 200
            body = answer.json()
            found[body["release_id"]] += 1
            shown = {one["item_id"] for one in body["recommendations"]}
            assert len(shown) == 5
            assert shown <= sold[body["release_id"]], body["release_id"]
            assert body["missing_item_ids"] == []

    shoppers = [asyncio.create_task(shop(n)) for n in range(3)]
    for swap in range(6):
        await life.promote("two" if swap % 2 == 0 else "one")
        seen = found.total()
        while found.total() < seen + 10:
            await asyncio.sleep(0.01)
    ended.set()
    await asyncio.gather(*shoppers)
    assert min(found["one"], found["two"]) >= 25
    assert await life.metric("tillwise_release_swaps_total") == 6


async def test_what_was_swapped_out_is_unloaded(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    old = weakref.ref(life.running.gateway.live.current)
    with life.running.gateway.live.lease():
        await life.promote("two")
        assert old() is not None  # a decision is still under way
        assert life.running.gateway.live.current.release_id == "two"
    gc.collect()
    assert old() is None


async def test_a_canary_is_shown_to_its_share_and_to_the_same_ones(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    await life.try_out("two", 30)
    for _ in range(2):
        answers = await life.answers(60)
        expected = ["two" if takes_part("two", f"visitor-{n}", 30) else "one" for n in range(60)]
        assert [one["release_id"] for one in answers] == expected
    assert {"one", "two"} == set(expected)
    ready = await life.ready()
    assert (ready["release_id"], ready["trial_release_id"]) == ("one", "two")
    held = await life.metric('tillwise_release_decisions_total{role="canary",rung="full"}')
    assert held == 2 * expected.count("two")
    assert await life.metric("tillwise_release_trial_percent") == 30
    trial = life.running.gateway.live.candidate
    await life.promote("two")  # it is loaded already
    assert life.running.gateway.live.current is trial
    assert {one["release_id"] for one in await life.answers(20)} == {"two"}
    assert rollout_file.read_rollout(life.releases).canary is None


async def test_a_stopped_canary_is_unloaded(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    await life.try_out("two", 100)
    assert await life.release_id() == "two"
    gone = weakref.ref(life.running.gateway.live.candidate or life)
    rollout_file.stop_canary(life.releases)
    await life.look()
    assert await life.release_id() == "one"
    gc.collect()
    assert gone() is None
    text = (await life.running.client.get("/metrics")).text
    assert 'tillwise_release_info{release_id="two"' not in text


async def test_a_known_shopper_keeps_history_token_and_impression_on_trial(life: Life) -> None:
    """The subject decides, not the visitor; items keep their meaning under another vocabulary."""
    other = another(life.factory, Other, seed=11)
    other.write("two", version=2, current=False)
    bought = {"events": [purchase("item-3", "item-4")]}
    assert (await life.running.post("/v1/events", bought, "admin")).status_code == 202
    await life.try_out("two", 100)
    answer = (await life.running.decide(consent=ALL)).json()
    assert answer["release_id"] == "two"
    reasons = {
        one["item_id"]: [why["code"] for why in one["reasons"]] for one in answer["recommendations"]
    }
    assert "bought_before" in reasons["item-3"] + reasons.get("item-4", [])
    signer = life.running.gateway.decider._signer
    assert signer.read(answer["attribution_token"]).release_id == "two"
    await life.running.quiet()
    (impression,) = [one for one in life.running.logged() if one.event_name == "decision"]
    assert impression.decision["release_id"] == "two"


async def test_the_subject_is_assigned_where_one_is_known(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    await life.try_out("two", 50)
    expected, found = [], []
    for n in range(12):
        visitor = f"shopper-{n}"
        sent = {"visitor_id": visitor, "user_id": None}
        subject = (await life.running.post("/v1/subjects/resolve", sent)).json()["subject_id"]
        answer = await life.running.decide(visitor_id=visitor, consent=ALL)
        expected.append("two" if takes_part("two", subject, 50) else "one")
        found.append(answer.json()["release_id"])
    assert found == expected
    assert set(found) == {"one", "two"}


async def test_the_shadow_is_compared_and_never_shown(life: Life) -> None:
    other = another(life.factory, Other, seed=11)
    other.write("two", version=2, current=False)
    await life.try_out("two", 100, shadow=True)
    for _ in range(8):
        assert {one["release_id"] for one in await life.answers(1)} == {"one"}
        await life.running.gateway.shadow.drain()
    role = 'role="shadow"'
    assert await life.metric(f'tillwise_release_decisions_total{{{role},rung="full"}}') == 8
    assert await life.metric("tillwise_shadow_overlap_count") == 8
    assert await life.metric("tillwise_shadow_overlap_sum") < 8  # it sells other things
    assert await life.metric('tillwise_shadow_rungs_total{outcome="same"}') == 8
    assert await life.metric(f"tillwise_release_failed_decisions_total{{{role}}}") == 0
    ready = await life.ready()
    assert (ready["release_id"], ready["trial_release_id"]) == ("one", "two")


async def test_the_shadow_gives_way_and_counts_it(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    await life.try_out("two", 100, shadow=True)
    shadow = life.running.gateway.shadow
    with life.running.gateway.decider.admission.enter():  # somebody waits for a decision
        await life.answers(20)  # one is in hand, sixteen wait
        assert await life.metric('tillwise_shadow_dropped_total{why="full"}') == 3
        await asyncio.wait_for(shadow.drain(), 30)
    assert await life.metric('tillwise_shadow_dropped_total{why="busy"}') == 17
    assert await life.metric("tillwise_shadow_overlap_count") == 0


def treacherous(factory: Factory) -> bytes:
    """A query tower that knows the probe's cart and fails for every later item."""
    table = np.zeros((4, factory.dimension), np.float32)
    return onnx_model(QUERY_TOWER, _query_tower_nodes(), {"table": table}, factory.dimension)


CART = {
    "cart_id": "cart-1",
    "currency": "USD",
    "items": [{"item_id": "item-9", "quantity": 1, "price": 100}],
}


async def write_treacherous(life: Life) -> None:
    model = treacherous(life.factory)
    another(life.factory, models={QUERY_TOWER: model}).write("two", version=2, current=False)
    await life.look()  # "one" is healthy


async def judged(life: Life, caplog: pytest.LogCaptureFixture) -> str:
    """What the guard said when it took "two" away; the same everywhere."""
    await life.running.gateway.follower.judge()
    told = rollout_file.read_rollout(life.releases).rollback_of("two")
    assert told is not None
    assert told.reason in caplog.text
    assert "release two is rolled back" in caplog.text
    assert await life.metric('tillwise_release_rollbacks_total{cause="errors"}') == 1
    assert await life.metric('tillwise_release_guard{measure="errors",side="trial"}') == 1
    await life.look()
    assert {one["release_id"] for one in await life.answers(20)} == {"one"}
    return told.reason


async def test_the_guard_ends_a_canary_that_does_worse(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    await write_treacherous(life)
    await life.try_out("two", 50)
    assert life.running.gateway.live.candidate is not None
    rungs = {one["release_id"]: one["rung"] for one in await life.answers(150, cart=CART)}
    assert rungs == {"one": "full", "two": "no_ranker"}
    reason = await judged(life, caplog)
    assert "100.0% of its decisions had a failed stage, 0.0% of the other's" in reason
    assert "0.0% of its decisions were on rung full" in reason
    assert rollout_file.read_rollout(life.releases).canary is None
    assert live_release_id(life.releases) == "one"
    await life.try_out("two", 50)  # somebody insists
    assert life.running.gateway.live.candidate is not None


async def test_the_guard_rolls_back_a_promoted_release_and_it_stays_away(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    await write_treacherous(life)
    await life.answers(60, cart=CART)
    await life.promote("two")
    assert {one["release_id"] for one in await life.answers(60, cart=CART)} == {"two"}
    await judged(life, caplog)
    assert live_release_id(life.releases) == "one"
    await life.look()
    assert await life.release_id() == "one"
    (life.releases / "current").write_text("two\n")  # a pointer alone is not somebody's word
    await life.look()
    assert await life.release_id() == "one"
    (problem,) = (await life.ready())["problems"]
    assert problem.startswith("release two was rolled back: guard: ")
    await life.promote("two")
    assert await life.release_id() == "two"


async def test_what_is_rolled_back_does_not_stay_because_the_one_before_it_is_broken(
    life: Life,
) -> None:
    await life.look()
    for version, release_id in ((2, "two"), (3, "three")):
        life.factory.write(release_id, version=version, current=False)
        await life.promote(release_id)
        await life.look()
    (life.releases / "two" / manifest.VOCABULARY).write_bytes(b"half")
    assert rollout_file.roll_back(life.releases, "three", "guard: too slow", AT) == "two"
    for _ in range(2):
        await life.look()
        assert await life.release_id() == "one"
        (problem,) = (await life.ready())["problems"]
        assert problem.startswith("release two is refused: ")
        assert problem.endswith("; keeping release one")
    await life.promote("three")  # somebody insists
    assert await life.release_id() == "three"
    assert "problems" not in await life.ready()


async def test_a_rollback_that_can_not_be_written_ends_the_canary_here(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_treacherous(life)
    await life.try_out("two", 50)
    await life.answers(150, cart=CART)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollout_file, "replace", full)
    await life.running.gateway.follower.judge()
    await life.look()
    await life.look()
    assert {one["release_id"] for one in await life.answers(20)} == {"one"}
    (problem,) = (await life.ready())["problems"]
    assert "release two could not be rolled back: [Errno 28]" in problem


async def test_the_guard_can_be_switched_off(life: Life, start: Start) -> None:
    await life.running.stop()
    folders = {"releases": life.releases, "models": life.factory.models_dir}
    off = {"guard": False, "guard_min_decisions": 50, "release_poll_seconds": NEVER}
    life = Life(life.factory, await start(**folders, **off))
    await write_treacherous(life)
    await life.try_out("two", 50)
    await life.answers(150, cart=CART)
    await asyncio.sleep(1.1)  # the guard looks once a second
    await life.look()
    assert rollout_file.read_rollout(life.releases).rolled_back == ()


async def test_a_malformed_rollout_file_is_said_and_changes_nothing(life: Life) -> None:
    life.factory.write("two", version=2, current=False)
    await life.try_out("two", 100)
    (life.releases / ROLLOUT).write_text("{")
    await life.look()
    assert await life.release_id() == "two"
    (problem,) = (await life.ready())["problems"]
    assert problem.startswith("rollout.json: ")
    (life.releases / ROLLOUT).unlink()
    await life.look()
    assert await life.release_id() == "one"
    assert "problems" not in await life.ready()


@pytest.mark.parametrize("harm", ["broken", "gone", "rolled back"])
async def test_a_start_falls_back_on_the_last_good_release(
    life: Life, start: Start, harm: str
) -> None:
    await life.look()
    life.factory.write("two", version=2, current=False)
    await life.promote("two")
    await life.look()  # healthy too
    life.factory.write("three", version=3, current=False)
    if harm == "rolled back":
        rollout = rollout_file.read_rollout(life.releases).promoted("two", "three", AT)
        taken = rollout.taken_back("three", "by hand", AT, "three")
        (life.releases / ROLLOUT).write_bytes(taken.as_bytes())
    (life.releases / "current").write_text("three\n")
    if harm == "broken":
        (life.releases / "three" / manifest.VOCABULARY).write_bytes(b"half")
    elif harm == "gone":
        shutil.rmtree(life.releases / "three")
    (life.releases / "two" / manifest.VOCABULARY).write_bytes(b"half")  # "one" is the last good
    await life.running.stop()
    again = Life(
        life.factory,
        await start(
            releases=life.releases, models=life.factory.models_dir, release_poll_seconds=NEVER
        ),
    )
    for _ in range(2):
        assert await again.release_id() == "one"
        (problem,) = (await again.ready())["problems"]
        assert "three" in problem
        assert await again.metric("tillwise_release_as_wanted") == 0
        await again.look()
    json.loads((life.releases / ROLLOUT).read_bytes())
