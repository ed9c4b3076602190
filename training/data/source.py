"""Everything that a fit or an evaluation reads from an imported folder, read once."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import from_us, to_us
from contract.errors import UserError
from contract.frames import EXPLODED_COLUMNS, holds
from contract.manifest import SEGMENT_CONFIG
from contract.segment_config import DEFAULT, SegmentConfig
from training.data.baskets import Baskets, Timelines, read_baskets
from training.data.drawn_places import DrawnPlaces, drawn_places
from training.data.etl import PURPOSE
from training.data.storage import SPLIT_FILE, SUBJECTS_FILE, read_catalogue, read_events
from training.evaluation.protocols import Window

_COLUMNS = [*EXPLODED_COLUMNS, "context", "synthetic"]
_TEST_SHARE, _VALIDATION_SHARE = 0.12, 0.05


@dataclass(frozen=True)
class Source:
    """An imported folder."""

    catalogue: pa.Table
    baskets: Baskets
    timelines: Timelines
    window: Window
    synthetic: bool
    purposes: Mapping[str, int]  # purchases that were learned from, by what they were written under
    imported: bool  # so that the import wrote the purposes, and nobody's word is on record
    # Places of lists that were drawn by chance; None where they were not asked for.
    drawn: DrawnPlaces | None = None

    def facts(self) -> dict[str, Any]:
        """What a fit learned from, counted; a run keeps it for the cards of its releases."""
        baskets, cut_us = self.baskets, to_us(self.window.train_until)
        learned = baskets.between(int(np.iinfo(np.int64).min), cut_us)
        _, items = baskets.entries(learned)
        sizes = np.diff(baskets.offsets)[learned]
        contexts = [baskets.contexts[number] for number in learned.tolist()]
        regions = {one.region for one in contexts if one is not None and one.region is not None}
        return {
            "first_purchase": from_us(int(baskets.occurred_us[0])).isoformat(),
            "last_purchase": from_us(int(baskets.occurred_us[learned[-1]])).isoformat(),
            "purchases": len(learned),
            "shoppers": len(np.unique(baskets.subject[learned])),
            "items_sold": len(np.unique(items)),
            "lines": len(items),
            "items_in_a_basket": {
                "median": float(np.median(sizes)),
                "90 %": float(np.quantile(sizes, 0.9)),
            },
            "catalogue": self.catalogue.num_rows,
            "regions": len(regions),
            "synthetic": self.synthetic,
            "purposes": dict(self.purposes),
            "consent_recorded": not self.imported,
            "places_drawn_by_chance": 0 if self.drawn is None else len(self.drawn.known_at(cut_us)),
        }


def read_source(
    folder: Path, days: dict[str, str | None] | None = None, *, drawn: bool = False
) -> Source:
    """Read `folder` (events/*.parquet, catalogue.parquet, and segment_config.json where there is
    one).

    The window is what `days` says (ISO dates by field name of `Window`), else what the importer
    wrote to split.json, else the last 12 % of the time for testing and 5 % before it for choosing.
    `drawn`: with what exploration has drawn, for who learns from it.
    """
    events = read_events(folder, _COLUMNS)
    catalogue = read_catalogue(folder)
    baskets = read_baskets(events)
    window, synthetic = _window(folder, baskets, days or {}), pc.any(events["synthetic"]).as_py()
    return Source(
        catalogue,
        baskets,
        Timelines.of(events, segment_rules(folder)),
        window,
        bool(synthetic),
        _purposes(events, window),
        (folder / SUBJECTS_FILE).exists() and not synthetic,
        drawn_places(folder) if drawn else None,
    )


def _purposes(events: pa.Table, window: Window) -> dict[str, int]:
    learned = pc.and_(
        pc.equal(events["event_name"], "purchase"),
        pc.less(events["occurred_at"], pa.scalar(window.train_until)),
    )
    purposes = events["purposes"].filter(learned)
    kept = purposes.filter(pa.array(holds(purposes, PURPOSE)))
    found = Counter(", ".join(sorted(one)) for one in kept.to_pylist())
    return dict(sorted(found.items()))


def segment_rules(folder: Path) -> SegmentConfig:
    """The shop's own segment rules in `folder`, the defaults where there are none. UserError naming
    what is wrong with the file."""
    path = folder / SEGMENT_CONFIG
    return SegmentConfig.parse(path.read_bytes(), path.name) if path.exists() else DEFAULT


def _window(folder: Path, baskets: Baskets, days: dict[str, str | None]) -> Window:
    written = folder / SPLIT_FILE
    if written.exists():
        try:
            said = json.loads(written.read_text(encoding="utf-8"))
            chosen = {name: str(said[name]) for name in _FIELDS}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{SPLIT_FILE}: not readable ({error}); import again") from None
    else:
        chosen = _by_share(baskets)
    chosen |= {name: day for name, day in days.items() if day is not None}
    return Window(*(_midnight(name, chosen[name]) for name in _FIELDS))


_FIELDS = ("validate_from", "train_until", "test_until")


def _by_share(baskets: Baskets) -> dict[str, str]:
    first, last = from_us(baskets.occurred_us[0]), from_us(baskets.occurred_us[-1])
    end = last.date() + timedelta(days=1)
    length = (last - first).days + 1
    if length < 30:
        raise UserError(
            f"the purchases span {length} days; at least 30 are needed to train, choose and test"
        )
    test = end - timedelta(days=max(7, round(length * _TEST_SHARE)))
    validate = test - timedelta(days=max(5, round(length * _VALIDATION_SHARE)))
    return {
        "validate_from": validate.isoformat(),
        "train_until": test.isoformat(),
        "test_until": end.isoformat(),
    }


def _midnight(name: str, day: str) -> datetime:
    try:
        return datetime.fromisoformat(day).replace(tzinfo=UTC)
    except ValueError:
        option = "--" + name.replace("_", "-")
        raise UserError(f"{option}: {day!r} is not a date such as 2017-11-20") from None
