"""What is audited about offers: the chances that a policy gives people, on simulated or logged
checkouts and on real baskets, and whom Complete Journey's campaigns were sent to.

Shapes: N decisions, A arms (0 is no offer).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from contract.clock import DAY_US
from contract.encoding import Situation
from contract.fair_offers import best_offers, bonuses, with_bonuses
from contract.fairness import FairnessReport, Floats, Ints, Measure, audit
from contract.frames import EXPLODED_COLUMNS, holds
from contract.offer_arms import OfferArms
from contract.offer_features import OFFER_FEATURES, CartLine, offer_features
from contract.offers import reduction
from contract.policy import NO_OFFER
from training.data.baskets import Timelines
from training.data.checkouts import price_levels, read_checkouts
from training.data.completejourney import PACKAGE, subject_of
from training.data.demographics import Groups
from training.data.offer_log import OfferLog, margins
from training.data.storage import read_events
from training.evaluation.off_policy import Terms, allowed_arms, chances

MARGIN_RATE = 0.3  # of Complete Journey's baskets, whose costs nobody knows
SHIPPING = 399  # what free delivery takes off there
OFFERED, WORTH = "offered something", "worth of what is offered, share of the cart"
WOULD_BUY = "offered, of those who buy when they are"
COUPON_USERS = "offered, of those who use coupons"
SENT, SENT_USERS = "sent a campaign", "sent a campaign, of those who use coupons"
Attributes = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, eq=False)
class Checkouts:
    """Decisions to audit: `log` as a policy sees them, `attributes` [N] each of who decided, and
    `coupon_user` [N] where it is known. `randomised`: whether the log's arms came by chance."""

    log: OfferLog
    attributes: Attributes
    randomised: bool
    coupon_user: np.ndarray | None = None
    truth: Floats | None = None

    def measures(self, target: Floats) -> list[Measure]:
        """What a policy with the chances `target` [N, A] gives."""
        log, offered = self.log, 1.0 - target[:, NO_OFFER]
        worth = (target * log.reduction).sum(1) / np.maximum(log.value, 1.0)
        found = [Measure(OFFERED, "offers", offered), Measure(WORTH, "offers", worth)]
        if self.randomised:
            bought = (log.arm != NO_OFFER) & (log.outcome > 0)
            weight = 1.0 / log.propensity[np.arange(len(log)), log.arm]
            found.append(Measure(WOULD_BUY, "opportunity", offered, bought, weight))
        if self.coupon_user is not None:
            found.append(Measure(COUPON_USERS, "opportunity", offered, self.coupon_user))
        return found

    def audited(self, target: Floats, least_people: int) -> FairnessReport:
        """The report of that policy."""
        measures = self.measures(target)
        return audit(self.attributes, measures, self.log.subject, least_people=least_people)

    def weekly(self, target: Floats, least_people: int) -> list[tuple[str, FairnessReport]]:
        """The report of every week of seven days, by its first day; only what the offers are."""
        day = self.log.decided_us // DAY_US
        week = (day - day.min()) // 7
        found = []
        for number in np.unique(week).tolist():
            rows = np.flatnonzero(week == number)
            first = np.datetime64(0, "D") + int(day.min()) + 7 * number
            attributes = {
                name: [groups[row] for row in rows.tolist()]
                for name, groups in self.attributes.items()
            }
            measure = Measure(OFFERED, "offers", 1.0 - target[rows, NO_OFFER])
            people = self.log.subject[rows]
            report = audit(attributes, [measure], people, least_people=least_people)
            found.append((str(first), report))
        return found


def logged_checkouts(
    folder: Path, log: OfferLog, groups: Groups, by: str, truth: Floats | None
) -> Checkouts:
    """The decisions of `folder` that `read_offer_log` gave, by what `by` names of their context
    (region, country, device) and by the attributes of `groups`."""
    table = read_checkouts(folder)
    table = table.filter(table["arm"].is_valid())
    context = table["context"].to_pylist()
    where = {by: [None if one is None else one[by] for one in context]}
    subjects = table["subject_id"].to_pylist()
    return Checkouts(log, where | _of(groups, subjects), True, truth=truth)


def _of(groups: Groups, subjects: Sequence[str]) -> dict[str, list[str | None]]:
    return {name: [known.get(one) for one in subjects] for name, known in groups.items()}


def basket_checkouts(
    folder: Path, arms: OfferArms, groups: Groups, first_us: int, most: int, seed: int = 0
) -> Checkouts:
    """Real purchases of `folder` since `first_us` as checkouts at which an offer could be made: at
    most `most`, of people whose group is known, with features replayed from what was before."""
    events = read_events(folder, [*EXPLODED_COLUMNS, "context"])
    known = set().union(*groups.values())
    timelines, prices = Timelines.of(events), price_levels(folder)
    bought = events.filter(pc.equal(events["event_name"], "purchase"))
    bought = bought.filter(pa.array(holds(bought["purposes"], "personalization")))
    bought = bought.filter(pc.is_in(bought["subject_id"], value_set=pa.array(sorted(known))))
    when = bought["occurred_at"].cast(pa.int64()).to_numpy()
    rows = np.flatnonzero(when >= first_us)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    bought, when = bought.take(rows).combine_chunks(), when[rows]
    subjects = bought["subject_id"].to_pylist()
    features, value = [], []
    lines = tqdm(bought["items"].to_pylist(), desc="features", unit="basket", disable=None)
    for subject, now_us, items in zip(subjects, when.tolist(), lines, strict=True):
        cart = [CartLine(one["item_id"], one["quantity"], one["price"] or 0) for one in items]
        view = timelines.view(subject, now_us, now_us)
        asked = Situation(view, [one.item_id for one in cart], now_us, rules=timelines.rules)
        features.append(offer_features(asked, cart, prices))
        value.append(sum(one.price * one.quantity for one in cart))
    who = np.unique(subjects, return_inverse=True)[1].astype(np.int64)
    log = _as_log(arms, np.array(features, np.float32), who, when, np.array(value, np.int64))
    users = coupon_users()
    used = np.array([one in users for one in subjects])
    return Checkouts(log, _of(groups, subjects), False, coupon_user=used)


def _as_log(arms: OfferArms, features: np.ndarray, who: Ints, when: Ints, value: Ints) -> OfferLog:
    """Nobody was offered anything: everybody is on no offer, for certain."""
    size, worth = len(who), value.astype(np.float64)
    off = [[reduction(arm.discount, v, SHIPPING) for v in value.tolist()] for arm in arms.arms]
    propensity = np.zeros((size, 1 + len(off)))
    propensity[:, NO_OFFER] = 1.0
    return OfferLog(
        arms=("none", *(arm.name for arm in arms.arms)),
        features=features,
        feature_names=OFFER_FEATURES,
        subject=who,
        decided_us=when,
        arm=np.zeros(size, np.int64),
        propensity=propensity,
        outcome=np.ones(size),
        spend=worth,
        value=worth,
        margin=MARGIN_RATE * worth,
        reduction=np.stack([np.zeros(size), *np.array(off, np.float64)], axis=1),
    )


def coupon_users() -> frozenset[str]:
    """Subjects of the households that redeemed a coupon in the year."""
    table = pq.read_table(_file("coupon_redemptions"), columns=["household_id"])
    return frozenset(str(subject_of(int(one))) for one in set(table["household_id"].to_pylist()))


def campaigns(groups: Groups, least_people: int) -> FairnessReport:
    """Whom the retailer itself sent campaigns: one row for each household of known groups and
    campaign. Targeted, not by chance, so this says who was chosen, not whether rightly."""
    known = sorted(set().union(*groups.values()))
    sent = pq.read_table(_file("campaigns")).to_pylist()
    numbers = sorted({str(one["campaign_id"]) for one in sent})
    place = {name: at for at, name in enumerate(numbers)}
    row = {name: at for at, name in enumerate(known)}
    got = np.zeros((len(known), len(numbers)))
    for one in sent:
        subject = str(subject_of(int(one["household_id"])))
        if subject in row:
            got[row[subject], place[str(one["campaign_id"])]] = 1.0
    person = np.repeat(np.arange(len(known)), len(numbers))
    users = coupon_users()
    used = np.repeat([one in users for one in known], len(numbers))
    measures = [
        Measure(SENT, "offers", got.ravel()),
        Measure(SENT_USERS, "opportunity", got.ravel(), used),
    ]
    repeated = [known[at] for at in person.tolist()]
    return audit(_of(groups, repeated), measures, person, least_people=least_people)


def _file(name: str) -> str:
    return str(resources.files(PACKAGE).joinpath("data", f"{name}.parquet"))


@dataclass(frozen=True)
class Priced:
    """A mitigation at one strength: the least ratio of the offer rates by attribute, and what a
    decision brings in expectation, minor units, `true` where the truth is known."""

    name: str
    ratios: Mapping[str, float]
    offered: float
    margin: float
    true: bool
    bonus: Mapping[str, float] = field(default_factory=dict)  # of a floor, by group


def priced(
    checkouts: Checkouts, told: Floats, terms: Terms, least_people: int, floor_by: str | None
) -> list[Priced]:
    """The policy as it is, with a lottery of several shares, and with floors between the groups of
    the attribute `floor_by` where there is one."""
    log = checkouts.log
    found = [_price(checkouts, "as it is", chances(log, told, terms), told, least_people)]
    if floor_by is not None:
        groups = checkouts.attributes[floor_by]
        for floor in (0.8, 0.9, 1.0):
            target = with_floor(log, told, terms, groups, floor)
            name = f"floor {floor:.1f} by {floor_by}"
            bonus = floor_bonuses(log, told, terms, groups, floor)
            row = _price(checkouts, name, target, told, least_people)
            found.append(replace(row, bonus=bonus))
    for share in (0.1, 0.25, 0.5):
        mixed = chances(log, told, replace(terms, explore_share=share))
        found.append(_price(checkouts, f"lottery {share:.2f}", mixed, told, least_people))
    return found


def floor_bonuses(
    log: OfferLog, told: Floats, terms: Terms, groups: Sequence[str | None], floor: float
) -> Mapping[str, float]:
    """What each group's offers have to be raised by to reach `floor`, minor units."""
    worth = margins(log, told)
    gain, cost = worth - worth[:, :1], told * log.reduction
    return bonuses(best_offers(gain, cost, allowed_arms(log, terms), terms.price), groups, floor)


def with_floor(
    log: OfferLog, told: Floats, terms: Terms, groups: Sequence[str | None], floor: float
) -> Floats:
    """[N, A] the policy's chances with the bonuses of a floor."""
    worth = margins(log, told)
    gain, cost = worth - worth[:, :1], told * log.reduction
    allowed, bonus = allowed_arms(log, terms), floor_bonuses(log, told, terms, groups, floor)
    raised = with_bonuses(gain, groups, bonus)
    score = np.where(allowed, raised - terms.price * cost, -np.inf)
    score[:, NO_OFFER] = 0.0
    greedy = np.eye(len(log.arms))[score.argmax(1)]
    open_ = allowed / allowed.sum(1, keepdims=True)
    kept = 1.0 - terms.holdout_share - terms.explore_share
    target: Floats = kept * greedy + terms.explore_share * open_
    target[:, NO_OFFER] += terms.holdout_share
    return target


def _price(
    checkouts: Checkouts, name: str, target: Floats, told: Floats, least_people: int
) -> Priced:
    log, truth = checkouts.log, checkouts.truth
    worth = margins(log, told if truth is None else truth)
    measure = Measure(OFFERED, "offers", 1.0 - target[:, NO_OFFER])
    report = audit(checkouts.attributes, [measure], log.subject, least_people=least_people)
    return Priced(
        name,
        {one.attribute: one.ratio for one in report.comparisons if one.judged},
        float(1.0 - target[:, NO_OFFER].mean()),
        float((target * (worth - worth[:, :1])).sum(1).mean()),
        truth is not None,
    )
