"""`fairness`: whether groups of people are offered as much, served as well and shown as much."""

import argparse
import json
import time
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import GateRefused, UserError
from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from contract.fairness import FairnessLimits
    from training.commands import Subparsers
    from training.data.demographics import Groups
    from training.evaluation.fairness_page import Part

REPORT, FIGURES = "fairness.html", "fairness.json"


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `fairness`."""
    parser = subparsers.add_parser(
        "fairness",
        parents=[common_options()],
        help="audit offers, lists and their quality by groups of people, as an HTML report",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--run", dest="run_folder", type=Path, metavar="RUN", help="its lists")
    parser.add_argument("--uplift", type=Path, metavar="DIR", help="its offers")
    parser.add_argument(
        "--demographics",
        metavar="FILE",
        help="`completejourney`, or Parquet or CSV of subject_id and a column for each attribute; "
        "read for this audit alone",
    )
    parser.add_argument(
        "--by",
        default="region",
        choices=("region", "country", "device"),
        help="what checkouts of a log tell of the place; its floors are priced (default: region)",
    )
    parser.add_argument("--least-people", type=int, default=50, metavar="N", help="of a group")
    parser.add_argument(
        "--least-ratio", type=float, default=0.8, metavar="X", help="lowest over highest group"
    )
    parser.add_argument("--most", type=int, default=4_000, metavar="N", help="at most N baskets")
    parser.add_argument("--gate", action="store_true", help="status 3 where a limit is not kept")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Write the report. Raises UserError on bad input, GateRefused with `--gate`."""
    from contract.fairness import FairnessLimits, breaches
    from training.data.demographics import COMPLETE_JOURNEY, read_demographics
    from training.data.storage import make_folder
    from training.evaluation.fairness_offers import campaigns
    from training.evaluation.fairness_page import Page, Part

    began = time.perf_counter()
    if args.least_people < 2 or not 0 < args.least_ratio <= 1 or args.most < 1:
        raise UserError("--least-people is 2 or more, --least-ratio in 0..1, --most 1 or more")
    if args.run_folder is None and args.uplift is None:
        raise UserError("nothing to audit: give --run, --uplift or both")
    limit = args.least_ratio
    groups: Groups = {} if args.demographics is None else read_demographics(args.demographics)
    limits = FairnessLimits(limit, limit, quality=limit, must_judge=tuple(groups))
    parts: list[Part] = []
    if args.uplift is not None:
        parts.append(_offers(args, groups))
    if args.run_folder is not None:
        parts.append(_lists(args, groups))
    own: list[Part] = []
    if args.demographics == COMPLETE_JOURNEY:
        own = [
            Part(
                "The retailer's own campaigns (not ours)",
                "Whom Complete Journey's campaigns were sent to: one row for each household and "
                "campaign. For comparison; no gate of ours judges it.",
                campaigns(groups, args.least_people),
                gated=False,
            )
        ]
    notes = [
        f"Groups of fewer than {args.least_people} people are named and not judged. Intervals "
        "count people, not decisions. Age, income and such are read for this report alone: no "
        "model and no decision knows them."
    ]
    make_folder(args.output)
    page = Page([*parts, *own], limits, notes)
    (args.output / REPORT).write_text(page.html(), encoding="utf-8")
    told = {part.title: part.report.as_json() for part in (*parts, *own)}
    (args.output / FIGURES).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    refused = [one for part in parts for one in breaches(part.report, limits)]
    if args.gate and refused:
        raise GateRefused("; ".join(f"{one.gate}: {one.text}" for one in refused))
    figures = _figures([*parts, *own], limits)
    seconds = time.perf_counter() - began
    figures.add("fairness", {}, seconds=seconds, peak_mib=peak_mib())
    figures.notes += [f"{one.gate}: {one.text}" for one in refused]
    figures.notes.append(f"report: {args.output / REPORT}")
    return figures


def _offers(args: argparse.Namespace, groups: "Groups") -> "Part":
    from contract.clock import to_us
    from training.data.checkouts import read_offer_log, read_true_probabilities
    from training.data.logged_checkouts import has_decisions
    from training.data.source import read_source
    from training.data.storage import CHECKOUTS_FILE
    from training.evaluation.fairness_offers import basket_checkouts, logged_checkouts, priced
    from training.evaluation.fairness_page import Part
    from training.evaluation.network_chances import fitted_network, network_chances
    from training.evaluation.off_policy import Terms, chances
    from training.uplift.fit import predicted
    from training.uplift.run_folder import read_uplift

    if (args.data / CHECKOUTS_FILE).exists() or has_decisions(args.data):
        log = read_offer_log(args.data)
        truth = read_true_probabilities(args.data)
        checkouts = logged_checkouts(args.data, log, groups, args.by, truth)
        floor_by, about = args.by, "Checkouts of a log whose offers were made at random"
    elif groups:
        _, arms = read_uplift(args.uplift)
        first_us = to_us(read_source(args.data).window.train_until)
        checkouts = basket_checkouts(args.data, arms, groups, first_us, args.most)
        floor_by, about = None, "Real baskets of people whose groups are known, of the test days"
    else:
        raise UserError(f"{args.data}: no checkouts.parquet; purchases alone need --demographics")
    log = checkouts.log
    if not len(log):
        raise UserError(f"{args.data}: no checkout of anybody whose group is known")
    if checkouts.randomised:
        told, known = network_chances(fitted_network(args.uplift), args.data, log)
    else:
        told, known = predicted(read_uplift(args.uplift)[0], log)[0], frozenset(log.arms[1:])
    terms = Terms(arms=known)
    target = chances(log, told, terms)
    return Part(
        "Offers",
        f"{about}: what the policy of {args.uplift.name} would offer, {len(log):,} decisions.",
        checkouts.audited(target, args.least_people),
        checkouts.weekly(target, args.least_people),
        priced(checkouts, told, terms, args.least_people, floor_by),
    )


def _lists(args: argparse.Namespace, groups: "Groups") -> "Part":
    from dataclasses import replace

    from training.data.source import read_source
    from training.evaluation.fairness_lists import lists_audit
    from training.evaluation.fairness_page import Part
    from training.run_folder import read_run

    fitted = read_run(args.run_folder)
    source = read_source(args.data)
    source = replace(source, timelines=source.timelines.under(fitted.rules))
    report = lists_audit(fitted, source, groups, args.most, args.least_people)
    return Part(
        "Product suggestions",
        "How often the five suggestions of a test basket hold what was bought with it, and what "
        "is shown, by group.",
        report,
    )


def _figures(parts: "list[Part]", limits: "FairnessLimits") -> Figures:
    figures = Figures("fairness")
    for part in parts:
        for one in part.report.comparisons:
            if not one.judged:
                continue
            figures.add(
                f"{part.title}: {one.measure} by {one.attribute} ({one.lowest} / {one.highest})",
                {
                    "difference": [one.difference],
                    "difference low": [one.difference_low],
                    "difference high": [one.difference_high],
                    "ratio": [one.ratio],
                    "ratio low": [one.ratio_low],
                    "ratio high": [one.ratio_high],
                    "limit": [limits.of(one.kind)],
                },
            )
        for row in part.prices:
            ratios = {f"ratio by {name}": [ratio] for name, ratio in row.ratios.items()}
            told = {"offered": [row.offered], "margin": [row.margin]}
            told |= {f"bonus {name}": [float(ceil(b))] for name, b in row.bonus.items()}
            figures.add(f"{part.title}: {row.name}", ratios | told)
    return figures
