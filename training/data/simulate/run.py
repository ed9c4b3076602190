"""From a catalogue, a world and a seed to files. Shoppers are simulated in groups, a part of the
events each, so that memory stays flat; a part is in the order of time, its shoppers are its own."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from contract.errors import UserError
from contract.manifest import OFFER_ARMS
from contract.offer_arms import Arm, OfferArms
from training.data.simulate.checkouts import checkout_truth_table, checkouts_table
from training.data.simulate.group import Group, draw_group
from training.data.simulate.shop import Shop, open_shop
from training.data.simulate.tables import events_of
from training.data.simulate.truth import items_table, sessions_table, shoppers_table, write_truth
from training.data.simulate.varied import varied
from training.data.simulate.world import World, load_world
from training.data.storage import (
    CHECKOUTS_FILE,
    events_writer,
    read_catalogue,
    write_catalogue,
    write_parquet,
    write_subjects,
)

METADATA = {"synthetic": "true"}
NOTES = ["synthetic: these shoppers do not exist; the truth beside the events is for checking only"]

_EVENTS_PER_PART = 200_000
_EVENTS_PER_VIEW = 6
_MAX_YEARS = 20


@dataclass
class _Record:
    """What is written once at the end."""

    visitor_ids: list[str] = field(default_factory=list)
    subject_ids: list[pa.Array] = field(default_factory=list)
    shoppers: list[pa.Table] = field(default_factory=list)
    sessions: list[pa.Table] = field(default_factory=list)
    checkouts: list[pa.Table] = field(default_factory=list)
    checkout_truth: list[pa.Table] = field(default_factory=list)

    def add(self, world: World, shop: Shop, group: Group, first: int) -> None:
        """Keep what is true of `group`, whose shoppers are numbered from `first`."""
        present = np.flatnonzero(group.everyone.stored) + first
        self.visitor_ids.extend(f"synthetic-shopper-{shopper:07d}" for shopper in present)
        self.subject_ids.append(group.names.subjects)
        self.shoppers.append(shoppers_table(world, shop, group, first))
        self.sessions.append(sessions_table(world, group))
        if world.offers is not None or world.preferences is not None:
            self.checkouts.append(checkouts_table(world, shop, group))
            self.checkout_truth.append(checkout_truth_table(world, group))


def simulate(
    catalogue_file: Path,
    world_file: Path,
    output: Path,
    *,
    num_shoppers: int,
    num_days: int,
    seed: int,
    start: date,
    vary: int | None = None,
) -> dict[str, dict[str, int]]:
    """Write events, catalogue, subjects and truth to `output`; returns the counts.

    `vary`: not the world of the file but one like it, drawn from this number. The same arguments
    give the same bytes. Raises UserError on bad input.
    """
    _check(num_shoppers, num_days, seed, start)
    world = load_world(world_file)
    if vary is not None:
        if vary < 0:
            raise UserError(f"--vary must not be negative, as {vary} is")
        world = varied(world, vary)
    catalogue = read_catalogue(catalogue_file)
    per_group = _group_size(world, num_days, num_shoppers)
    num_groups = -(-num_shoppers // per_group)
    shop_seed, *group_seeds = np.random.SeedSequence(seed).spawn(1 + num_groups)
    shop = open_shop(np.random.default_rng(shop_seed), catalogue, world)
    record = _Record()
    with (
        events_writer(output, METADATA) as writer,
        tqdm(total=num_shoppers, desc="simulate", unit="shopper", disable=None) as progress,
    ):
        for number, group_seed in enumerate(group_seeds):
            first = number * per_group
            size = min(per_group, num_shoppers - first)
            group, rng = draw_group(group_seed, world, shop, size, start, num_days)
            record.add(world, shop, group, first)
            if len(group.visits):
                writer.write(events_of(rng, world, shop, group))
            progress.update(size)
        if writer.num_events == 0:
            raise UserError("nobody came who may be seen: try more --shoppers or more --days")
    write_catalogue(catalogue, output, {"events": "synthetic"})
    settings = {"seed": seed, "shoppers": num_shoppers, "days": num_days, "start": str(start)}
    return _finish(record, world, shop, settings, output) | {"events": {"count": writer.num_events}}


def _finish(
    record: _Record, world: World, shop: Shop, settings: dict[str, Any], output: Path
) -> dict[str, dict[str, int]]:
    """Write subjects and truth; returns the counts of both."""
    subjects = pa.concat_arrays(record.subject_ids)
    write_subjects(record.visitor_ids, subjects, output, METADATA)
    people, sessions = pa.concat_tables(record.shoppers), pa.concat_tables(record.sessions)
    tables = {"shoppers": people, "sessions": sessions, "items": items_table(shop)}
    for name in (CHECKOUTS_FILE, OFFER_ARMS):
        (output / name).unlink(missing_ok=True)
    if world.offers is not None:
        arms = OfferArms(
            arms=tuple(
                Arm(name=name, discount=arm.discount) for name, arm in world.offers.arms.items()
            )
        )
        (output / OFFER_ARMS).write_text(arms.model_dump_json(indent=1) + "\n", encoding="utf-8")
    checkouts = 0
    if record.checkouts:
        log = pa.concat_tables(record.checkouts)
        write_parquet(log, output / CHECKOUTS_FILE, METADATA)
        tables["checkouts"] = pa.concat_tables(record.checkout_truth)
        checkouts = len(log)
    write_truth(output, tables, settings, world, METADATA)
    return {
        "checkouts": {"count": checkouts},
        "shoppers": {"count": len(people), "without trace": len(people) - len(subjects)},
        "sessions": {"count": len(sessions), "purchases": _trues(sessions, "purchased")},
    }


def _group_size(world: World, num_days: int, num_shoppers: int) -> int:
    """How many shoppers make up about one part; depends on nothing but the arguments."""
    kinds = world.archetypes.values()
    views = sum(k.share * k.visits_per_week * k.views_per_session for k in kinds)
    views_per_shopper = views / sum(k.share for k in kinds) * num_days / 7.0
    size = int(_EVENTS_PER_PART / (_EVENTS_PER_VIEW * views_per_shopper + 1.0))
    return min(max(size, 1), 8192, num_shoppers)


def _check(num_shoppers: int, num_days: int, seed: int, start: date) -> None:
    if num_shoppers <= 0:
        raise UserError(f"--shoppers must be at least 1, not {num_shoppers}")
    if not 0 < num_days <= _MAX_YEARS * 366:
        raise UserError(f"--days must be between 1 and {_MAX_YEARS * 366}, not {num_days}")
    if seed < 0:
        raise UserError(f"--seed must not be negative, as {seed} is")
    if not 1971 <= start.year <= 2200:
        raise UserError(f"--start must be between 1971 and 2200, not {start}")


def _trues(table: pa.Table, column: str) -> int:
    return int(table[column].to_numpy().sum())
