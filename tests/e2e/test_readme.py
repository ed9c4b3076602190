"""The checkout with a coupon that README has one type, typed against a real gateway."""

import json
import os
import re
import subprocess
from pathlib import Path

from tests.e2e.shop import Demo

README = Path(__file__).parents[2] / "README.md"


def test_the_checkout_with_a_coupon_goes_as_it_is_written(own_demo: Demo) -> None:
    (script,) = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    named = {
        "GATEWAY": own_demo.url,
        "KEY": own_demo.key("checkout"),
        "ADMIN_KEY": own_demo.key("admin"),
        "NO_PROXY": "127.0.0.1",
    }
    seen = set()
    for _ in range(2):  # whoever tries it again is not refused
        typed = subprocess.run(
            ["bash", "-e", "-c", script],
            env=os.environ | named,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert typed.returncode == 0, typed.stdout + typed.stderr
        assert typed.stdout.count("The same answer.\n") == 1
        told = [json.loads(line) for line in typed.stdout.splitlines() if line.startswith("{")]
        _, reserved, refused, redeemed, undone = told
        assert (reserved["state"], reserved["amount"]) == ("reserved", 250)
        assert (refused["rejection_reason"], refused["due"]) == ("TotalMismatch", 2250)
        assert redeemed["rolled_back_at"] is None
        assert undone == redeemed | {"rolled_back_at": undone["rolled_back_at"]}
        assert undone["rolled_back_at"] is not None
        seen.add(redeemed["transaction_id"])
    assert len(seen) == 2
