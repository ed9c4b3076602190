"""What a data card says of consent: what was read, and no more than that."""

from dataclasses import replace

from training.export.cards import data_card
from training.run_folder import Run


def test_consent_is_not_claimed_for_an_import(run: Run) -> None:
    told = run.data | {"purposes": {"analytics, personalization": 7}, "consent_recorded": False}
    card = data_card(replace(run, data=told), "one")
    assert "consent was not recorded with these data" in card["consent"]
    assert card["learned_from"]["purposes"] == {"analytics, personalization": 7}


def test_consent_of_a_log_is_counted(run: Run) -> None:
    card = data_card(replace(run, data=run.data | {"consent_recorded": True}), "one")
    assert "`learned_from` counts the purchases" in card["consent"]
    assert "not" not in card["consent"]


def test_of_earlier_runs_nothing_is_known(run: Run) -> None:
    assert "is not known" in data_card(replace(run, data={}), "one")["consent"]


def test_purposes_are_counted_when_they_are_read(run: Run) -> None:
    assert sum(run.data["purposes"].values()) >= run.data["purchases"]
    assert all("personalization" in one for one in run.data["purposes"])
