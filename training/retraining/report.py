"""The report of a retraining: one page that stands alone, the answer first, for somebody who
decides without reading code; and the same as JSON."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.whole_file import replace
from training.gates.verdict import Verdict
from training.retraining import plots
from training.retraining.page import STYLE
from training.retraining.plan import Wish

if TYPE_CHECKING:
    from training.pipeline import Outcome

REPORT, FIGURES = "report.html", "report.json"
MEANING = {
    "data_health": "Are the fresh events a whole stretch of this shop, in its own words?",
    "drift": "Do purchases look like those that were learned from? PSI and KS say how far two "
    "distributions lie apart: 0 is alike.",
    "leakage": "Did anything reach the models that is only known after the purchase?",
    "quality": "Are the suggestions at least as good as those of the release that is live?",
    "slices": "Is no kind of shopper, cart or product much worse off?",
    "cold_start": "Are new products and new shoppers served as well as before?",
    "calibration": "Do the ranker's probabilities come true?",
    "fairness": "Are groups of people served, and offered, alike?",
    "uplift": "Do the offers of the new network pay for themselves?",
    "parity": "Do the exported files answer as the trained models do?",
    "latency": "Is a decision as quick as before?",
}
_BECAME = {
    "promoted": ("good", "Passed, and live", "The new release passed every gate and is live."),
    "on trial": (
        "good",
        "Passed, and on trial",
        "The new release passed every gate and is on trial for a share of the shoppers.",
    ),
    "released": ("good", "Passed", "The new release passed every gate. Nothing serves it yet."),
    "refused": (
        "bad",
        "Refused",
        "The new model was refused. The shop goes on with the release it had.",
    ),
    "taken back": (
        "bad",
        "Taken back",
        "The new release passed the gates, but did not stand its trial; it was not promoted.",
    ),
}


def write(folder: Path, wish: Wish, outcome: "Outcome") -> None:
    """`report.html` and `report.json` into `folder`, each whole or not at all."""
    replace(folder / FIGURES, (json.dumps(figures(outcome), indent=1) + "\n").encode())
    replace(folder / REPORT, page(wish, outcome).encode())


def figures(outcome: "Outcome") -> dict[str, Any]:
    """Everything in the report that is a figure or a word of a gate."""
    return {
        "became": outcome.became,
        "refused_by": [one.gate for one in outcome.refused],
        "release_id": outcome.release_id,
        "champion": outcome.plan.champion,
        "window": [
            outcome.plan.window.train_until.isoformat(),
            outcome.plan.window.test_until.isoformat(),
        ],
        "steps": outcome.steps.results,
        "verdicts": [one.as_json() for one in outcome.verdicts],
    }


def page(wish: Wish, outcome: "Outcome") -> str:
    """The page."""
    results = outcome.steps.results
    kind, title, sentence = _BECAME[outcome.became]
    parts = [
        f'<header class="{kind}"><p class="kicker">Retraining of '
        f"{outcome.plan.created_at:%d %B %Y, %H:%M} UTC</p><h1>{title}</h1>"
        f"<p>{sentence}</p>{_why(outcome)}</header>",
        _summary(wish, outcome),
        _gates(outcome.verdicts),
    ]
    if "gates" in results:
        parts += [_table(results["gates"], wish), _calibration(results["gates"])]
    parts.append(_data(results["data"]["facts"]))
    if "folds" in results:
        parts.append(_folds(results["folds"]))
    if "gates" in results:
        parts.append(_how(outcome))
    parts.append(_details(outcome.verdicts))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Retraining: {title}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _why(outcome: "Outcome") -> str:
    if outcome.became == "taken back":
        return f"<p>{_text(outcome.steps.results['promote']['reason'])}.</p>"
    items = [f"<li><b>{_name(one.gate)}</b>: {_text(one.reason)}</li>" for one in outcome.refused]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _summary(wish: Wish, outcome: "Outcome") -> str:
    window, results = outcome.plan.window, outcome.steps.results
    last = f"{window.test_until:%d %B %Y}"
    fitted = "fitted" if "challenger" in results else "to be fitted"
    said = [
        f"The <b>champion</b> is release <code>{_text(outcome.plan.champion)}</code>, fitted on "
        f"days before {outcome.plan.champion_until:%d %B %Y}.",
        f"The <b>challenger</b> is recipe <code>{_text(wish.recipe.name)}</code>, {fitted} on "
        f"days before {window.train_until:%d %B %Y}.",
    ]
    said += _explored(wish, results.get("challenger", {}))
    if "gates" in results:
        found = results["gates"]
        row = found["rows"]["NDCG@5"]
        base = row["champion"] or 1.0
        change, low, high = (
            100 * v / base for v in (row["challenger"] - row["champion"], row["low"], row["high"])
        )
        hits = found["rows"]["HR@5"]
        verb = "better" if change >= 0 else "worse"
        said += [
            f"Both were asked the same <b>{found['questions']:,} questions</b> of "
            f"{found['shoppers']:,} shoppers: baskets from {window.train_until:%d %B %Y} up to "
            f"{last}, of which they saw half and had to find the rest.",
            f"The challenger is <b>{abs(change):.1f} % {verb}</b> (NDCG@5; with 95 % certainty "
            f"between {low:+.1f} % and {high:+.1f} %). One of its five suggestions was bought in "
            f"{hits['challenger']:.1%} of the baskets, of the champion's in "
            f"{hits['champion']:.1%}.",
        ]
    else:
        said.append(
            f"The fresh window, {window.train_until:%d %B %Y} up to {last}, was refused before "
            "anything was fitted: what is wrong with data is wrong with every model of it."
        )
    if outcome.release_id:
        said.append(f"The new release is <code>{_text(outcome.release_id)}</code>.")
    return _section("In short", f"<ul>{''.join(f'<li>{one}</li>' for one in said)}</ul>")


def _explored(wish: Wish, challenger: Mapping[str, Any]) -> list[str]:
    """What was learned from places of lists that chance drew, where it drew any."""
    places, weight = challenger.get("drawn_places", 0), challenger.get("explored_weight", 0.0)
    if not places:
        return []
    told = f"Chance drew <b>{places:,} places</b> of the lists that were shown. "
    if not weight:
        lost = f"{wish.recipe.explored_loss:.0%} of NDCG@5 on the days that models are chosen by"
        return [f"{told}Nothing was learned from them: at any weight it would have cost {lost}."]
    full = weight == wish.recipe.explored_weight
    fewer = (
        ""
        if full
        else ", with which the baskets of the days that models are chosen by were completed best"
    )
    baskets = "a basket" if weight == 1 else f"{weight:g} baskets"
    return [f"{told}What was bought there counts as {baskets} in the mean{fewer}."]


def _gates(verdicts: Sequence[Verdict]) -> str:
    rows = [
        f'<tr class="{_kind(one)}"><td class="mark">{_mark(one)}</td>'
        f"<td><b>{_name(one.gate)}</b><br>"
        f"<small>{_text(MEANING[one.gate])}</small></td><td>{_text(_told(one))}</td></tr>"
        for one in verdicts
    ]
    asked = {one.gate for one in verdicts}
    rows += [
        f'<tr class="idle"><td class="mark">not asked</td><td><b>{_name(name)}</b><br>'
        f"<small>{_text(said)}</small></td><td>a gate before it refused</td></tr>"
        for name, said in MEANING.items()
        if name not in asked
    ]
    return _section("The gates", _wide(rows, "gates"))


def _kind(one: Verdict) -> str:
    return "bad" if not one.passed else "good" if one.judged else "idle"


def _mark(one: Verdict) -> str:
    return "refused" if not one.passed else "passed" if one.judged else "not judged"


def _told(one: Verdict) -> str:
    """The reason; where all is well and one figure says it, that figure."""
    figure = one.passed and one.judged and one.gate in ("quality", "latency")
    return one.checks[0].said if figure else one.reason


def _table(found: Mapping[str, Any], wish: Wish) -> str:
    head = (
        "<tr><th></th><th>champion</th><th>challenger</th><th>change</th>"
        "<th>interval of the change</th><th>questions</th></tr>"
    )
    body = []
    for title, key in (("All questions", "overall"), ("By slice", "slices"), ("New ones", "cold")):
        body.append(f'<tr class="group"><th colspan="6">{title}</th></tr>')
        least = 0 if key == "overall" else wish.limits.min_slice
        body += [_row(name, found["rows"][name], least) for name in found["of"][key]]
    drawn = {name: found["rows"][name] for key in ("slices", "cold") for name in found["of"][key]}
    picture = plots.svg(
        plots.differences(drawn, wish.limits.slice_loss, wish.limits.min_slice), "slices"
    )
    return _section(
        "Champion against challenger",
        f"<figure>{picture}<figcaption>Each line is a slice of the same questions. Left of zero "
        "the challenger is worse; a line that crosses zero may be chance. Blue is surely better, "
        "red surely worse, dotted has too few questions to judge; an arrow goes on."
        "</figcaption></figure>"
        "<p>HR@5: one of the five suggestions was bought. Recall@5: the share of what was bought "
        "that was suggested. NDCG@5: the same, with what stands higher counting more. Intervals "
        "are 95 %, over shoppers; of slices wider, because many are looked at.</p>"
        + _wide([head, *body]),
    )


def _row(name: str, row: Mapping[str, Any], least: int) -> str:
    """Of fewer than `least` questions the figures, and no word on their change."""
    base = row["champion"] or 1.0
    change, low, high = (
        100 * v / base for v in (row["challenger"] - row["champion"], row["low"], row["high"])
    )
    enough = row["questions"] >= least
    kind = "" if not enough else "bad" if high < 0 else "good" if low > 0 else ""
    interval = f"{low:+.1f} to {high:+.1f} %" if enough else "too few to judge"
    return (
        f'<tr><td>{_text(name)}</td><td class="n">{row["champion"]:.4f}</td>'
        f'<td class="n">{row["challenger"]:.4f}</td><td class="n {kind}">{change:+.1f} %</td>'
        f'<td class="n">{interval}</td>'
        f'<td class="n">{row["questions"]:,}</td></tr>'
    )


def _calibration(found: Mapping[str, Any]) -> str:
    picture = plots.svg(plots.reliability(found["reliability"]), "calibration")
    return _section(
        "Do probabilities come true?",
        f"<figure>{picture}<figcaption>The ranker says how likely each item is to be bought. On "
        "the dashed line it is exactly right; below it, it promises too much."
        "</figcaption></figure>",
    )


def _data(facts: Mapping[str, Any]) -> str:
    picture = plots.svg(plots.days(facts["days_before"], facts["days"]), "days")
    return _section(
        "The fresh events",
        f"<p>{facts['events']:,} events with {facts['lines']:,} lines of items in the window; "
        f"{facts['events_in_all']:,} events, {facts['purchases_in_all']:,} purchases of "
        f"{facts['shoppers_in_all']:,} shoppers in all.</p><figure>{picture}</figure>",
    )


def _folds(folds: Mapping[str, Any]) -> str:
    picture = plots.svg(plots.fold_bars(folds), "folds")
    rows = [
        f'<tr><td>{_text(str(one["name"]))}</td><td class="n">{one["cases"]:,}</td>'
        + "".join(f'<td class="n">{one[m]:.4f}</td>' for m in ("HR@5", "Recall@5", "NDCG@5"))
        + "</tr>"
        for one in (*folds["by_shopper"], *folds["by_time"])
    ]
    head = "<tr><th>fold</th><th>questions</th><th>HR@5</th><th>Recall@5</th><th>NDCG@5</th></tr>"
    return _section(
        "Cross-validation",
        "<p>The whole pipeline once more, each time without a part of the shoppers, or up to an "
        "earlier day. Folds fit on a quarter of the examples, and people nothing was learned from "
        "are harder to serve: what counts is how little the folds differ, not their level.</p>"
        f"<figure>{picture}</figure>{_wide([head, *rows])}",
    )


def _how(outcome: "Outcome") -> str:
    later = (outcome.plan.window.train_until - outcome.plan.champion_until).days
    steps = [
        f'<tr><td>{_text(name)}</td><td class="n">{seconds:.1f} s</td>'
        f"<td>{'done before' if name in outcome.steps.resumed else ''}</td></tr>"
        for name, seconds in outcome.steps.seconds.items()
    ]
    return _section(
        "How this was measured",
        "<p>Both were fitted before the window begins, and both were told each shopper's history "
        "up to that day and no further. Items that only one of them knows count for both: what it "
        f"does not know, it misses. The challenger has seen {later} more days than the champion; "
        "that is what retraining is for, and part of what is measured here: a champion fitted "
        "again on those days would have seen as much. What was measured is what goes out: the "
        "challenger is not fitted once more on the window, so next time nothing of it leaks.</p>"
        + _wide(["<tr><th>step</th><th>took</th><th></th></tr>", *steps]),
    )


def _details(verdicts: Iterable[Verdict]) -> str:
    rows = [
        f'<tr><td>{_name(one.gate)}</td><td class="{"" if check.passed else "bad"}">'
        f"{_text(check.said)}</td></tr>"
        for one in verdicts
        for check in one.checks
    ]
    return (
        "<section><details><summary>Every check that was made</summary>"
        f"{_wide(rows)}</details></section>"
    )


def _wide(rows: Iterable[str], kind: str = "plain") -> str:
    """A table that scrolls in its own box where the screen is narrow, so that the page does not."""
    return f'<div class="wide"><table class="{kind}">{"".join(rows)}</table></div>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _name(gate: str) -> str:
    return gate.replace("_", " ").capitalize()


def _text(said: str) -> str:
    return html.escape(said)
