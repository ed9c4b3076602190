"""A shop of five items whose every figure can be followed by hand, and shops made at random."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from contract import features
from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from contract.events import Event, EventContext
from contract.items import (
    ITEM_STATISTICS,
    CategoryLift,
    Floats,
    Indices,
    ItemNeighbours,
    ItemTable,
    category_codes,
)
from contract.session_knn import SessionKnn
from tests.contract.examples import ITEM_IDS, logs, us

VOCABULARY = Vocabulary(ITEM_IDS)
MILK, BREAD, EGGS, SOAP, TEA = range(FIRST_ITEM, FIRST_ITEM + 5)
CATEGORIES = (
    ("FOOD", "DAIRY", "FRESH"),
    ("FOOD", "BAKERY"),
    ("FOOD", "DAIRY", "EGGS"),
    ("HOME", "BATH", "SOAP"),
    (),
)


def situation(
    *log: Event, day: float, cart: tuple[str, ...] = (), context: EventContext | None = None
) -> Situation:
    state: features.SubjectState = {}
    for one in log:
        state = features.update(state, one)
    return Situation(features.view(state, us(day)), cart, us(day), context)


def item_table() -> ItemTable:
    """Popularity log1p(n) for n = 9, 8, 7, 6, 0 baskets and so on; tea was never sold."""

    def column(*values: float) -> Floats:
        return np.array(values, np.float32)

    return ItemTable.from_columns(
        {
            "popularity": column(3.0, 2.5, 2.0, 1.0, 0.0),
            "recent_popularity": column(2.0, 2.5, 1.0, 1.5, 0.0),
            "weekly_popularity": column(1.0, 1.5, 0.5, 0.0, 0.0),
            "buyers": column(2.0, 2.5, 1.0, 0.5, 0.0),
            "repeat_rate": column(0.5, 0.25, 0.0, 1.0, 0.0),
            "gap_days": column(7.0, 0.5, 14.0, 30.0, 0.0),
            "price_level": column(5.0, 4.0, 3.0, 2.0, 0.0),
        },
        category_codes(CATEGORIES),
    )


def neighbours() -> ItemNeighbours:
    """Bread and milk go together, eggs with both; nothing goes with soap or tea, not even with
    their categories. 20 baskets were counted."""
    near = np.zeros((len(VOCABULARY), 2), np.int32)
    similarity = np.zeros((len(VOCABULARY), 2), np.float32)
    near[MILK], similarity[MILK] = (BREAD, EGGS), (0.5, 0.25)
    near[BREAD], similarity[BREAD] = (MILK, EGGS), (0.5, 0.125)
    near[EGGS], similarity[EGGS] = (MILK, BREAD), (0.25, 0.125)
    wide, narrow = CategoryLift.nothing(7), CategoryLift.nothing(7)
    wide.group[[MILK, EGGS, BREAD, SOAP]] = 1, 1, 2, 3  # DAIRY, BAKERY, BATH
    narrow.group[[MILK, BREAD, EGGS, SOAP]] = 1, 2, 3, 4
    wide_lift, narrow_lift = np.zeros((4, 4), np.float32), np.zeros((5, 5), np.float32)
    for lift, pair, value in (
        (wide_lift, (1, 1), 2.0),
        (wide_lift, (1, 2), 1.0),
        (wide_lift, (1, 3), -1.0),
        (wide_lift, (2, 3), -0.5),
        (narrow_lift, (1, 2), 1.5),
        (narrow_lift, (1, 3), 0.5),
        (narrow_lift, (2, 4), -1.0),
        (narrow_lift, (3, 4), -0.5),
    ):
        lift[pair] = lift[pair[::-1]] = value
    return ItemNeighbours(
        near,
        similarity,
        replace(wide, log_lift=wide_lift),
        replace(narrow, log_lift=narrow_lift),
        20.0,
    )


def sessions() -> SessionKnn:
    """Three sessions: milk and bread; milk and eggs; soap alone."""
    rows = [(1, MILK), (1, BREAD), (2, MILK), (2, EGGS), (3, SOAP)]
    session, item = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return SessionKnn.fit(session, item, np.arange(len(rows)), num_items=len(VOCABULARY))


WORDS = (*ITEM_IDS, "unheard of", "")
CONTEXTS = st.one_of(
    st.none(),
    st.builds(
        EventContext,
        device=st.sampled_from(("desktop", "mobile", "tablet", "other", None)),
        country=st.sampled_from(("US", "DE", None)),
        region=st.sampled_from(("OH", "Île-de-France", None)),
        timezone=st.sampled_from(("America/New_York", "Nowhere", "", None)),
    ),
)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Anything that may stand before the encoder, longer than it can hold included."""
    state: features.SubjectState = {}
    for one in draw(logs()):
        state = features.update(state, one)
    now_us = us(draw(st.sampled_from((-1.0, 0.2, 1.0, 4_000.0))))
    words = st.sampled_from(WORDS)
    return Situation(
        features.view(state, now_us),
        draw(st.lists(words, max_size=4)) * draw(st.sampled_from((1, 20))),
        now_us,
        draw(CONTEXTS),
        draw(st.lists(words, max_size=4)) * draw(st.sampled_from((1, 20))),
        draw(st.lists(st.text(max_size=20), max_size=3)),
    )


def random_table(seed: int) -> ItemTable:
    """Statistics at random, a third of them zero."""
    chance = np.random.default_rng(seed)

    def column() -> Floats:
        values = chance.uniform(0, 30, len(ITEM_IDS)) * (chance.random(len(ITEM_IDS)) > 1 / 3)
        return values.astype(np.float32)

    statistics = {name: column() for name in ITEM_STATISTICS}
    return ItemTable.from_columns(statistics, category_codes(CATEGORIES))


def indices(*items: int) -> Indices:
    return np.array(items, np.int64)
