"""Who is offered something, by whichever kind of log there is: simulated, or a gateway's own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.clock import to_us
from contract.errors import UserError
from tests.training.data.event_logs import write
from tests.training.data.test_logged_checkouts import (
    END,
    HALF,
    NONE,
    NOON,
    TEN,
    arm,
    decision,
    purchase,
)
from tests.training.data.test_simulate import run as simulated
from tests.training.retraining import sabotage
from tests.training.retraining.conftest import LENIENT, UNTIL, WINDOW_DAYS
from training.__main__ import main
from training.evaluation.network_chances import fitted_network
from training.gates.fairness import offers
from training.retraining.groups import audited, offers_of

WINDOW = to_us(NOON), to_us(NOON + timedelta(hours=10))


def test_the_decisions_of_an_export_are_counted_however_they_came(tmp_path: Path) -> None:
    sure = (arm("ten", TEN, 1.0, shown=True),)
    data = write(
        tmp_path,
        [
            decision("drawn", *HALF),
            decision("drawn", *NONE, hours=1),  # a later look in the same session
            decision("none", *NONE),
            decision("sure", *sure, none=0.0),
            decision("ruled", *sure, none=0.0, offers={"rules": {"ten": "r-1"}}),
            decision("refuses", *NONE, purposes=["analytics", "personalization"]),
            decision("early", *HALF, hours=-1),
            decision("late", *HALF, hours=11),
            END,
        ],
    )
    told = offers_of(data, *WINDOW, None)
    assert told.unjudged == ()
    (logged,) = told.found.values()
    assert dict(zip(logged.subject, logged.offered.tolist(), strict=True)) == {
        "drawn": 1.0,
        "none": 0.0,
        "sure": 1.0,
        "ruled": 1.0,
    }


def test_where_nobody_was_offered_anything_there_is_nothing_to_judge(tmp_path: Path) -> None:
    assert offers_of(write(tmp_path, [decision("a", *NONE), END]), *WINDOW, None).found == {}
    assert (
        offers_of(write(tmp_path / "other", [purchase("a", "milk"), END]), *WINDOW, None).found
        == {}
    )


def test_a_network_is_judged_on_an_export_or_said_not_to_be(
    catalogue_file: Path, tmp_path: Path
) -> None:
    world = simulated(catalogue_file, tmp_path / "shop", num_shoppers=300)
    network = tmp_path / "offers"
    assert main(["uplift", "--data", str(world), "--output", str(network)]) == 0
    export = write(tmp_path / "export", [decision(one, *HALF) for one in "abcd"] + [END])
    fitted = fitted_network(network)
    told = offers_of(export, *WINDOW, fitted)
    assert told.unjudged == ()
    assert len(told.found["offers of the network"].subject) == 4
    sure = [decision("a", arm("ten", TEN, 1.0, shown=True), none=0.0), END]
    told = offers_of(write(tmp_path / "sure", sure), *WINDOW, fitted)
    assert list(told.found) == ["offers as logged"]
    (said,) = told.unjudged
    assert "no offer was decided at random" in said
    with pytest.raises(UserError, match="gone"):
        fitted_network(tmp_path / "gone")


@pytest.mark.parametrize("spoil", [sabotage.unfair_offers, sabotage.unfair_export])
def test_an_unfair_log_is_refused_whichever_kind_it_is(
    spoil: sabotage.Sabotage, shop_folder: Path, tmp_path: Path
) -> None:
    data = sabotage.copied(shop_folder, tmp_path / "data")
    end = datetime(UNTIL.year, UNTIL.month, UNTIL.day, tzinfo=UTC)
    start = end - timedelta(days=WINDOW_DAYS)
    spoil(data, start)
    told = offers_of(data, to_us(start), to_us(end), None)
    verdict = offers(audited(None, told.found, LENIENT), LENIENT)
    assert not verdict.passed
    assert "offers as logged by region: west has" in verdict.reason
