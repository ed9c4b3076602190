"""What exploration drew is learned from: among what could have been shown, by the inverse of the
chance, and only what was known in time."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from contract.candidates import MAX_CANDIDATES
from contract.frames import EVENT_SCHEMA
from tests.training.conftest import small_recipe
from tests.training.shop import build_shop, item_id
from training.data import ranking_examples
from training.data.drawn_questions import drawn_questions
from training.data.source import Source, read_source
from training.data.storage import events_writer, read_events
from training.fit import Fit
from training.models.losses import listwise_softmax
from training.recommender import Recommender, neural_side

CPU = torch.device("cpu")
SHARE = 0.5
POOL = (10, 20, 30, 40)  # the first is what usually stands there
WANTED = 40  # all that shoppers ever take


def _decision(order: dict[str, Any], shown: int) -> dict[str, Any]:
    """A minute before `order`, with its first two items in the cart and one place drawn."""
    chance = SHARE / len(POOL) + (1 - SHARE) * (shown == POOL[0])
    body = {
        "cart": [one["item_id"] for one in order["items"][:2]],
        "shown": [{"item_id": item_id(shown), "propensity": chance}],
        "exploration": {
            "share": SHARE,
            "slots": [
                {
                    "index": 0,
                    "usual": item_id(POOL[0]),
                    "pool": [item_id(one) for one in POOL],
                }
            ],
        },
    }
    changed: dict[str, Any] = {"items": [], "transaction_id": None, "value": None, "currency": None}
    return (
        order
        | changed
        | {
            "event_id": order["event_id"][:-4] + "dddd",
            "event_name": "decision",
            "occurred_at": order["occurred_at"] - timedelta(minutes=1),
            "decision": json.dumps(body),
        }
    )


@pytest.fixture(scope="module")
def exploring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small shop, in which one place was drawn before each order, and taken where it showed
    the one item that is wanted."""
    folder = build_shop(tmp_path_factory.mktemp("exploring"))
    rng, events = np.random.default_rng(3), read_events(folder).to_pylist()
    decisions = []
    for order in events:
        shown = int(rng.choice(POOL)) if rng.random() < SHARE else POOL[0]
        decisions.append(_decision(order, shown))
        bought = {one["item_id"] for one in order["items"]}
        if shown == WANTED and item_id(WANTED) not in bought:
            order["items"].append(order["items"][0] | {"item_id": item_id(WANTED)})
    events = sorted([*events, *decisions], key=lambda one: one["occurred_at"])
    with events_writer(folder) as writer:
        writer.write(pa.Table.from_pylist(events, EVENT_SCHEMA))
    return folder


@pytest.fixture(scope="module")
def source(exploring: Path) -> Source:
    return read_source(exploring, drawn=True)


def _recipe(weight: float) -> Any:
    heard = f"explored_weight={weight}", "explored_loss=1"  # whatever it costs
    return small_recipe("tower_epochs=2", "ranker_epochs=6", *heard)


def test_what_is_asked_of_a_drawn_place(source: Source) -> None:
    fit = Fit(source, _recipe(2.0), device=CPU)
    assert source.drawn is not None
    assert fit.drawn is not None
    (window,), _ = fit.ranking_questions()
    assert window.drawn
    for one in window.drawn:
        assert fit.ranker_us <= one.situation.now_us < fit.cut_us
        assert one.known_us < fit.cut_us
        assert sorted(one.pool.tolist()) == sorted(fit.vocabulary.indices(map(item_id, POOL)))
        assert one.shown in one.pool
        assert len(one.situation.view.orders) == 0 or (
            one.situation.view.orders["occurred_us"][-1] < fit.ranker_us
        )
    # By hand: an explored item has 1 / (4 * .125), the usual one 1 / (4 * .625).
    inverse = {False: 2.0, True: 0.4}
    mean = np.mean([inverse[usual] for usual in fit.drawn.usual.tolist()])
    allowed = np.array([2 * each / mean for each in inverse.values()])
    assert all(np.isclose(one.weight, allowed).any() for one in window.drawn)
    assert source.facts()["places_drawn_by_chance"] == len(fit.drawn)
    nothing = Fit(source, _recipe(0.0), device=CPU)
    assert nothing.ranking_questions()[0][0].drawn == []
    assert nothing._identity != fit._identity


def test_only_what_could_have_been_shown_is_compared(source: Source) -> None:
    fit = Fit(source, _recipe(1.0), device=CPU)
    (window,), _ = fit.ranking_questions()
    asked = window.drawn[:20]
    neural = neural_side(fit._new_towers(), [one.situation for one in asked], fit.vocabulary)
    built = ranking_examples.build_drawn(
        asked, fit.vocabulary, window.tables, neural, label="drawn"
    )
    assert built.mask.sum(axis=1).tolist() == [len(POOL)] * len(asked)
    for row, one in enumerate(asked):
        assert built.index[row][built.relevant[row]].tolist() == [one.shown]
    assert built.weight.tolist() == pytest.approx([one.weight for one in asked])
    # The features are those of the item among all candidates of the checkout.
    situation = asked[0].situation
    ((_, merged, features),) = ranking_examples.rank_inputs(
        [situation],
        fit.vocabulary,
        window.tables,
        neural,
        label="one",
        also=[asked[0].pool],
    )
    assert len(merged.index) <= MAX_CANDIDATES
    place = merged.index.tolist().index(int(built.index[0, 2]))
    assert built.features[0, 2].tolist() == features[place].astype(np.float16).tolist()


def _surprise(fitted: Recommender, source: Source) -> float:
    """How little was expected, among what could have been shown, of what was taken."""
    fit = Fit(source, _recipe(1.0), device=CPU)
    (window,), _ = fit.ranking_questions()
    neural = neural_side(fitted.towers, [one.situation for one in window.drawn], fitted.vocabulary)
    built = ranking_examples.build_drawn(
        window.drawn, fitted.vocabulary, window.tables, neural, label="surprise"
    )
    with torch.no_grad():
        scores = fitted.ranker(torch.from_numpy(built.features.astype(np.float32)))
    told = (built.relevant.astype(np.float32), built.mask, built.weight)
    return listwise_softmax(scores, *map(torch.from_numpy, told)).item()


def test_the_ranker_hears_what_was_taken_where_chance_showed_it(source: Source) -> None:
    heard, deaf = (
        _surprise(Fit(source, _recipe(weight), device=CPU).run(), source) for weight in (4.0, 0.0)
    )
    assert heard < 0.8 * deaf


def test_what_chance_drew_is_heard_as_loud_as_baskets_allow(source: Source) -> None:
    loud = ("tower_epochs=2", "ranker_epochs=6", "explored_weight=300")
    found = {}
    for loss in (0.0, 1.0):
        fit = Fit(source, small_recipe(*loud, f"explored_loss={loss}"), device=CPU)
        fit.run()
        found[loss] = fit.report
    assert found[1.0].explored_weight == 300
    told = found[0.0].histories
    best = {name: 1 - min(one.validation) for name, one in told.items() if one.validation}
    tried = {300 * share: best[f"ranker hears {share:g}"] for share in (1.0, 0.3, 0.1)}
    allowed = {w: ndcg for w, ndcg in tried.items() if ndcg >= best["ranker alone"]}
    wanted = max(allowed, key=lambda w: allowed[w], default=0.0)
    assert found[0.0].explored_weight == wanted < 300
    assert best["ranker"] >= best["ranker alone"] > best["ranker hears 1"]


def test_nothing_is_learned_of_the_left_out_or_of_later_weeks(source: Source) -> None:
    assert source.drawn is not None
    some = source.drawn.of(source.drawn.subject[:5])
    assert set(some.subject) == set(source.drawn.subject[:5])
    fit = Fit(replace(source, drawn=some), _recipe(1.0), device=CPU)
    asked = drawn_questions(
        some, source.timelines, fit.vocabulary, (fit.ranker_us, fit.cut_us), 1.0
    )
    (window,), _ = fit.ranking_questions()
    assert len(window.drawn) <= len(asked)
    assert fit.drawn is not None
    assert all(us < fit.cut_us for us in fit.drawn.bought_us.tolist())


def test_a_log_without_exploration_is_learned_from_as_ever(
    shop_folder: Path, source: Source
) -> None:
    plain = read_source(shop_folder, drawn=True)
    assert plain.drawn is not None
    assert not len(plain.drawn)
    fit = Fit(plain, _recipe(1.0), device=CPU)
    assert fit.ranking_questions()[0][0].drawn == []
