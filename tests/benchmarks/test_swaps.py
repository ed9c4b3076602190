"""`benchmarks.swaps` and `.boot` start what they measure, tell its parts apart, end it."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import boot, swaps
from benchmarks.swaps import Round, Seen
from benchmarks.twin import copy_with_twin
from serving.inference.releases import load_release
from tests.benchmarks.test_decide import flags_of, servers
from tests.e2e.shop import Shop, build


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build(tmp_path_factory.mktemp("shop"))


def test_swaps_under_load_fail_no_request(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "swaps.json"
    few = ["--rate", "20", "--swaps", "3", "--every", "2.5", "--rounds", "1"]
    status = swaps.main([*flags_of(shop), *few, "--json", str(target)])
    assert status in (0, 3)  # 3: too busy here to keep the schedule
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert list(rows) == ["outside", "during a swap", "a swap"]
    assert rows["outside"]["errors"]["mean"] == rows["during a swap"]["errors"]["mean"] == 0
    assert rows["outside"]["requests"]["mean"] + rows["during a swap"]["requests"]["mean"] > 150
    assert len(rows["a swap"]["seconds_to_switch"]["values"]) == 3
    said = next(note for note in written["notes"] if note.startswith("answers by release"))
    assert "tiny-1: " in said
    assert "tiny-1-twin: " in said
    # A busy machine refuses some; nobody else is left without a release.
    refused = sum(sum(rows[name]["refused"]["values"]) for name in ("outside", "during a swap"))
    assert ("None" in said) == (refused > 0), said
    assert f"None: {refused:.0f}" in said or refused == 0, said
    assert servers() == []


def test_requests_are_told_apart_by_when_they_were_due() -> None:
    """Pointer moved to b at 10; the old release's last answer was due at 12, the swap ends 12.5."""
    seen = [
        Seen(due / 2, 0.001 * due, 0.0, 200 if due != 22 else 500, "b" if due > 24 else "a")
        for due in range(40)
    ]
    one = Round(seen=seen, moved=[(10.0, "b"), (19.0, "a")])
    assert one.swaps() == [(10.0, 12.0)]  # the second was not seen through
    rows = one.split()
    assert rows["during a swap"].statuses.total() == len([10, 10.5, 11, 11.5, 12, 12.5])
    assert rows["during a swap"].errors == 1
    assert len(rows["outside"].latencies) == 34
    assert rows["during a swap"].seconds == 2.5


def test_the_twin_can_be_served(shop: Shop, tmp_path: Path) -> None:
    first, twin = copy_with_twin(shop.release.releases_dir, shop.release.models_dir, tmp_path)
    for release_id in (first, twin):
        release = load_release(tmp_path / "releases", tmp_path / "models", release_id)
        assert release.release_id == release_id
        release.models.close()


def test_boot_from_the_live_and_from_the_last_good_release(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.environ.get("TILLWISE_PROVE"):  # half a minute of compiling, for one figure
        monkeypatch.setattr(boot, "_compiled", lambda anew: nullcontext({}))
    target = tmp_path / "boot.json"
    assert boot.main([*flags_of(shop), "--runs", "1", "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    assert [row["name"] for row in written["rows"]] == list(boot.ROWS)
    said = [note for note in written["notes"] if "readiness says" in note]
    assert len(said) == 1
    assert said[0].startswith("last good release: ")
    assert "items.faiss" in said[0]
    assert servers() == []
