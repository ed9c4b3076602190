"""The one file of thresholds: its defaults stand in the docs, and what does not fit is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from contract.segment_config import CONTEXT_SLOTS, DEFAULT, EUROPE, RULES, SegmentConfig

SHOWN = Path(__file__).parents[2] / "docs" / "segment_config.json"
PEAK = {"name": "peak", "title": "Peak", "hours": {"from_hour": 17, "until_hour": 20}}


def parsed(**told: Any) -> SegmentConfig:
    return SegmentConfig.parse(json.dumps(told).encode(), "segment_config.json")


def test_the_docs_show_the_defaults() -> None:
    assert SHOWN.read_bytes() == DEFAULT.as_bytes()
    assert SegmentConfig.parse(SHOWN.read_bytes(), "docs") == DEFAULT
    assert parsed() == DEFAULT


def test_what_is_not_named_keeps_its_default() -> None:
    told = parsed(lapsing={"days": 90}, contextual=[PEAK])
    assert (told.lapsing.days, told.lapsing.min_orders) == (90, 1)
    assert told.names == (*RULES, "peak")
    assert told.titles["peak"] == "Peak"
    assert told.first_time_buyers == DEFAULT.first_time_buyers
    assert SegmentConfig.parse(told.as_bytes(), "again") == told


def test_europe() -> None:
    held = DEFAULT.countries["mobile_shoppers_in_europe_during_peak_hours"]
    assert held == set(EUROPE)
    assert len(EUROPE) == len(set(EUROPE)) == 53
    assert {"DE", "GB", "NO", "CY"} <= held
    assert not {"US", "TR", "MA"} & held


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"lapsing": {"days": -1}}, "lapsing.days: Input should be greater than 0"),
        ({"lapsing": {"day": 3}}, "lapsing.day: Extra inputs are not permitted"),
        ({"promo_seekers": {"min_coupon_share": 1.5}}, "promo_seekers.min_coupon_share: Input"),
        ({"high_value_repeat_buyers": {"min_spend_per_order": 49.99}}, "min_spend_per_order: "),
        ({"contextual": [PEAK, PEAK]}, "the name peak is taken"),
        ({"contextual": [PEAK | {"name": "lapsing"}]}, "the name lapsing is taken"),
        ({"contextual": [{"name": "all", "title": "All"}]}, "names no condition"),
        ({"contextual": [PEAK | {"country_groups": ["asia"]}]}, "no country group asia"),
        ({"contextual": [PEAK | {"weekdays": ["someday"]}]}, "contextual.0.weekdays.0: "),
        ({"contextual": [PEAK | {"hours": {"from_hour": 5, "until_hour": 5}}]}, "are the same"),
        (
            {"contextual": [PEAK | {"name": f"c{n}"} for n in range(CONTEXT_SLOTS + 1)]},
            "contextual: Tuple should have at most 8 items",
        ),
    ],
)
def test_what_does_not_fit_is_named(told: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        parsed(**told)
    assert str(refused.value).startswith("segment_config.json: ")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_json() -> None:
    with pytest.raises(UserError, match=r"^file: Invalid JSON"):
        SegmentConfig.parse(b"{", "file")
