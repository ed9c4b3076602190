"""The page of a retraining that was made up, with figures that a reader can redo."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.evaluation.protocols import Window
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict
from training.pipeline import Outcome
from training.recipes import recipe
from training.retraining import plots
from training.retraining.plan import Plan, Wish
from training.retraining.report import page
from training.retraining.steps import Steps

DAY = datetime(2024, 4, 1, tzinfo=UTC)
WINDOW = Window(DAY, DAY + timedelta(days=14), DAY + timedelta(days=28))
FACTS = {
    "days": [30, 31],
    "days_before": [30, 29],
    "events": 61,
    "lines": 200,
    "events_in_all": 500,
    "purchases_in_all": 120,
    "shoppers_in_all": 60,
}
FOLD = {"name": "1 of 2", "cases": 50, "HR@5": 0.4, "Recall@5": 0.2, "NDCG@5": 0.2}
STEPS = ("data", "challenger", "gates", "folds")


def _row(questions: int) -> dict[str, Any]:
    figures = {"champion": 0.2, "challenger": 0.22, "difference": 0.02}
    return figures | {"low": 0.01, "high": 0.03, "questions": questions, "units": questions}


def _results() -> dict[str, Any]:
    overall = ("HR@5", "Recall@5", "NDCG@5")
    rows = {name: _row(900) for name in overall} | {"weekend": _row(100), "region x": _row(2)}
    bins = {"edges": [0.0, 0.5, 1.0], "promised": [1.0, 1.0], "came": [1.0, 1.0], "held": [2, 2]}
    return {
        "data": {"facts": FACTS},
        "challenger": {},
        "gates": {
            "rows": rows,
            "of": {"overall": overall, "slices": ["weekend", "region x"], "cold": []},
            "reliability": [bins, bins],
            "questions": 900,
            "shoppers": 300,
        },
        "folds": {"by_shopper": [FOLD, FOLD], "by_time": [FOLD]},
    }


def _page(
    folder: Path,
    became: str,
    *verdicts: Verdict,
    only: tuple[str, ...] = STEPS,
    challenger: dict[str, Any] | None = None,
) -> str:
    wish = Wish(*(folder,), "live", folder, folder, folder, recipe("demo", None), Limits())
    steps = Steps(folder, "key")
    for name, result in (_results() | {"challenger": challenger or {}}).items():
        if name in only:
            steps.run(name, lambda result=result: result)  # type: ignore[misc]
    plan = Plan("key", "old", DAY, WINDOW, DAY + timedelta(days=30))
    return page(wish, Outcome(plan, folder, verdicts, "new", became, steps))


PASSED = Verdict.of("quality", [Check("NDCG@5", 0.1, -0.02, True, "NDCG@5 is better")])


def test_every_table_scrolls_in_its_own_box(tmp_path: Path) -> None:
    told = _page(tmp_path, "promoted", PASSED)
    assert told.count("<table") == 5
    assert told.count('<div class="wide"><table') == 5


def test_a_gate_that_judged_nothing_did_not_pass(tmp_path: Path) -> None:
    nothing = Check("groups", 0.0, None, True, "nobody's group is known", judged=False)
    told = _page(tmp_path, "promoted", PASSED, Verdict.of("fairness", [nothing]))
    row = told[: told.index("<b>Fairness</b>")].rpartition("<tr")[2]
    assert row.startswith(' class="idle"><td class="mark">not judged<')
    assert "not judged: nobody&#x27;s group is known" in told


def test_of_a_few_questions_no_change_is_told(tmp_path: Path) -> None:
    told = _page(tmp_path, "promoted", PASSED)
    cells = {name: told[told.index(f"<td>{name}</td>") :].partition("</tr>")[0] for name in
             ("weekend", "region x")}  # fmt: skip
    assert "+5.0 to +15.0 %" in cells["weekend"]  # .01 and .03 of .2
    assert "too few to judge" in cells["region x"]
    assert "good" not in cells["region x"]


@pytest.mark.parametrize(
    ("became", "only", "said"),
    [("promoted", STEPS, ", fitted on"), ("refused", STEPS[:1], ", to be fitted on")],
)
def test_the_challenger_is_told_of_in_the_right_tense(
    tmp_path: Path, became: str, only: tuple[str, ...], said: str
) -> None:
    assert f"<code>demo</code>{said} days before 15 April 2024" in _page(
        tmp_path, became, PASSED, only=only
    )


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (1.0, "What was bought there counts as a basket in the mean."),
        (0.3, "counts as 0.3 baskets in the mean, with which the baskets of the days"),
        (0.0, "Nothing was learned from them: at any weight it would have cost 1% of NDCG@5"),
    ],
)
def test_it_says_what_was_learned_from_places_that_chance_drew(
    tmp_path: Path, weight: float, said: str
) -> None:
    drawn = {"drawn_places": 1_234, "explored_weight": weight}
    told = _page(tmp_path, "promoted", PASSED, challenger=drawn)
    assert "<b>1,234 places</b>" in told
    assert said in told
    assert "Chance drew" not in _page(tmp_path / "other", "promoted", PASSED)


def test_slices_that_nobody_judges_are_not_drawn_as_if_they_were_sure() -> None:
    lost = {"champion": 0.2, "challenger": 0.19, "low": -0.012, "high": -0.008}
    rows = {name: lost | {"questions": count} for name, count in (("many", 90), ("few", 89))}
    rows["far"] = _row(90) | {"high": 5.0}
    (axes,) = plots.differences(rows, 0.05, 90).axes
    drawn = {
        (line.get_linestyle(), str(line.get_color()).upper())
        for line in axes.lines
        if set(np.round(np.asarray(line.get_xdata(), dtype=float), 6)) == {-6.0, -4.0}
    }
    assert drawn == {("-", "#B3261E"), (":", "#8A8F98")}
    assert [line.get_marker() for line in axes.lines].count(">") == 1
