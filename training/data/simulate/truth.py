"""What is true of the synthetic shoppers, kept in a folder beside the events.

Nothing that is trained or served may read it: it exists to check what was learned.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.data.columns import utc
from training.data.simulate.group import Group
from training.data.simulate.shop import Shop
from training.data.simulate.shoppers import PURPOSES
from training.data.simulate.world import CHECKOUT_STEPS, World
from training.data.storage import Metadata, write_parquet

FOLDER = "truth"
_TOP_CATEGORIES = 10
_README = (
    "These files are the ground truth behind synthetic shoppers: no model may read them, and "
    "nothing here or in ../events was done by a person.\n"
)


def shoppers_table(world: World, shop: Shop, group: Group, first: int) -> pa.Table:
    """One row per shopper, also of those who leave no event and so have no subject."""
    shoppers = group.everyone
    stored = shoppers.stored
    position = np.cumsum(stored) - 1
    favourites = np.argsort(-shoppers.affinity, axis=1, kind="stable")[:, :_TOP_CATEGORIES]
    later = np.argsort(-shoppers.later_affinity, axis=1, kind="stable")[:, :_TOP_CATEGORIES]
    shares = np.take_along_axis(shoppers.affinity, favourites, axis=1)
    regions = pa.array([home.region for home in world.regions])
    categories = pa.array(shop.categories)
    return pa.table(
        {
            "shopper": pa.array(np.arange(first, first + len(shoppers))),
            "subject_id": group.names.subjects.take(pa.array(position, mask=~stored)),
            "stored": pa.array(stored),
            "gpc": pa.array(shoppers.gpc),
            **{
                f"agrees_{purpose}": pa.array(shoppers.consent[:, place])
                for place, purpose in enumerate(PURPOSES)
            },
            "archetype": pa.array(list(world.archetypes)).take(pa.array(shoppers.archetype)),
            "region": regions.take(pa.array(shoppers.region)),
            "device": pa.array(list(world.devices)).take(pa.array(shoppers.device)),
            "price_sensitivity": pa.array(shoppers.sensitivity),
            "visits_per_week": pa.array(shoppers.visits_per_week),
            "favourite_categories": _lists(
                categories.take(pa.array(favourites.ravel())), favourites
            ),
            "favourite_shares": _lists(pa.array(shares.ravel()), favourites),
            "later_categories": _lists(categories.take(pa.array(later.ravel())), later),
            "staples": _lists(
                shop.item_ids.take(pa.array(shoppers.staples.ravel())), shoppers.staples
            ),
        }
    )


def sessions_table(world: World, group: Group) -> pa.Table:
    """One row per visit; `purchase_probability` is exact given what was viewed."""
    visits, outcomes, names = group.visits, group.outcomes, group.names
    archetype = group.shoppers.archetype[visits.shopper]
    had_cart = np.bincount(outcomes.line_visit, minlength=len(visits)) > 0
    left = outcomes.checkout & ~outcomes.purchased
    return pa.table(
        {
            "session_id": names.sessions,
            "subject_id": names.subjects.take(pa.array(visits.shopper)),
            "started_at": utc(visits.start_us),
            "archetype": pa.array(list(world.archetypes)).take(pa.array(archetype)),
            "intent": pa.array(list(world.intents)).take(pa.array(visits.intent)),
            "device": pa.array(list(world.devices)).take(pa.array(visits.device)),
            "num_views": pa.array(visits.num_views),
            "purchase_probability": pa.array(outcomes.purchase_probability),
            "had_cart": pa.array(had_cart),
            "checkout": pa.array(outcomes.checkout),
            "purchased": pa.array(outcomes.purchased),
            "abandoned": pa.array(had_cart & ~outcomes.purchased),
            "left_after": pa.array(CHECKOUT_STEPS).take(pa.array(outcomes.last_step, mask=~left)),
        }
    )


def items_table(shop: Shop) -> pa.Table:
    """One row per item on sale: its category, its popularity there, what goes with it."""
    within = np.diff(shop.popularity, prepend=0.0)
    opening = shop.category_start[:-1]
    within[opening] = shop.popularity[opening] - np.arange(len(shop.categories))
    return pa.table(
        {
            "item_id": shop.item_ids,
            "category": pa.array(shop.categories).take(pa.array(shop.category)),
            "popularity": pa.array(within * shop.category_share[shop.category]),
            "complements": _lists(
                shop.item_ids.take(pa.array(shop.complements.ravel())), shop.complements
            ),
        }
    )


def write_truth(
    output: Path,
    tables: Mapping[str, pa.Table],
    settings: Mapping[str, Any],
    world: World,
    metadata: Metadata,
) -> None:
    """Write `output/truth`: the tables by name, the world with its settings, and a warning."""
    folder = output / FOLDER
    for name, table in tables.items():
        write_parquet(table, folder / f"{name}.parquet", metadata)
    content = {
        "synthetic": True,
        **settings,
        "world": world.model_dump(mode="json", exclude_none=True),
    }
    (folder / "world.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_README, encoding="utf-8")


def _lists(flat: pa.Array, table: Sequence[Any] | np.ndarray[Any, Any]) -> pa.Array:
    """`flat` values as one list per row of `table`, whose rows are equally long."""
    rows, width = np.shape(table)
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * width, flat)
