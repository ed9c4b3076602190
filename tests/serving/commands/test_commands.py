"""check, keys, release, backfill and demo, as they are typed."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import features, rollout_file
from contract.frames import ADDED_COLUMNS, EVENT_SCHEMA, event_row, explode
from contract.manifest import MANIFEST, RELEASE_FILES
from contract.rollout import Canary
from contract.rollout_file import live_release_id
from serving.__main__ import COMMANDS, build_parser, main
from serving.api.demo_page import DemoItem, DemoShopper
from serving.commands import demo, demo_run
from serving.commands.held_out import split
from serving.commands.replay import describe
from serving.state.secrets import load_secrets
from tests.serving.commands.processes import Place, Served, free_port
from tests.serving.commands.small_import import CUT, baskets, write_import
from tests.serving.release_factory import Factory
from tests.serving.state.stores import Stores


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A release of this test."""
    factory = Factory(tmp_path / "own")
    factory.write("one")
    return Place(factory, tmp_path / "state")


def loaded_by(commands: list[list[str]], **environment: str) -> dict[str, list[str]]:
    """What of the gateway's heaviest parts is loaded after each of `commands`, run one after the
    other in one process."""
    code = (
        "import contextlib, io, json, sys, serving.__main__\n"
        "found = {}\n"
        f"for arguments in {commands!r}:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        serving.__main__.main(arguments)\n"
        "    heavy = {'numba', 'faiss', 'onnxruntime'} & sys.modules.keys()\n"
        "    found[' '.join(arguments)] = sorted(heavy)\n"
        "print(json.dumps(found))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[str]] = json.loads(ended.stdout)
    return found


def test_help_loads_no_compiled_loops() -> None:
    actions = [["release", one, "--help"] for one in ("list", "rollback", "push", "pull")]
    found = loaded_by(
        [["--help"], ["nonsense"], *([name, "--help"] for name in COMMANDS), *actions]
    )
    assert len(found) == len(COMMANDS) + 6
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_what_verifies_no_release_loads_no_gateway(place: Place, tmp_path: Path) -> None:
    place.factory.write("two", version=2, current=False)
    store = f"file://{tmp_path / 'store'}"
    for release_id in ("one", "two"):
        pushed = place.call("release", "push", release_id, "--promote", "--store", store)
        assert pushed.returncode == 0, pushed.stderr
    trial = Canary(release_id="two", percent=5, started_at=datetime.now(UTC))
    rollout_file.start_canary(place.factory.releases_dir, trial)
    (tmp_path / "pod").mkdir()
    light = [
        ["release", "list"],
        ["release", "status", "--url", "http://127.0.0.1:1"],
        ["release", "canary", "--stop"],
        ["release", "push", "--rollback", "--store", store],
    ]
    pod = [f"--{name}={tmp_path / 'pod' / name}" for name in ("releases", "models")]
    pull = ["release", "pull", *pod, "--store", store]
    found = loaded_by([*light, pull], **place.environment)
    assert found.pop(" ".join(pull)) == ["numba"]  # what this version computes features with
    assert {name: heavy for name, heavy in found.items() if heavy} == {}
    assert live_release_id(tmp_path / "pod" / "releases") == "one"


def test_the_help_is_that_of_every_command() -> None:
    whole = build_parser().format_help()
    assert build_parser(["--help"]).format_help() == whole
    assert build_parser(["check", "--json", "-"]).format_help() == whole
    assert all(line in whole for line in COMMANDS.values())


def test_check_prints_every_problem(place: Place, tmp_path: Path) -> None:
    report = tmp_path / "figures" / "check.json"
    found = place.call("check", "--json", str(report))
    assert found.returncode == 0, found.stderr
    assert json.loads(report.read_text())["rows"][0]["name"] == "one"
    for name in RELEASE_FILES[:2]:
        with (place.factory.releases_dir / "one" / name).open("ab") as file:
            file.write(b"x")
    found = place.call("check")
    assert found.returncode == 2
    assert all(name in found.stderr for name in RELEASE_FILES[:2])
    assert place.call("release", "verify", "one").returncode == 2
    assert place.call("check", "--release", "none").returncode == 2


def test_keys(place: Place) -> None:
    created = place.call("keys", "create", "--role", "collect")
    secret = created.stdout.strip()
    assert secret.startswith("tw_collect_")
    listed = place.call("keys", "list").stdout
    assert secret not in listed
    key_id = listed.split()[0]
    assert "in force" in listed
    assert place.call("keys", "revoke", key_id).returncode == 0
    assert "revoked" in place.call("keys", "list").stdout
    assert place.call("keys", "revoke", key_id).returncode == 2
    unknown = place.call("keys", "create", "--role", "owner")
    assert unknown.returncode == 2
    assert len(unknown.stderr.splitlines()) == 1


def test_releases(place: Place) -> None:
    place.factory.write("two", version=2, current=False)
    (place.factory.releases_dir / "three").mkdir()
    listed = place.call("release", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["!", "three"], ["*", "one"], ["two", "tiny"]]
    copytree(place.factory.releases_dir / "one", place.factory.releases_dir / "copied")
    listed = place.call("release", "list").stdout.splitlines()
    assert listed[0].split()[:2] == ["!", "copied"]
    assert "is that of release one" in listed[0]
    assert [line[0] for line in listed] == ["!", "!", "*", " "]
    assert place.call("release", "verify").returncode == 0
    with (place.factory.releases_dir / "two" / MANIFEST).open("ab") as file:
        file.write(b" ")
    refused = place.call("release", "promote", "two")
    assert refused.returncode == 2
    assert MANIFEST in refused.stderr
    assert (place.factory.releases_dir / "current").read_text() == "one\n"


def test_promote_mends_a_missing_pointer(place: Place) -> None:
    (place.factory.releases_dir / "current").unlink()
    assert place.call("check").returncode == 2
    assert place.call("release", "promote", "one").returncode == 0
    assert (place.factory.releases_dir / "current").read_text() == "one\n"
    assert place.call("check").returncode == 0


def _killed_between_the_files(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    def dies(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.environ.update(environment)
    rollout_file._point = dies  # type: ignore[assignment]
    main(arguments)


@pytest.mark.parametrize("seen_by", ["release list", "a running gateway", "a start"])
def test_a_switch_that_is_killed_is_finished_by_whoever_comes_next(
    place: Place, seen_by: str
) -> None:
    releases = place.factory.releases_dir
    rollout_file.promote(releases, "one", datetime.now(UTC))
    place.factory.write("two", version=2, current=False)

    def killed(*arguments: str) -> None:
        process = multiprocessing.get_context("fork").Process(
            target=_killed_between_the_files, args=(arguments, place.environment)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    for arguments, before, after in (
        (("release", "promote", "two"), "one", "two"),
        (("release", "rollback", "--reason", "too slow"), "two", "one"),
    ):
        with place.gateway() if seen_by == "a running gateway" else nullcontext() as served:
            killed(*arguments)
            if seen_by == "release list":
                assert live_release_id(releases) == before
                assert f"* {after}" in place.call("release", "list").stdout
            elif served is None:
                with place.gateway() as served:
                    assert _release_of(served) == after
            else:
                until = time.monotonic() + 60
                while _release_of(served) != after and time.monotonic() < until:
                    time.sleep(0.1)
        assert live_release_id(releases) == after
        assert rollout_file.read_rollout(releases).next_live is None
    told = rollout_file.read_rollout(releases).rollback_of("two")
    assert told is not None
    assert told.reason == "too slow"


def test_a_rollback_to_what_is_broken_says_how_to_go_on(place: Place) -> None:
    releases = place.factory.releases_dir
    for number, release_id in enumerate(("two", "three"), start=2):
        place.factory.write(release_id, version=number, current=False)
        assert place.call("release", "promote", release_id).returncode == 0
    (releases / "two" / MANIFEST).unlink()
    refused = place.call("release", "rollback")
    assert (refused.returncode, live_release_id(releases)) == (2, "three")
    assert "release two is refused" in refused.stderr
    assert "go back further with `tillwise-serve release promote ID`" in refused.stderr
    assert place.call("release", "promote", "one").returncode == 0
    assert live_release_id(releases) == "one"


def _release_of(served: Served) -> str:
    body: dict[str, str] = httpx.get(f"{served.url}/readyz", timeout=10).json()
    return body["release_id"]


def test_a_release_is_tried_promoted_and_rolled_back(place: Place, tmp_path: Path) -> None:
    place.factory.write("two", version=2, current=False)
    report = tmp_path / "figures.json"

    def said(*arguments: str) -> str:
        ended = place.call("release", *arguments, "--json", str(report))
        assert ended.returncode == 0, ended.stderr
        assert json.loads(report.read_text())["command"] == f"release {arguments[0]}"
        return ended.stdout

    def listed() -> dict[str, str]:
        lines = said("list").splitlines()
        return {line[2:].split()[0]: line for line in lines}

    said("canary", "two", "--percent", "12.5")
    assert listed()["two"].endswith("canary 12.5 %")
    said("canary", "two", "--shadow")
    assert listed()["two"].endswith("shadow 100 %")
    said("canary", "--stop")
    assert "shadow" not in listed()["two"]
    said("canary", "two")
    assert listed()["two"].endswith("canary 10 %")
    said("promote", "two")
    assert listed()["one"].endswith("  previous")
    assert listed()["two"].startswith("* two")
    assert "live since 20" in listed()["two"]
    assert "canary" not in listed()["two"]
    said("rollback", "--reason", "sells too little")
    assert listed()["one"].startswith("* one")
    assert listed()["two"].endswith("(sells too little)")
    refused = place.call("release", "canary", "two")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (3, 1)
    assert "sells too little" in refused.stderr
    said("canary", "two", "--again")
    said("promote", "two")
    assert "rolled back" not in listed()["two"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("canary",), "name the release"),
        (("canary", "--stop"), "no canary"),
        (("canary", "two", "--stop"), "--stop takes no release"),
        (("canary", "two", "--percent", "0"), "--percent"),
        (("canary", "two", "--percent", "101"), "--percent"),
        (("canary", "two", "--percent", "nan"), "--percent"),
        (("canary", "none"), "no such release"),
        (("canary", "one"), "live one already"),
        (("rollback",), "no release to go back to"),
        (("promote", "../one"), "no release id"),
        (("status", "--url", "http://127.0.0.1:1"), "no gateway answers"),
        (("status", "--url", "nonsense"), "no gateway answers"),
    ],
)
def test_what_can_not_be_done_with_releases_is_one_line(
    place: Place, arguments: tuple[str, ...], said: str
) -> None:
    place.factory.write("two", version=2, current=False)
    before = sorted(path.name for path in place.factory.releases_dir.iterdir())
    ended = place.call("release", *arguments)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert said in ended.stderr
    kept = {".rollout.lock"}
    after = {path.name for path in place.factory.releases_dir.iterdir()} - kept
    assert sorted(after) == before
    assert place.call("release", "list").stdout.count("*") == 1


@pytest.mark.parametrize(
    "answers", [("<html>", "<html>"), ("[]", ""), ("{}", "up 1\n"), ("{}", "tillwise_release {{")]
)
def test_what_is_no_gateway_has_no_status(place: Place, answers: tuple[str, str]) -> None:
    said = dict(zip(("/readyz", "/metrics"), answers, strict=True))

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = said[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        ended = place.call("release", "status", "--url", url)
        server.shutdown()
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert f"what answers at {url} is no gateway" in ended.stderr


def test_a_broken_release_is_neither_tried_nor_gone_back_to(place: Place) -> None:
    place.factory.write("two", version=2, current=False)
    assert place.call("release", "promote", "two").returncode == 0
    with (place.factory.releases_dir / "one" / RELEASE_FILES[0]).open("ab") as file:
        file.write(b"x")
    for arguments in (("canary", "one"), ("rollback",)):
        refused = place.call("release", *arguments)
        assert refused.returncode == 2
        assert RELEASE_FILES[0] in refused.stderr
    current = place.factory.releases_dir / "current"
    assert current.read_text() == "two\n"
    current.write_text("gone\n")
    assert "! current: names release gone" in place.call("release", "list").stdout
    (place.factory.releases_dir / "rollout.json").write_text("{")
    mangled = place.call("release", "list")
    assert mangled.returncode == 2
    assert "rollout.json" in mangled.stderr


def test_backfill_leads_to_the_states_of_a_replay(place: Place, tmp_path: Path) -> None:
    source = write_import(tmp_path / "import")
    part = min((source / "events").glob("*.parquet"))  # one of an earlier version
    pq.write_table(pq.read_table(part).drop_columns(list(ADDED_COLUMNS)), part)
    report = tmp_path / "backfill.json"
    arguments = ("backfill", "--data", str(source), "--until", "2017-11-20")
    found = place.call(*arguments, "--json", str(report))
    assert found.returncode == 0, found.stderr
    row = json.loads(report.read_text())["rows"][0]
    before = [event_row(event) for event in baskets() if event.occurred_at < CUT]
    assert row["metrics"]["events"]["mean"] == len(before)
    states = Stores(place.state, load_secrets(place.state, None)).read_seed()
    expected = features.replay(explode(pa.Table.from_pylist(before, EVENT_SCHEMA)))
    assert states.keys() == expected.keys()
    for subject, state in expected.items():
        assert all(np.array_equal(states[subject][name], rows) for name, rows in state.items())
    again = place.call(*arguments)
    assert again.returncode == 0
    assert "skipped" in again.stdout
    # A seed of other feature definitions, as an older version left it, is made again.
    with np.load(place.state / "seed.npz") as held:
        older = dict(held) | {"feature_hash": np.array("0" * 64)}
    np.savez(place.state / "seed.npz", **older)
    rebuilt = place.call(*arguments)
    assert rebuilt.returncode == 0
    assert "skipped" not in rebuilt.stdout
    remade = Stores(place.state, load_secrets(place.state, None)).read_seed()
    assert remade.keys() == states.keys()
    other = place.call("backfill", "--data", str(source), "--until", "2017-11-01")
    assert other.returncode == 2
    assert "fresh" in other.stderr


@pytest.mark.parametrize("harm", ["no folder", "no subjects", "not parquet", "no column", "empty"])
def test_a_malformed_import_is_one_clear_line(place: Place, tmp_path: Path, harm: str) -> None:
    source = tmp_path / "import"
    if harm != "no folder":
        write_import(source)
    parts = sorted((source / "events").glob("*"))
    if harm == "no subjects":
        (source / "subjects.parquet").unlink()
    elif harm == "not parquet":
        parts[0].write_bytes(b"nonsense")
    elif harm == "no column":
        for part in parts:
            pq.write_table(pq.read_table(part).drop_columns(["session_id"]), part)
    elif harm == "empty":
        for part in parts:
            part.write_bytes(b"")
    found = place.call("backfill", "--data", str(source))
    assert found.returncode == 2
    lines = [line for line in found.stderr.splitlines() if line.startswith("tillwise-serve:")]
    assert len(lines) == 1
    assert "Traceback" not in found.stderr
    assert str(source) in lines[0]


def test_a_basket_is_cut_as_the_protocol_says() -> None:
    digests = {item: hashlib.sha256(f"7:{item}".encode()).hexdigest() for item in "abcde"}
    first, second, *others = sorted(digests, key=lambda item: digests[item])
    assert split("7", ["a", "b", "c", "d", "e"]) == ([first, second], others)
    assert split("7", ["e", "d", "c", "b", "a"]) == ([first, second], others)


def test_the_demo_replays_a_checkout_and_ends(place: Place, tmp_path: Path) -> None:
    source = write_import(tmp_path / "import")
    report = tmp_path / "demo.json"
    arguments = ("--data", str(source), "--port", str(free_port()), "--exit")
    found = place.run("demo", *arguments, "--json", str(report))
    assert found.returncode == 0, found.stderr
    assert "release one never saw" in found.stdout
    assert "Rung full; degraded: none" in found.stdout
    assert found.stdout.count("  score ") == 5
    assert "Traceback" not in found.stderr
    names = [row["name"] for row in json.loads(report.read_text())["rows"]]
    assert names == ["backfill", "replayed checkout"]


def test_the_demo_starts_afresh_in_its_own_folder_only(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_run, "serve", lambda *_, **__: None)
    monkeypatch.setattr(demo_run, "configure_logging", lambda _: None)
    first, second = write_import(tmp_path / "first"), write_import(tmp_path / "second")
    part = sorted((second / "events").glob("*"))[0]
    pq.write_table(pq.read_table(part).slice(1), part)
    port = ("--port", str(free_port()), "--exit")
    own = Place(place.factory, tmp_path / demo.STATE)
    for source in (first, first, second):
        found = own.call("demo", "--data", str(source), *port, TILLWISE_STATE=None)
        assert found.returncode == 0, found.stderr
    assert place.call("demo", "--data", str(first), *port).returncode == 0
    refused = place.call("demo", "--data", str(second), *port)
    assert refused.returncode == 2
    assert "fresh" in refused.stderr


def test_help_names_every_command(place: Place) -> None:
    shown: Any = place.call("--help").stdout
    assert all(name in shown for name in ("run", "check", "keys", "release", "backfill", "demo"))


def test_listing_keys_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "typo"
    assert main(["keys", "list", "--state", str(missing)]) == 2
    assert not missing.exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("flag", [["--json"], ["--json", "-"]])
def test_json_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: list[str]
) -> None:
    assert main(["keys", "create", "--role", "admin", "--state", str(tmp_path), *flag]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["command"] == "keys create"
    assert said.err.startswith("tw_admin_")


@pytest.mark.parametrize("bought", [True, False])
def test_the_star_is_explained_only_where_there_is_one(bought: bool) -> None:
    item = DemoItem.model_construct(item_id="item-1")
    shopper = DemoShopper.model_construct(label="x", cart=(), bought_too=(item,) * bought)
    suggested = [{"item_id": "item-1", "score": 1.0, "reasons": []}]
    answer = {"recommendations": suggested, "degraded": [], "timings_ms": {}, "rung": "full"}
    answer |= {"offers": [], "payment_method_order": [], "shipping_option_order": []}
    shelf = SimpleNamespace(item=lambda _: None)
    text = describe(
        shopper, answer | {"release_id": "r"}, cast(Any, shelf), datetime(2017, 1, 1), 0
    )
    assert ("(*)" in text) == bought
