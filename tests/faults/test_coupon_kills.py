"""A gateway that is killed between reserving and redeeming loses nothing and doubles nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from benchmarks.postgres_process import PostgresServer
from contract.offer_checks import Used
from contract.offers import Limits
from serving.state.sql_coupon_ledger import SqlCouponLedger
from tests.faults.coupon_buyer import NOON, TTL, claim, opened, settlement

ROOT = Path(__file__).resolve().parents[2]
KILLS = 200 if os.environ.get("TILLWISE_PROVE") else 2


def _killed(place: list[str], seconds: float) -> list[tuple[str, int, str]]:
    """What a buyer was told until it was killed, `seconds` after its first reservation."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.coupon_buyer", *place],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as buyer:
        assert buyer.stdout is not None
        first = buyer.stdout.readline()
        time.sleep(seconds)
        buyer.send_signal(signal.SIGKILL)
        rest = buyer.stdout.read()
    assert buyer.returncode == -signal.SIGKILL
    # The last line may have been cut while it was written.
    lines = [one.split() for one in (first + rest).splitlines(keepends=True) if one.endswith("\n")]
    return [(what, int(number), name) for what, number, name in lines]


@pytest.mark.timeout(3_600)  # two hundred rounds
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_nothing_is_lost_and_nothing_doubled(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    random = Random(7)
    for turn in range(KILLS):
        place = [str(tmp_path / f"{turn}.sqlite")]
        if kind == "postgresql":
            server: PostgresServer = request.getfixturevalue("database")
            place = [server.url_of_own(), server.user]
        told = _killed(place, random.uniform(0.0, 0.3))
        reserved = {number: name for what, number, name in told if what == "reserved"}
        redeemed = {number: name for what, number, name in told if what == "redeemed"}
        assert reserved
        ledger = SqlCouponLedger(opened(*place))
        # Whoever repeats what was under way gets the answer that was lost, or does it now. It may
        # have begun four more than it said: what is committed is told of only afterwards.
        begun = max(reserved) // 4 * 4 + 8
        for number in range(begun):
            held = await ledger.reserve(claim(number), Limits(), NOON, NOON + TTL)
            assert held.reservation_id == reserved.get(number, held.reservation_id)
            paid = await ledger.redeem([held.reservation_id], settlement(number), NOON)
            assert paid.redemption_id == redeemed.get(number, paid.redemption_id)
            assert paid.amounts == {held.reservation_id: 500}
        assert await ledger.used(NOON) == {"ten": Used(begun, 0, 500 * begun)}
        assert (await ledger.seen({"ten": ["h"]}, (), NOON)).uses == {"ten": begun}
        ledger.close()
