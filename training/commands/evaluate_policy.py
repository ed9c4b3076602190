"""`evaluate-policy`: what a new offer policy would have earned, from logged decisions."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import GateRefused, UserError
from contract.figures import Figures
from training.commands import common_options, peak_mib

if TYPE_CHECKING:
    from training.commands import Subparsers
    from training.evaluation.network_chances import Network
    from training.evaluation.off_policy import Terms


def add_parser(subparsers: "Subparsers") -> None:
    """Declare `evaluate-policy`."""
    parser = subparsers.add_parser(
        "evaluate-policy",
        parents=[common_options()],
        help="what a new offer policy would have earned, from decisions made at random",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    policy = parser.add_mutually_exclusive_group(required=True)
    policy.add_argument("--uplift", type=Path, metavar="DIR", help="of `tillwise-train uplift`")
    policy.add_argument(
        "--release", metavar="ID", help="the offers' network that a release carries; or `live`"
    )
    policy.add_argument("--always", metavar="ARM", help="everybody the same; `none` is no offer")
    policy.add_argument(
        "--places", action="store_true", help="instead: what the drawn places of lists say"
    )
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument(
        "--offers", type=Path, metavar="FILE", help="the offers it may make, as for PUT /v1/offers"
    )
    for name, meaning in (
        ("--price", "of a unit spent, as a binding budget makes it"),
        ("--holdout-share", "shown no offer by chance"),
        ("--explore-share", "shown any offer by chance"),
    ):
        parser.add_argument(name, type=float, metavar="X", help=meaning)
    parser.add_argument(
        "--held-out-by",
        type=int,
        metavar="SEED",
        help="only people that `uplift --seed SEED` did not learn from",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """The table of estimates. Raises UserError on bad input, GateRefused where the log can not
    speak of the policy."""
    from dataclasses import replace

    import numpy as np

    from training.data.checkouts import read_offer_log, read_true_probabilities
    from training.evaluation.network_chances import network_chances
    from training.evaluation.off_policy import Judgement, always, chances
    from training.evaluation.uplift_table import Split

    if args.places:
        from training.data.drawn_places import read_drawn_places
        from training.evaluation.places import place_figures

        return place_figures(read_drawn_places(args.data))
    began = time.perf_counter()
    terms = _terms(args)
    log, truth = read_offer_log(args.data), read_true_probabilities(args.data)
    if args.held_out_by is not None:
        apart = np.isin(log.subject, Split.of(log, None, args.held_out_by).test.subject)
        log, truth = log.take(apart), None if truth is None else truth[apart]
        if not len(log):
            raise UserError(f"{args.data}: nobody was held out")
    network = _network(args)
    if network is not None:
        told, known = network_chances(network, args.data, log)
        open_ = known if terms.arms is None else known & terms.arms
        target = chances(log, told, replace(terms, arms=open_))
        name = args.release or args.uplift.name or "uplift"
    else:
        try:
            target, name = always(log, args.always), f"always {args.always}"
        except KeyError:
            raise UserError(f"--always {args.always}: the arms are {', '.join(log.arms)}") from None
    judged = Judgement.of(log, target, truth)
    if judged.overlap.refused is not None:
        raise GateRefused(f"overlap: {judged.overlap.refused}")
    figures = Figures("evaluate-policy")
    judged.add_to(figures, name)
    seconds = time.perf_counter() - began
    figures.add("evaluate-policy", {}, seconds=seconds, peak_mib=peak_mib())
    people = len(np.unique(log.subject))
    figures.notes.append(
        f"{len(log)} decisions of {people} people; margin per decision in minor units, 95 % "
        "intervals over people; read DR, the others show how much depends on its model or weights"
    )
    if truth is not None:
        figures.notes.append("synthetic; truth and off stand beside the estimates, never in them")
    return figures


def _network(args: argparse.Namespace) -> "Network | None":
    """Whose policy is judged; None: no network's."""
    from training.evaluation.network_chances import fitted_network, released_network
    from training.retraining.plan import LIVE, live_release

    if args.uplift is not None:
        return fitted_network(args.uplift)
    if args.release is None:
        return None
    release_id = live_release(args.releases) if args.release == LIVE else args.release
    return released_network(args.releases, args.models, release_id)


def _terms(args: argparse.Namespace) -> "Terms":
    """What the flags and the book of offers say; a flag wins."""
    from pydantic import ValidationError

    from contract.offers import OfferBook
    from training.data.checkouts import read_offer_arms
    from training.evaluation.off_policy import Terms

    told: dict[str, object] = {}
    if args.offers is not None:
        try:
            book = OfferBook.model_validate_json(args.offers.read_bytes())
        except FileNotFoundError:
            raise UserError(f"{args.offers}: no such file") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{args.offers}: {where}: {first['msg']}") from None
        arms = read_offer_arms(args.data)
        columns = {
            arms.column(offer.discount)
            for offer in book.offers
            if offer.active and offer.discount.kind != "loyalty_tier"
        }
        told = {
            "holdout_share": book.holdout_share,
            "explore_share": book.explore_share,
            "margin_floor": book.margin_floor,
            "arms": frozenset(arms.arms[at - 1].name for at in columns if at is not None),
        }
        if not told["arms"]:
            raise UserError(f"{args.offers}: none of its offers is like an arm of the log")
    for name in ("price", "holdout_share", "explore_share"):
        given = getattr(args, name)
        if given is not None:
            if not 0 <= given <= (sys.float_info.max if name == "price" else 1):  # nor nan
                raise UserError(f"--{name.replace('_', '-')} {given}: out of range")
            told[name] = given
    terms = Terms(**told)  # type: ignore[arg-type]
    if terms.holdout_share + terms.explore_share > 1:
        raise UserError("--holdout-share and --explore-share are more than one together")
    return terms
