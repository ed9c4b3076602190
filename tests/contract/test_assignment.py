"""Who takes part in a trial is the same everywhere and for ever, and as many as were asked for."""

import json

from hypothesis import given
from hypothesis import strategies as st

from contract.assignment import place, takes_part
from tests.contract.golden import FOLDER


def test_golden_cases() -> None:
    """Whoever changes the function sends shoppers on trial to the other side."""
    cases = json.loads((FOLDER / "assignment.json").read_text())
    assert len(cases) == 12
    for case in cases:
        found = place(case["salt"], case["stable_id"])
        assert found == case["place"], case
        assert takes_part(case["salt"], case["stable_id"], 25) == (case["place"] < 0.25)


def test_a_share_is_that_share_and_salts_are_unlike() -> None:
    ids = [f"visitor-{n}" for n in range(20_000)]
    first = {one for one in ids if takes_part("release-a", one, 10)}
    second = {one for one in ids if takes_part("release-b", one, 10)}
    # 2,000 expected, standard deviation sqrt(20,000 * .1 * .9) = 42; both: 200 and 14.
    assert abs(len(first) - 2_000) < 5 * 42
    assert abs(len(first & second) - 200) < 5 * 14


@given(st.text(max_size=40), st.floats(0, 100), st.floats(0, 100))
def test_who_takes_part_stays_when_the_share_grows(one: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= place("salt", one) < 1
    assert not takes_part("salt", one, low) or takes_part("salt", one, high)
    assert not takes_part("salt", one, 0)
    assert takes_part("salt", one, 100)
