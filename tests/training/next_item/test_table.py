"""Splits, mixtures, the table and its command on a small shop."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contract.errors import UserError
from contract.session_knn import SessionKnn
from tests.training.next_item.sequence_shop import lists, sequences, vocabulary
from training.__main__ import main
from training.evaluation.next_item_table import paired
from training.models.next_item import SequenceBatch
from training.next_item import split
from training.next_item.augmentation import Augmentation
from training.next_item.fit import NextItemFit
from training.next_item.measures import metrics_of
from training.next_item.recipe import sequence_recipe
from training.next_item.recommender import KnnSetting, Neighbours
from training.next_item.task import places_in

SMALL = ["dimension=16", "epochs=6", "learning_rate=0.02", "members=2", "cosine=1", "batch_size=32"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sequences.txt"
    rows = [f"{user} {' '.join(row)}" for user, row in enumerate(lists(200))]
    path.write_text("\n".join([*rows, "900 i1", "901 i1 i2"]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = lists(260, seed=3)
    train, test = made[:200], made[200:]
    pq.write_table(pa.table({"item_ids": train}), tmp_path / "train_sessions.parquet")
    asked = {"history": [row[:-1] for row in test], "target": [row[-1] for row in test]}
    pq.write_table(pa.table(asked), tmp_path / "test_instances.parquet")
    return tmp_path


def test_leave_one_out_asks_for_the_last_and_chooses_on_the_one_before(file: Path) -> None:
    found = split.leave_one_out(file)
    first = lists(200)[0]
    names = [
        found.vocabulary.item_id(int(i)) for i in (found.test.target[0], found.held_out.target[0])
    ]
    assert names == [first[-1], first[-2]]
    assert found.test.history.lengths[0] == len(first) - 1
    assert len(found.test) == 200
    again = sum(row[-1] in row[:-1] for row in lists(200))
    assert again > 0
    assert found.notes == [
        "2 users of fewer than three items are only learned from",
        f"{again} targets are in their own history: missed by everybody",
    ]
    learned = sum(len(row) - 2 for row in lists(200)) + 3
    assert len(found.train.item) == learned
    # Learned from in the end: all but the item that is asked, and whoever has too few.
    everything = found.everything
    assert len(everything.item) == learned + 200
    assert np.array_equal(everything.where(np.arange(200)).item, found.test.history.item)


def test_sessions_choose_on_the_latest_and_learn_from_all_in_the_end(folder: Path) -> None:
    found = split.sessions(folder)
    assert len(found.everything) == 200
    assert len(found.train) == 183
    assert len(found.test) == 60


def test_metrics_are_arithmetic() -> None:
    places = np.array([1.0, 3.0, np.inf])
    assert metrics_of("session", places, (2,)) == pytest.approx({"P@2": 1 / 3, "MRR@2": 1 / 3})
    assert metrics_of("leave-one-out", places, (10,)) == pytest.approx(
        {"HR@10": 2 / 3, "NDCG@10": (1 + 1 / 2) / 3}
    )


def test_equal_scores_count_against_the_target_and_the_impossible_is_not_found() -> None:
    scores = torch.tensor([[float("-inf"), 0.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert places_in(scores, np.array([2, 0])).tolist() == [2.0, float("inf")]
    assert places_in(scores, np.array([0, 4])).tolist() == [float("inf"), 5.0]


def test_neighbours_shares_are_those_of_the_one_scoring() -> None:
    known = sequences(100)
    near = Neighbours.fit(known, len(vocabulary()), KnnSetting(500, 50, 2, keeps_current=False))
    shares = near.shares(known, np.array([3]), len(vocabulary()))
    history = known.item[known.offsets[3] : known.offsets[4]]
    number = np.repeat(np.arange(len(known)), known.lengths)
    index = SessionKnn.fit(
        number, known.item, number, num_items=len(vocabulary()), m=500, k=50, query_items=2
    )
    items, scores = index.score(history, drop=history[-1:])
    assert shares[0, items].numpy() == pytest.approx(scores / scores.sum())
    assert float(shares.sum()) == pytest.approx(1.0)


def test_the_paired_test_says_who_won() -> None:
    better, worse = np.ones(40), np.full(40, np.inf)
    assert "p=1.8e-12: ours wins" in paired("ours", better, worse, 10)
    assert "session-knn wins" in paired("ours", worse, better, 10)
    assert "neither wins" in paired("ours", better, better, 10)


@pytest.mark.parametrize("kind", ["crop", "mask", "reorder"])
def test_augmentation_never_shows_an_answer_nor_asks_for_another(kind: str) -> None:
    items = torch.arange(2, 26).view(3, 8)
    batch = SequenceBatch(items, torch.ones_like(items), torch.ones_like(items), items + 1)
    generator = torch.Generator().manual_seed(1)
    changed = Augmentation(**{kind: 1.0 if kind != "mask" else 0.5}).apply(batch, generator)
    assert not torch.equal(changed.items, batch.items)
    asked = changed.targets > 0
    assert torch.equal(changed.targets[asked], batch.targets[asked])
    for row in range(3):
        for place in torch.nonzero(asked[row])[:, 0].tolist():
            assert int(changed.targets[row, place]) not in changed.items[row, : place + 1].tolist()


def test_a_fit_learns_the_rule_and_one_seed_gives_one_model(file: Path) -> None:
    found = split.leave_one_out(file)
    recipe = sequence_recipe("sequences", SMALL)
    first, again = (NextItemFit(found, recipe, device=torch.device("cpu")) for _ in range(2))
    places, repeated = (fit.run().places(found.test) for fit in (first, again))
    assert np.array_equal(places, repeated)
    assert metrics_of("leave-one-out", places, (1,))["HR@1"] > 0.5
    trained = {"member 1", "member 1 on everything", "member 2 on everything"}
    assert set(first.report.histories) == trained


@pytest.mark.parametrize("protocol", ["leave-one-out", "session"])
def test_the_command_prints_one_table(
    protocol: str, file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = file if protocol == "leave-one-out" else folder
    changed = [part for setting in SMALL for part in ("--set", setting)]
    arguments = ["benchmark", protocol, "--data", str(data), "--seeds", "2", *changed]
    assert main([*arguments, "--set", "epochs=2"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    rows = [line.split()[0] for line in lines if not line.startswith("note")]
    assert rows == [
        "popularity",
        "item-knn",
        "session-knn",
        *(["tillwise/sampled-softmax"] if protocol == "leave-one-out" else []),
        "tillwise/before-refit-one-member",
        "tillwise/before-refit",
        "tillwise/one-member",
        "tillwise/members",
        "tillwise",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no sequences"),
        ("1 a\n2 b\n", "no user has three items"),
        ("1\n", "without items"),
    ],
)
def test_files_that_cannot_be_asked_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        split.leave_one_out(path)


def test_settings_that_make_no_model_are_refused() -> None:
    for setting, said in (
        ("block=lstm", "unknown"),
        ("readout=mean", "unknown"),
        ("heads=3", "divide"),
        ("mask=2", "share"),
    ):
        with pytest.raises(UserError, match=said):
            sequence_recipe("sequences", [setting])
    with pytest.raises(UserError, match="needs negatives=0"):
        sequence_recipe("sequences", ["repeats=1", "negatives=32"])
