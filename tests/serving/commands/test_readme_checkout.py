"""The README's checkout with a coupon, typed as it stands there."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.serving.commands.processes import ROOT, Place
from tests.serving.release_factory import Factory

TITLE = "## A checkout with a coupon\n"


@pytest.fixture
def place(release_root: Factory, tmp_path: Path) -> Place:
    """The shared release and a state folder of this test."""
    return Place(release_root, tmp_path / "state")


def commands() -> str:
    """The section's commands."""
    section = (ROOT / "README.md").read_text().partition(TITLE)[2].partition("\n## ")[0]
    return section.partition("```bash\n")[2].partition("```")[0]


def test_decide_reserve_redeem_repeat_and_roll_back(place: Place) -> None:
    keys = {
        name: place.call("keys", "create", "--role", role).stdout.strip()
        for name, role in (("KEY", "checkout"), ("ADMIN_KEY", "admin"))
    }
    with place.gateway() as served:
        done = subprocess.run(
            ["bash", "-eu"],
            input=commands(),
            env={"PATH": os.environ["PATH"], "GATEWAY": served.url} | keys,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    lines = [one for one in done.stdout.splitlines() if one.strip()]
    assert lines.pop(-2) == "The same answer."
    book, reserved, refused, redeemed, undone = map(json.loads, lines)
    assert book["version"] == 1
    assert (reserved["state"], reserved["amount"]) == ("reserved", 250)
    assert (refused["rejection_reason"], refused["due"]) == ("TotalMismatch", 2_250)
    assert redeemed["total"] == 2_250
    assert redeemed["discounts"] == [{"reservation_id": reserved["reservation_id"], "amount": 250}]
    assert redeemed["rolled_back_at"] is None
    assert undone["rolled_back_at"] is not None
    assert undone["redemption_id"] == redeemed["redemption_id"]
