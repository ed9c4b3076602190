"""The report of an audit as one HTML file that a merchant can read: first what it comes to, in
sentences, then every figure with its interval, the pictures, the weeks, and what evenness costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil

from contract.fairness import Comparison, FairnessLimits, FairnessReport, breaches, small_groups
from training.evaluation.fairness_offers import Priced
from training.evaluation.fairness_plots import group_plot, price_plot, weekly_plot

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;font-size:.85rem;margin:.5rem 0 1.5rem}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}
.beyond{border-left:.3rem solid #D55E00;padding-left:.7rem}
.within{border-left:.3rem solid #009E73;padding-left:.7rem}
.open{border-left:.3rem solid #888;padding-left:.7rem}
svg{max-width:100%;height:auto}.wide{overflow-x:auto}small{color:#555}
"""


@dataclass(frozen=True)
class Part:
    """One thing that was audited, with its weeks and mitigations where there are any."""

    title: str
    about: str
    report: FairnessReport
    weeks: Sequence[tuple[str, FairnessReport]] = ()
    prices: Sequence[Priced] = ()
    gated: bool = True  # whether a gate of ours judges it


@dataclass(frozen=True)
class Page:
    """All parts under the same limits."""

    parts: Sequence[Part]
    limits: FairnessLimits
    notes: Sequence[str] = field(default_factory=tuple)

    def html(self) -> str:
        """The whole file."""
        body = "".join(
            [
                "<h1>Are our shoppers treated alike?</h1>",
                *(f"<p><small>{escape(note)}</small></p>" for note in self.notes),
                *self._summary(),
                *(text for part in self.parts for text in self._part(part)),
            ]
        )
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        title = "<title>Fairness report</title>"
        return (
            f'<!doctype html><html lang="en"><head>{head}{title}<style>{_STYLE}</style></head>'
            f"<body>{body}</body></html>\n"
        )

    def _summary(self) -> Iterator[str]:
        yield "<h2>In short</h2>"
        for part in self.parts:
            yield f"<h3>{escape(part.title)}</h3>"
            for one in part.report.comparisons:
                css, text = sentence(one, self.limits)
                yield f'<p class="{css}">{escape(text)}</p>'
            if part.gated:
                refused = breaches(part.report, self.limits)
                gates = ", ".join(sorted({one.gate for one in refused}))
                verdict = f"Refused by the gate {gates}." if gates else "Passes."
                yield f"<p><b>{escape(verdict)}</b></p>"
            few = [f"{a}: {group} ({n} people)" for a, group, n in small_groups(part.report)]
            if few:
                yield (
                    f"<p><small>Too small to judge (fewer than {part.report.least_people} people): "
                    f"{escape(', '.join(few))}.</small></p>"
                )

    def _part(self, part: Part) -> Iterator[str]:
        yield f"<h2>{escape(part.title)}</h2><p>{escape(part.about)}</p>"
        for one in part.report.comparisons:
            yield f"<h3>{escape(one.measure)}, by {escape(one.attribute)}</h3>"
            yield _group_table(one)
            if one.judged:
                limit = self.limits.of(one.kind)
                yield f'<div class="wide">{group_plot(one, limit)}</div>'
        if part.weeks:
            yield "<h3>Week by week</h3>" + _week_table(part.weeks, self.limits)
            yield f'<div class="wide">{weekly_plot(part.weeks, self.limits.offers)}</div>'
        if part.prices:
            yield "<h3>What evenness would cost</h3>" + _price_table(part.prices)
            for row in part.prices:
                if row.bonus:
                    said = ", ".join(f"{name}: {ceil(b)}" for name, b in row.bonus.items())
                    yield f"<p>{escape(f'{row.name}: raise offers by {said} (minor units).')}</p>"
            if part.prices[0].ratios:
                yield f'<div class="wide">{price_plot(part.prices)}</div>'


def sentence(one: Comparison, limits: FairnessLimits) -> tuple[str, str]:
    """How a comparison is marked, and what it comes to in plain words."""
    if not one.judged:
        return "open", f"{one.measure}, by {one.attribute}: too few people to say anything."
    by = {group.group: group.value for group in one.groups}
    least = limits.of(one.kind)
    named = f"{one.measure[0].upper()}{one.measure[1:]}, by {one.attribute}"
    told = (
        f"{named}: least for {one.lowest} ({_number(by[one.lowest])}), most for {one.highest} "
        f"({_number(by[one.highest])}). The least is {one.ratio:.0%} of the most (likely "
        f"{one.ratio_low:.0%} to {one.ratio_high:.0%})."
    )
    if one.ratio >= least:
        return "within", f"{told} Within the limit of {least:.0%}."
    if one.proven:
        return "beyond", f"{told} Beyond the limit of {least:.0%}, and more than chance explains."
    return "open", f"{told} Below {least:.0%}, but chance alone may make such a difference."


def _number(value: float) -> str:
    return f"{value:.1%}" if abs(value) <= 1 else f"{value:,.1f}"


def _group_table(one: Comparison) -> str:
    rows = [
        [
            *(group.group, f"{group.people:,}", f"{group.decisions:,}", _number(group.value)),
            f"{_number(group.low)} to {_number(group.high)}",
        ]
        for group in one.groups
    ]
    rows += [
        [f"{g.group} (too small)", f"{g.people:,}", f"{g.decisions:,}", "", ""] for g in one.small
    ]
    apart = f"{_number(one.difference_low)} to {_number(one.difference_high)}"
    ratio = f"{one.ratio_low:.2f} to {one.ratio_high:.2f}"
    rows += [["difference", "", "", _number(one.difference), apart]]
    rows += [["ratio", "", "", f"{one.ratio:.2f}", ratio]]
    return _table(["group", "people", "decisions", "mean", "95 % interval"], rows)


def _week_table(weeks: Sequence[tuple[str, FairnessReport]], limits: FairnessLimits) -> str:
    names = list(dict.fromkeys(one.attribute for _, report in weeks for one in report.comparisons))
    rows = []
    for week, report in weeks:
        told = {one.attribute: one for one in report.comparisons}
        row = [week]
        for name in names:
            one = told.get(name)
            if one is None or not one.judged:
                row.append("too few")
                continue
            beyond = one.proven and one.ratio < limits.offers
            row.append(f"{one.ratio:.2f}{' beyond the limit' if beyond else ''}")
        rows.append(row)
    return _table(["week from", *names], rows)


def _price_table(prices: Sequence[Priced]) -> str:
    names = list(prices[0].ratios)
    kind = "true margin" if prices[0].true else "expected margin"
    rows = []
    for one in prices:
        lost = one.margin - prices[0].margin
        share = f" ({lost / prices[0].margin:+.0%})" if prices[0].margin > 0 else ""
        rows.append(
            [
                *(one.name, *(f"{one.ratios.get(name, 1.0):.2f}" for name in names)),
                *(f"{one.offered:.1%}", f"{one.margin:.2f}", f"{lost:+.2f}{share}"),
            ]
        )
    header = ["", *(f"ratio by {name}" for name in names), "offered", f"{kind} a decision", "lost"]
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
