"""The log of checkouts as examples: features as a gateway would have served them, replayed from the
events before each decision, with the arm, its chance, and what came of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from contract.encoding import Situation
from contract.errors import UserError
from contract.events import EventContext, key_of
from contract.features import FEATURES
from contract.frames import EVENT_SCHEMA, EXPLODED_COLUMNS
from contract.manifest import OFFER_ARMS
from contract.offer_arms import OfferArms
from contract.offer_features import OFFER_FEATURES, CartLine, offer_features
from contract.price_levels import NOTHING, PriceLevels
from training.data.baskets import Timelines
from training.data.logged_checkouts import has_decisions, read_logged_checkouts
from training.data.offer_arms_file import read_arms
from training.data.offer_log import Floats, OfferLog
from training.data.source import segment_rules
from training.data.storage import (
    CATALOGUE_FILE,
    CHECKOUTS_FILE,
    CHECKOUTS_SCHEMA,
    event_parts,
    read_catalogue,
    read_events,
    read_parquet,
)

TRUTH = Path("truth") / CHECKOUTS_FILE


def read_offer_log(folder: Path) -> OfferLog:
    """The randomised decisions of `folder` (`checkouts.parquet` beside `events`), as they came.

    Raises UserError where there is no such log, or nothing in it was decided at random.
    """
    return offer_log(folder, read_randomised(folder))


def read_randomised(folder: Path, within_us: tuple[int, int] | None = None) -> pa.Table:
    """The checkouts of `folder` whose offers were decided at random, from the first moment of
    `within_us` up to the second."""
    log = read_checkouts(folder)
    kept = pc.is_valid(log["arm"])
    if within_us is not None:
        at = log["decided_at"].cast(pa.int64())
        during = pc.and_(pc.greater_equal(at, within_us[0]), pc.less(at, within_us[1]))
        kept = pc.and_(kept, during)
    return log.filter(kept).combine_chunks()


def offer_log(folder: Path, log: pa.Table) -> OfferLog:
    """What `read_randomised` gave, with the features of each decision. UserError where it is empty
    or its arms do not go together."""
    path = folder / CHECKOUTS_FILE
    if not len(log):
        raise UserError(f"{path}: no offer was decided at random")
    arms = tuple(log["arms"][0].as_py())
    if set(map(tuple, log["arms"].to_pylist())) != {arms}:
        raise UserError(f"{path}: the arms differ from row to row")
    propensity = np.array(log["propensities"].to_pylist(), np.float64)
    if propensity.shape != (len(log), len(arms)) or not (propensity > 0).all():
        raise UserError(f"{path}: propensities: one above 0 is needed for every arm")
    outcome = log["purchased"].to_numpy(zero_copy_only=False).astype(np.float64)
    value = log["value"].to_numpy().astype(np.float64)
    _, subject = np.unique(log["subject_id"].to_pylist(), return_inverse=True)
    return OfferLog(
        arms=arms,
        features=replayed_features(folder, log),
        feature_names=OFFER_FEATURES,
        subject=subject,
        decided_us=log["decided_at"].cast(pa.int64()).to_numpy(),
        arm=np.array([arms.index(name) for name in log["arm"].to_pylist()]),
        propensity=propensity,
        outcome=outcome,
        spend=outcome * value,
        value=value,
        margin=log["margin"].to_numpy().astype(np.float64),
        reduction=np.array(log["reductions"].to_pylist(), np.float64),
    )


def read_true_probabilities(folder: Path) -> Floats | None:
    """[N, A] the simulator's own chances of the outcome for the rows of `read_offer_log`, None
    where nobody knows them. For evaluation only: nothing that learns may call this."""
    path = folder / TRUTH
    if not path.exists():
        return None
    decided = read_checkouts(folder)["arm"].is_valid()
    truth = read_parquet(path)["purchase_probabilities"].filter(decided)
    return np.array(truth.to_pylist(), np.float64)


def read_checkouts(folder: Path) -> pa.Table:
    """Every checkout of `folder` that was begun: of a simulated log as it was written, of an export
    of a gateway's log as its decisions tell. UserError where there is neither."""
    path = folder / CHECKOUTS_FILE
    if path.exists():
        return read_parquet(path, CHECKOUTS_SCHEMA)
    if not has_decisions(folder):
        raise UserError(
            f"{path}: missing; a world with offers or preferences makes it (simulate), or else the "
            "events must hold a gateway's decisions (tillwise-serve export)"
        )
    return read_logged_checkouts(folder).table


def read_offer_arms(folder: Path) -> OfferArms:
    """What the arms of `read_offer_log` take off. UserError where nobody says."""
    if (folder / OFFER_ARMS).exists() or (folder / CHECKOUTS_FILE).exists():
        return read_arms(folder)
    arms = read_logged_checkouts(folder).arms
    if arms is None:
        raise UserError(f"{folder}: no offer was decided at random")
    return arms


def replayed_features(folder: Path, log: pa.Table) -> npt.NDArray[np.float32]:
    """[N, F] `OFFER_FEATURES` of every row of `log`, from the events before it."""
    rows_of: dict[str, list[int]] = {}
    for row, subject in enumerate(log["subject_id"].to_pylist()):
        rows_of.setdefault(subject, []).append(row)
    features, rules = np.zeros((len(log), len(OFFER_FEATURES)), np.float32), segment_rules(folder)
    prices = price_levels(folder)
    with tqdm(total=len(log), desc="features", unit="checkout", disable=None) as progress:
        for events in _by_subject(folder):
            here = set(events["subject_id"].unique().to_pylist()) & set(rows_of)
            asked = pc.is_in(events["subject_id"], value_set=pa.array(sorted(here), pa.string()))
            timelines = Timelines.of(events.filter(asked), rules)
            for subject in here:
                for row in rows_of.pop(subject):
                    features[row] = _features(timelines, prices, subject, log, row)
                    progress.update()
        empty = Timelines({feature.name: {} for feature in FEATURES}, rules)
        for subject, rows in rows_of.items():  # nothing else is known of them
            for row in rows:
                features[row] = _features(empty, prices, subject, log, row)
    return features


def price_levels(folder: Path) -> PriceLevels:
    """Of the catalogue of `folder`, none where there is none."""
    if not (folder / CATALOGUE_FILE).exists():
        return NOTHING
    catalogue = read_catalogue(folder)
    ids = catalogue["item_id"].to_pylist()
    return PriceLevels.of(
        np.fromiter((key_of(item_id) for item_id in ids), np.uint64, len(ids)),
        pc.fill_null(catalogue["price"], 0).to_numpy(),
        catalogue["category_path"].to_pylist(),
    )


def _features(
    timelines: Timelines, prices: PriceLevels, subject: str, log: pa.Table, row: int
) -> npt.NDArray[np.float32]:
    items, context = log["items"][row].as_py(), log["context"][row].as_py()
    now_us = log["decided_at"][row].value
    situation = Situation(
        view=timelines.view(subject, now_us, now_us),
        cart=[item["item_id"] for item in items],
        now_us=now_us,
        context=None if context is None else EventContext(**context),
        rules=timelines.rules,
    )
    cart = [CartLine(item["item_id"], item["quantity"], item["price"]) for item in items]
    return offer_features(situation, cart, prices)


def _by_subject(folder: Path) -> Iterator[pa.Table]:
    """The events in tables that share no subject: the parts as they are where they allow it (those
    of `simulate` do, so memory stays flat), else everything at once."""
    parts = event_parts(folder)
    seen: set[str] = set()
    apart = True
    for part in parts:
        here = set(read_parquet(part, EVENT_SCHEMA, ["subject_id"])["subject_id"].to_pylist())
        apart = apart and not here & seen
        seen |= here
    if not apart:
        yield read_events(folder, EXPLODED_COLUMNS)
        return
    for part in parts:
        yield read_parquet(part, EVENT_SCHEMA, EXPLODED_COLUMNS)
