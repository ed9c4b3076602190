"""Shoppers of the simulator as requests: what they send, in which order, and what never."""

import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.checkouts import check_items
from benchmarks.generator import Generator, Options
from benchmarks.http_client import Request, Target
from benchmarks.load import main
from benchmarks.recorded import latest_sessions
from benchmarks.servers import command, free_port, server
from benchmarks.shoppers import Strangers, from_shoppers, renewed
from contract.errors import UserError
from contract.events import ClientEvent
from serving.api.schemas import DecideRequest
from tests.benchmarks.tiny_server import Answer, serving
from tests.e2e.shop import Shop, build
from training.data.simulate.run import simulate
from training.data.simulate.world import World

WORLD = Path(__file__).parents[2] / "training" / "worlds" / "default.json"
_KNOWN = (
    *("item_id", "title", "brand", "category_path", "text", "price", "currency", "available"),
    *("regions", "synthetic"),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def simulated(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    manifest = shop.release.releases_dir / "current"
    release = shop.release.releases_dir / manifest.read_text().strip()
    sold = pq.read_table(release / "catalogue.parquet")
    pq.write_table(
        sold.select([name for name in _KNOWN if name in sold.column_names]),
        folder / "catalogue.parquet",
    )
    output = folder / "shoppers"
    simulate(
        folder / "catalogue.parquet",
        WORLD,
        output,
        num_shoppers=80,
        num_days=14,
        seed=3,
        start=date(2026, 1, 5),
    )
    return output


def bodies(requests: list[Request], kind: str) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in requests if one.kind == kind]


def test_every_request_is_one_that_the_gateway_takes(simulated: Path) -> None:
    requests = from_shoppers(simulated, seed=0)
    decisions, batches = bodies(requests, "decide"), bodies(requests, "events")
    assert len(decisions) > 50
    assert len(batches) > 50
    for one in requests:
        if one.kind == "decide":
            DecideRequest.model_validate_json(one.body)
    events = [event for batch in batches for event in batch["events"]]
    for event in events:
        ClientEvent.model_validate_json(json.dumps(event), strict=True)
    assert len({event["event_id"] for event in events}) == len(events)
    names = {event["event_name"] for event in events}
    assert {"view_item", "add_to_cart", "begin_checkout", "purchase"} <= names


def test_shoppers_come_back_and_their_carts_grow(simulated: Path) -> None:
    requests = from_shoppers(simulated, seed=0)
    sessions_of, carts_of = defaultdict(set), defaultdict(list)
    for body in bodies(requests, "decide"):
        sessions_of[body["visitor_id"]].add(body["session_id"])
        carts_of[body["session_id"]].append(sum(one["quantity"] for one in body["cart"]["items"]))
    assert max(map(len, sessions_of.values())) > 1
    assert any(carts[-1] > carts[0] > 0 for carts in carts_of.values())
    devices = {body["context"]["device"] for body in bodies(requests, "decide")}
    assert len(devices) > 1
    assert any(body.get("recent_items") for body in bodies(requests, "decide"))


def test_behaviour_is_sent_before_the_decision_that_it_is_for(simulated: Path) -> None:
    added: dict[str, set[str]] = defaultdict(set)
    checked = 0
    for one in from_shoppers(simulated, seed=0):
        body = json.loads(one.body)
        if one.kind == "events":
            for event in body["events"]:
                if event["event_name"] == "add_to_cart":
                    added[event["session_id"]].update(line["item_id"] for line in event["items"])
        elif not body["session_id"].startswith("stranger"):
            items = {line["item_id"] for line in body["cart"]["items"]}
            assert items <= added[body["session_id"]]
            checked += len(items)
    assert checked > 50


def test_consent_is_that_of_the_recording(simulated: Path) -> None:
    table = pq.read_table(simulated / "events", columns=["session_id", "purposes"])
    purposes = dict(
        zip(table["session_id"].to_pylist(), map(set, table["purposes"].to_pylist()), strict=True)
    )
    requests = from_shoppers(simulated, seed=0)
    strangers = 0
    for body in bodies(requests, "decide"):
        agreed = {name for name, said in body["consent"].items() if said}
        if body["session_id"] in purposes:
            assert agreed == purposes[body["session_id"]]
            assert not body["gpc"]
        else:
            strangers += 1
            assert body["gpc"] or not agreed
            assert "recent_items" not in body
    assert strangers > 0
    sent = {event["visitor_id"] for one in bodies(requests, "events") for event in one["events"]}
    assert not any(visitor.startswith("stranger") for visitor in sent)


def test_the_truth_about_shoppers_is_not_read(simulated: Path, tmp_path: Path) -> None:
    before = from_shoppers(simulated, seed=0)
    hidden = [path.rename(tmp_path / path.name) for path in (simulated / "truth").glob("*.parquet")]
    columns = {name for path in hidden for name in pq.read_schema(path).names}
    try:
        after = from_shoppers(simulated, seed=0)
    finally:
        for path in hidden:
            path.rename(simulated / "truth" / path.name)
    assert len(hidden) == 4
    assert bodies(before, "decide") == bodies(after, "decide")
    shown = {"subject_id", "session_id", "region", "device", "item_id", "gpc", "category"}
    told = b"".join(one.body for one in before)
    assert "purchase_probability" in columns
    assert [name for name in columns - shown if f'"{name}"'.encode() in told] == []


def test_how_many_strangers_come(simulated: Path) -> None:
    world = World.model_validate_json(WORLD.read_bytes())
    kind = next(iter(world.archetypes.values()))
    consent = kind.consent.model_copy(update={"analytics": 0.5, "personalization": 0.5})
    alone = {"only": kind.model_copy(update={"consent": consent})}
    told = Strangers.of(world.model_copy(update={"archetypes": alone, "gpc_share": 0.2}))
    # One in four agrees to neither; of the others one in five is silenced by GPC.
    assert told.share == pytest.approx(1 - 0.8 * 0.75)
    assert told.gpc == pytest.approx(0.2 / 0.4)
    assert Strangers.of(world).share == pytest.approx(0.12, abs=0.05)


def test_an_import_is_a_source_too(shop: Shop) -> None:
    requests = from_shoppers(shop.data, seed=0)
    (first, second) = [json.loads(one.body) for one in requests[:2]]
    assert [one.kind for one in requests[:2]] == ["decide", "events"]
    assert len(first["cart"]["items"]) == 5
    assert len(second["events"][0]["items"]) == 10


def test_the_same_once_more_is_somebody_else(simulated: Path) -> None:
    for one in from_shoppers(simulated, seed=0)[:200]:
        assert one.renew is not None
        first, third = json.loads(one.body), json.loads(one.renew(one.body, 2))
        events = [(first, third)] if one.kind == "decide" else []
        for old, new in zip(first.get("events", ()), third.get("events", ()), strict=True):
            assert old.pop("event_id") != new.pop("event_id")
            then, now = (datetime.fromisoformat(two.pop("occurred_at")) for two in (old, new))
            assert then < now
            events.append((old, new))
        for old, new in events:
            for who in ("visitor_id", "session_id"):
                assert new.pop(who) == f"{old.pop(who)}~2"
            if "cart" in old:
                assert new["cart"].pop("cart_id") == f"{old['cart'].pop('cart_id')}~2"
            assert old == new


def test_later_turns_are_sent_as_other_visitors() -> None:
    bodies: list[bytes] = []
    request = Request(b'{"visitor_id":"a\\"b","session_id":"s"}', "/v1/x", "decide", renewed_now)
    payloads = Generator(
        Target("shop.example", 80, "/", False, None), [request], [(0.0, 0)] * 3, Options()
    )
    for number in range(3):
        head, _, body = payloads._payload(number).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        bodies.append(body)
    assert [json.loads(body)["visitor_id"] for body in bodies] == ['a"b', 'a"b~1', 'a"b~2']


def renewed_now(body: bytes, turn: int) -> bytes:
    return renewed(datetime.now(UTC), body, turn)


def test_sessions_are_sent_whole(simulated: Path) -> None:
    whole = {
        session[0]["session_id"]: len(session) for session in latest_sessions(simulated / "events")
    }
    table = pq.read_table(simulated / "events", columns=["session_id", "event_name"])
    names = zip(table["session_id"].to_pylist(), table["event_name"].to_pylist(), strict=True)
    assert whole == Counter(session for session, name in names if name != "decision")
    for most in (1, 40, 41, 42, 43):
        kept = latest_sessions(simulated / "events", most)
        assert all(len(session) == whole[session[0]["session_id"]] for session in kept)
        assert sum(map(len, kept)) <= most or len(kept) == 1
    some, everything = (
        Counter(
            event["session_id"]
            for one in bodies(from_shoppers(simulated, seed=0, most=most), "events")
            for event in one["events"]
        )
        for most in (50, 10**6)
    )
    assert 0 < len(some) < len(everything)
    assert all(everything[session] == number for session, number in some.items())


def test_mixed_traffic_of_a_real_gateway(
    shop: Shop, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = f"--state={tmp_path / 'state'}"
    key = command("serving", "keys", "create", "--role=checkout", state).splitlines()[-1]
    port, target, log = free_port(), tmp_path / "load.json", tmp_path / "load.hlog"
    url = f"http://127.0.0.1:{port}"
    folders = {"releases": shop.release.releases_dir, "models": shop.release.models_dir}
    told = ["run", f"--port={port}", state, *(f"--{name}={at}" for name, at in folders.items())]
    with server("serving", told, f"{url}/readyz"):
        flags = ["--url", url, "--key", key, "--shoppers", str(simulated), "--rate", "40"]
        flags += ["--seconds", "3", "--warm-up", "0", "--json", str(target), "--hdr-log", str(log)]
        flags += ["--arrivals", "even"]
        assert main(flags) in (0, 3)  # 3: too busy here to keep the schedule
    rows = {row["name"]: row["metrics"] for row in json.loads(target.read_text())["rows"]}
    assert list(rows) == ["steady", "steady/decide", "steady/events"]
    counts = {name: row["requests"]["mean"] for name, row in rows.items()}
    assert counts["steady"] == 120 == counts["steady/decide"] + counts["steady/events"]
    assert rows["steady"]["errors"]["mean"] == 0
    assert rows["steady/decide"]["rung_full"]["mean"] > 0
    assert log.read_text().count("\n") == 4  # a version, a comment, a legend, one segment


def test_shoppers_of_another_shop_are_refused() -> None:
    lines = [{"item_id": f"item-{n}", "quantity": 1} for n in range(4)]
    body = json.dumps({"cart": {"currency": "USD", "items": lines}}).encode()
    unknown = json.dumps({"valid": True, "missing_item_ids": ["item-1", "item-2", "item-3"]})
    refused = pytest.raises(UserError, match="does not know 3 of 4 items")
    with serving(lambda n: Answer(body=unknown.encode())) as there, refused:
        check_items(there.url, None, [body])
    with serving(lambda n: Answer(body=b'{"valid":true,"missing_item_ids":["item-1"]}')) as there:
        check_items(there.url, None, [body])


def test_what_is_no_folder_of_shoppers_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--rate", "5", "--seconds", "1", "--shoppers", str(tmp_path)]
    assert main(["--url", "http://127.0.0.1:9", *flags]) == 2
    assert "subjects.parquet" in capsys.readouterr().err
