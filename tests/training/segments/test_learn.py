"""Planted kinds of shoppers are found again from their events, named, drawn and written; too little
to learn from is refused in one line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from contract.behaviour import BEHAVIOUR, LearnedSegments, never_ordered
from contract.errors import UserError
from contract.events import Event, EventItem
from contract.frames import EVENT_SCHEMA, event_row
from training.__main__ import main
from training.data.storage import events_writer
from training.segments.choice import Tried, chosen, tried
from training.segments.clustering import grown, k_means
from training.segments.learn import learn, read_behaviours
from training.segments.naming import named
from training.segments.validity import adjusted_rand

BEGIN = datetime(2017, 1, 1, tzinfo=UTC)
DAYS = 120
# (orders, items an order, price, share with a coupon, views): kinds that a shop would tell apart.
KINDS = ((24, 3, 300, 0.9, 0), (4, 20, 500, 0.0, 2), (0, 0, 0, 0.0, 15))
PER_KIND = 60


def _event(
    number: int, shopper: int, name: str, day: float, item_ids: list[str], **more: Any
) -> Event:
    price = more.pop("price", None)
    at = BEGIN + timedelta(days=day)
    return Event(
        event_id=UUID(int=number),
        event_name=name,  # type: ignore[arg-type]
        occurred_at=at,
        received_at=at,
        session_id=f"s-{number}",
        subject_id=UUID(int=1_000_000 + shopper),
        purposes=("analytics", "personalization"),
        items=tuple(EventItem(item_id=one, price=price) for one in item_ids),
        **more,
    )


def planted(seed: int) -> tuple[list[Event], dict[str, int]]:
    """The events of PER_KIND shoppers of each kind, and the kind of each subject."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    kinds: dict[str, int] = {}
    for kind, (orders, size, price, coupons, views) in enumerate(KINDS):
        for place in range(PER_KIND):
            shopper = kind * PER_KIND + place
            kinds[str(UUID(int=1_000_000 + shopper))] = kind
            for _ in range(rng.poisson(orders)):
                basket = [f"item-{n}" for n in rng.integers(0, 500, max(1, rng.poisson(size)))]
                number = len(events) + 1
                events.append(
                    _event(
                        *(number, shopper, "purchase", rng.uniform(0, DAYS), basket),
                        price=max(1, int(rng.normal(price, price / 10))),
                        coupon="SAVE10" if rng.random() < coupons else None,
                        transaction_id=f"t-{number}",
                        currency="USD",
                    )
                )
            for _ in range(1 + rng.poisson(views)):
                looked = [f"item-{rng.integers(0, 500)}"]
                day = rng.uniform(DAYS - 20, DAYS)
                events.append(_event(len(events) + 1, shopper, "view_item", day, looked))
    return events, kinds


def write_import(folder: Path, events: list[Event]) -> None:
    with events_writer(folder) as writer:
        writer.write(pa.Table.from_pylist([event_row(one) for one in events], EVENT_SCHEMA))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("planted")
    events, kinds = planted(0)
    write_import(folder, events)
    return folder, kinds


def test_planted_kinds_are_found_again(data: tuple[Path, dict[str, int]]) -> None:
    folder, kinds = data
    found = read_behaviours(folder, None)
    truth = np.array([kinds[subject] for subject in found.subjects])
    assert len(truth) == len(KINDS) * PER_KIND
    learned = learn(found.vectors, seed=0)
    assert learned.chosen.k == len(KINDS)
    assert adjusted_rand(learned.labels, truth) > 0.9
    assert adjusted_rand(learned.tree.cut(len(KINDS)), truth) > 0.9
    assert learned.chosen.mean_stability > 0.95
    # Told to serving by the same words and the same arithmetic.
    again = LearnedSegments.from_arrays(learned.segments.arrays())
    assert (again.nearest(found.vectors) == learned.labels).all()
    by_kind = {
        int(np.bincount(learned.labels[truth == kind]).argmax()): kind for kind in range(len(KINDS))
    }
    names = {kind: learned.segments.names[segment] for segment, kind in by_kind.items()}
    assert "promo-driven" in names[0]
    assert "many" in names[0]
    assert "large baskets" in names[1]
    assert "looks at much" in names[2]
    assert learned.segments.of_browsers
    # One in a hundred and more who never ordered make a kind; a stray one is none.
    browses = never_ordered(found.vectors)
    some = np.concatenate((found.vectors[~browses], found.vectors[browses][:1]))
    assert len(some) > 100
    assert not learn(some, seed=0, clusters=2).segments.of_browsers


def test_the_command_writes_what_it_found_and_the_same_again(
    data: tuple[Path, dict[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = data
    for name in ("one", "two"):
        told = tmp_path / f"{name}.json"
        arguments = ["segments", "--data", str(folder), "--output", str(tmp_path / name)]
        assert main([*arguments, "--clusters", "3", "--json", str(told)]) == 0
    files = ["segments.json", "segments.npz"]
    files += [f"{name}.{form}" for name in ("scatter", "dendrogram") for form in ("png", "svg")]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(files)
    for name in files:
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        if name.endswith("npz"):  # a zip archive, whose files carry the time
            with (
                np.load(tmp_path / "one" / name) as first,
                np.load(tmp_path / "two" / name) as then,
            ):
                assert all((first[array] == then[array]).all() for array in first.files)
        else:
            assert one == two, name
    summary = json.loads((tmp_path / "one" / "segments.json").read_text())
    assert summary["shoppers"] == sum(one["shoppers"] for one in summary["segments"]) == 180
    assert summary["chosen"] == 3
    # Everybody looks at something, and no event says its category.
    assert summary["without_spread"] == ["categories_viewed", "promotions"]
    rows = {row["name"]: row["metrics"] for row in json.loads(told.read_text())["rows"]}
    tried_row = rows["k-means, 3 segments"]
    assert len(tried_row["stability"]["values"]) == 10
    assert 0 < tried_row["silhouette"]["mean"] < 1
    svg = (tmp_path / "one" / "scatter.svg").read_text()
    assert all(segment["name"] in svg for segment in summary["segments"])
    assert "3 learned segments" in svg
    assert "cut into 3" in (tmp_path / "one" / "dendrogram.svg").read_text()
    assert (tmp_path / "one" / "scatter.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def test_behaviour_ends_where_the_training_time_does(
    data: tuple[Path, dict[str, int]],
) -> None:
    folder, _ = data
    early = read_behaviours(folder, BEGIN + timedelta(days=30))
    orders = BEHAVIOUR.index("orders")
    whole = read_behaviours(folder, None)
    views = BEHAVIOUR.index("items_viewed")
    assert early.vectors[:, views].max() == 0  # all looking came later
    assert whole.vectors[:, views].max() > 0
    assert np.expm1(early.vectors[:, orders]).sum() < np.expm1(whole.vectors[:, orders]).sum()
    split = {"validate_from": "2017-01-20", "train_until": "2017-01-31", "test_until": "2017-02-28"}
    (folder / "split.json").write_text(json.dumps(split))
    try:
        assert read_behaviours(folder, None).until == BEGIN + timedelta(days=30)
        assert (read_behaviours(folder, None).vectors == early.vectors).all()
    finally:
        (folder / "split.json").unlink()


def test_too_little_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, _ = planted(1)
    few = [one for one in events if one.subject_id.int < 1_000_020]
    write_import(tmp_path, few)
    arguments = ["segments", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1] == (
        "tillwise-train: 20 shoppers with behaviour; at least 100 are needed to tell segments apart"
    )
    assert not (tmp_path / "out").exists()
    assert main(["segments", "--data", str(tmp_path / "no"), "--output", "out"]) == 2
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--clusters", "1"])
    assert ended.value.code == 2


def test_all_alike_is_refused() -> None:
    with pytest.raises(UserError, match="too few shoppers differ"):
        learn(np.ones((500, len(BEHAVIOUR))), seed=0)


def test_a_segment_of_next_to_nobody_is_not_chosen() -> None:
    rng = np.random.default_rng(3)
    # Two heaps and two shoppers far away from both, who make the best third heap.
    heaps = [rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + 8, np.full((2, 3), 60.0)]
    vectors = np.concatenate(heaps)
    found = tried(vectors, grown(vectors, 0), [2, 3], 0)
    assert [one.smallest for one in found] == [200, 2]
    assert found[1].silhouette > found[0].silhouette
    assert chosen(found).k == 2
    with pytest.raises(UserError, match="choose one with --clusters"):
        chosen(found[1:])


def test_the_tree_of_many_is_grown_over_micro_clusters() -> None:
    rng = np.random.default_rng(4)
    vectors = np.concatenate([rng.normal(size=(800, 2)) + centre for centre in (0, 12, 24)])
    tree = grown(vectors, 0)
    assert len(tree.leaves) <= 300
    truth = np.repeat([0, 1, 2], 800)
    assert adjusted_rand(tree.cut(3), truth) == 1
    assert tree.linkage[-2, 2] > tree.height(3) > tree.linkage[-3, 2]
    assert (k_means(vectors, 3, 0) == k_means(vectors, 3, 0)).all()


def z(**figures: float) -> list[float]:
    return [figures.get(name, 0.0) for name in BEHAVIOUR]


def test_names_say_what_sets_apart() -> None:
    centroids = np.array(
        [
            z(orders=1.5, items_per_order=-1.0, coupon_share=0.8),
            z(spend_per_order=1.2, items_per_order=0.4, days_since_order=-0.5),
            z(items_viewed=2.0),
            z(orders=0.1),
            z(repeat_share=1.0),
            z(repeat_share=1.1),
        ]
    )
    assert named(centroids) == (
        "many small baskets",
        "high spend, bought lately",
        "looks at much",
        "ordinary shoppers",
        "buys the same again (1)",
        "buys the same again (2)",
    )
    # Where two would be called alike, what else sets them apart tells which is which.
    alike = np.array(
        [
            z(orders=1.5, items_per_order=-1.0, coupon_share=0.8),
            z(orders=1.5, items_per_order=-1.0, days_since_order=0.7),
        ]
    )
    assert named(alike) == ("many small baskets, promo-driven", "many small baskets, long absent")


def test_of_a_cloud_as_many_as_still_hold_up() -> None:
    """Figures as they come, without the clusters behind them."""

    def figures(k: int, silhouette: float, stability: float) -> Tried:
        some = np.arange(100) % k
        return Tried(k, np.zeros((k, 1)), some, silhouette, (stability,), 1.0, silhouette)

    cloud = [figures(2, 0.30, 0.95), figures(3, 0.25, 0.70), figures(4, 0.21, 0.90)]
    assert chosen(cloud).k == 4  # .21 >= 2/3 * .30, and stable
    assert chosen([*cloud, figures(5, 0.19, 0.99), figures(6, 0.25, 0.80)]).k == 4
    heaps = [figures(2, 0.45, 0.99), figures(3, 0.60, 0.99), figures(4, 0.55, 0.99)]
    assert chosen(heaps).k == 3
    assert chosen([figures(2, 0.3, 0.5), figures(3, 0.2, 0.6)]).k == 3  # none is stable
