"""The popular items of a release: one list for everybody, and one for each segment and region that
buys enough to have its own. Export writes them, a gateway reads them, and both choose by `of`.

Format 2 adds `lists` beside `all`, which is all that older releases have.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from contract.items import Indices
from contract.segment_config import RULES
from contract.segments import SEGMENTS, names

FORMAT: Final = 2
MAX_ITEMS: Final = 200  # in a list
MAX_LISTS: Final = 256
# A shopper is in several segments; the first of these that has a list speaks for them. What the
# shopper does stands before when and where they do it, and what is rare before what is common.
PRECEDENCE: Final[tuple[str, ...]] = (
    *("lapsing", "promo_seekers", "high_value_repeat_buyers", "browsing_explorers"),
    *("first_time_buyers", "prospects", "repeat_buyers", "unknown"),
    *(one for one in SEGMENTS if one not in RULES),
)
assert set(PRECEDENCE) == set(SEGMENTS)

Cell = tuple[str | None, str | None]  # (segment, region); None: any


@dataclass(frozen=True)
class PopularLists:
    """Vocabulary indices, best first: `overall`, and by cell, which is never (None, None)."""

    overall: Indices
    lists: Mapping[Cell, Indices] = field(default_factory=dict)

    def of(self, segments: Iterable[str], region: str | None) -> Indices:
        """The list of the closest cell: segment and region, region, segment, everybody."""
        if not self.lists:
            return self.overall
        held = set(segments)
        own = [name for name in PRECEDENCE if name in held]
        cells: list[Cell] = [(segment, None) for segment in own]
        if region is not None:
            cells = [*((segment, region) for segment in own), (None, region), *cells]
        return next((self.lists[cell] for cell in cells if cell in self.lists), self.overall)

    def of_situation(self, situation: Situation) -> Indices:
        """The list for one checkout. Segments are looked at only where that is agreed to; the
        region is part of the request."""
        if not self.lists:
            return self.overall
        region = situation.context.region if situation.context is not None else None
        held = names(situation.segments, situation.rules) if situation.personal else ()
        return self.of(held, region)

    def as_bytes(self, vocabulary: Vocabulary) -> bytes:
        """What is written."""

        def ids(index: Indices) -> list[str]:
            return [vocabulary.item_id(int(one)) for one in index]

        lists = [
            {"segment": segment, "region": region, "items": ids(index)}
            for (segment, region), index in self.lists.items()
        ]
        held = {"format": FORMAT, "all": ids(self.overall), "lists": lists}
        return (json.dumps(held) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, vocabulary: Vocabulary) -> "PopularLists":
        """What was written, also before there was a format; ValueError where it is something
        else, names an unknown item or one of them twice."""
        try:
            held = json.loads(content)
            version, overall = held.get("format", 1), held["all"]
            lists = held["lists"] if version >= FORMAT else []
            cells = [((one["segment"], one["region"]), one["items"]) for one in lists]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                "needs a list of item ids under 'all', and lists by segment"
            ) from error
        if version > FORMAT:
            raise ValueError(f"is of format {version}, this version reads {FORMAT}")
        wrong = [cell for cell, _ in cells if not _is_cell(*cell)]
        if wrong:
            raise ValueError(f"has a list for {wrong[0]}, which is no segment and region")
        if len(cells) > MAX_LISTS or len(dict(cells)) < len(cells):
            raise ValueError(f"has more than {MAX_LISTS} lists, or two for one cell")
        return cls(
            _indices(overall, vocabulary),
            {cell: _indices(items, vocabulary) for cell, items in cells},
        )


def _is_cell(segment: Any, region: Any) -> bool:
    return (
        (segment is None or segment in SEGMENTS)
        and (region is None or isinstance(region, str))
        and (segment, region) != (None, None)
    )


def _indices(items: Any, vocabulary: Vocabulary) -> Indices:
    if not isinstance(items, list) or not all(isinstance(one, str) for one in items):
        raise ValueError("needs lists of item ids")
    if len(items) > MAX_ITEMS:
        raise ValueError(f"has a list of more than {MAX_ITEMS} items")
    found = vocabulary.indices(items)
    if (found < FIRST_ITEM).any() or len(np.unique(found)) != len(found):
        raise ValueError("names an unknown item, or one of them twice")
    return found
