"""Sequence recipes on imported folders: the same questions as from the files themselves, and a run
that is fitted, read back, measured, and refused where it does not belong."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contract.clock import MICROSECONDS, FixedClock, from_us
from contract.encoding import gap_buckets
from contract.errors import UserError
from contract.events import EVENT_TYPE
from tests.training.data.event_logs import START, event, write
from tests.training.next_item.sequence_shop import lists
from training.__main__ import main
from training.data.encoded_sequences import read_sequences
from training.data.sequences import import_sequences
from training.data.sessions import import_sessions
from training.next_item import imported, split
from training.next_item.fit import NextItemFit, Report
from training.next_item.recipe import sequence_recipe
from training.next_item.run_folder import read_run, write_run
from training.next_item.sequences import Questions

CPU = torch.device("cpu")
SMALL = ["dimension=16", "epochs=3", "learning_rate=0.02", "members=2", "batch_size=32"]
FEW = [part for setting in SMALL for part in ("--set", setting)]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "sequences.txt"
    rows = [f"{user} {' '.join(row)}" for user, row in enumerate(lists(120))]
    file.write_text("\n".join([*rows, "900 i1", "901 i1 i2"]) + "\n")
    import_sequences(file, file.parent / "imported")
    return file


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, made = tmp_path_factory.mktemp("visits"), lists(200, seed=3)
    pq.write_table(pa.table({"item_ids": made[:150]}), folder / "train_sessions.parquet")
    asked = pa.table(
        {"history": [row[:-1] for row in made[150:]], "target": [row[-1] for row in made[150:]]}
    )
    pq.write_table(asked, folder / "test_instances.parquet")
    import_sessions(folder, folder / "imported")
    return folder


def asked(questions: Questions, one: split.Split) -> list[tuple[tuple[str, ...], str]]:
    """Histories and targets as item ids."""
    history, name = questions.history, one.vocabulary.item_id
    bounds = zip(history.offsets[:-1], history.offsets[1:], questions.target, strict=True)
    return [
        (tuple(name(int(item)) for item in history.item[start:end]), name(int(target)))
        for start, end, target in bounds
    ]


def test_leave_one_out_asks_the_same_of_the_file_and_of_its_import(users: Path) -> None:
    of_file = split.leave_one_out(users)
    of_import = imported.read_split(users.parent / "imported", "leave-one-out")
    for part in ("held_out", "test"):
        first, second = (getattr(one, part) for one in (of_file, of_import))
        assert sorted(asked(first, of_file)) == sorted(asked(second, of_import))
    assert len(of_file.train) == len(of_import.train) == 122


def test_sessions_ask_the_same_of_the_files_and_of_their_import(visits: Path) -> None:
    of_files = split.sessions(visits)
    of_import = imported.read_split(visits / "imported", "session")
    for part in ("held_out", "test"):
        first, second = (getattr(one, part) for one in (of_files, of_import))
        assert asked(first, of_files) == asked(second, of_import)
    assert of_import.train.gap is not None
    assert set(of_import.train.gap.tolist()) == {1}  # ten seconds apart
    # What is chosen on was not learned from before the choice.
    learned, whole = of_import.train, of_import.everything
    assert np.array_equal(learned.item, whole.item[: len(learned.item)])
    assert len(of_import.held_out) == len(whole.item) - len(learned.item) - (
        len(whole) - len(learned)
    )


def test_events_bring_their_kinds_and_the_time_between_them(shop_folder: Path) -> None:
    one = imported.read_split(shop_folder, "leave-one-out")
    assert one.train.event_type is not None
    assert one.train.gap is not None
    assert set(one.train.event_type.tolist()) >= {EVENT_TYPE["purchase"]}
    days = gap_buckets(np.array([day * 86_400 * MICROSECONDS for day in (2, 9)]))
    assert ((one.train.gap >= days[0]) & (one.train.gap <= days[1])).any()
    first = one.train.offsets[:-1]
    assert set(one.train.gap[first].tolist()) == {1}


def test_without_test_instances_the_latest_visits_are_asked(shop_folder: Path) -> None:
    one = imported.read_split(shop_folder, "session")
    assert len(one.test) > 50
    assert (one.test.history.lengths > 0).all()
    known = one.everything.item
    assert np.array_equal(one.train.item, known[: len(one.train.item)])
    # Nothing that is asked was learned from: all visits are those learned from and those asked.
    whole = read_sequences(shop_folder, by="session", events=imported.CHOSEN)
    asked_visits = round(0.1 * len(whole))
    assert len(one.everything) == len(whole) - asked_visits
    begins = whole.occurred_us[whole.offsets[:-1]]
    latest = np.argsort(begins, kind="stable")[-asked_visits:]
    questions = int(np.maximum(np.diff(whole.offsets)[latest] - 1, 0).sum())
    assert len(one.test) == questions


def test_a_search_tells_what_comes_next(tmp_path: Path) -> None:
    """Nothing but the search says which of two items is viewed next."""
    chance, events = Random(0), []
    for visit in range(300):
        wanted = chance.randrange(2)
        told = [("view_item", f"start-{chance.randrange(8)}", None), ("search", None, wanted)]
        for place, (name, item, term) in enumerate([*told, ("view_item", f"end-{wanted}", None)]):
            events.append(
                event(
                    event_id=f"{visit:03d}-{place}",
                    event_name=name,
                    occurred_at=START + timedelta(hours=visit, seconds=place),
                    subject_id=f"s{visit}",
                    session_id=f"v{visit}",
                    purposes=["personalization"],
                    items=[item] if item else [],
                    search_term=None if term is None else ("red shoes", "a blue hat")[term],
                )
            )
    one = imported.read_split(write(tmp_path / "log", events), "session")
    settings = ["dimension=16", "members=1", "epochs=12", "batch_size=32", "learning_rate=0.02"]
    chosen = sequence_recipe("sessions", settings)
    found = NextItemFit(one, chosen, device=CPU).run()
    assert (replace(found, mixture=0.0).places(one.test) == 1).mean() > 0.95
    silent = replace(one.test.history, words=None)
    deaf = replace(found, mixture=0.0).places(Questions(silent, one.test.target))
    assert (deaf == 1).mean() < 0.7
    write_run(tmp_path / "run", found, chosen, one, Report(), FixedClock(from_us(0)))
    again = read_run(tmp_path / "run", CPU).recommender
    assert np.array_equal(again.places(one.test), found.places(one.test))


@pytest.mark.parametrize("shape", ["sequences", "sessions"])
def test_fit_read_back_evaluate(
    shape: str,
    users: Path,
    visits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = str((users.parent if shape == "sequences" else visits) / "imported")
    protocol, run = imported.PROTOCOL_OF[shape], tmp_path / "run"
    assert main(["fit", "--data", data, "--recipe", shape, "--output", str(run), *FEW]) == 0
    assert protocol in capsys.readouterr().out
    evaluate = ["evaluate", str(run), "--data", data, "--protocol"]
    assert main([*evaluate, protocol, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    own = next(iter(rows["tillwise"]["metrics"].values()))
    assert 0.3 < own["values"][0] <= 1
    assert (run / f"evaluation-{protocol}.json").exists()

    split_ = imported.read_split(Path(data), protocol)
    fitted = read_run(run, CPU).recommender
    hits = fitted.places(split_.test) <= split_.cutoffs[-1]
    assert hits.mean() == pytest.approx(own["values"][0])

    other = next(one for one in imported.PROTOCOL_OF.values() if one != protocol)
    for refused, reason in (
        ([*evaluate, other], f"fitted for {protocol}, not {other}"),
        ([*evaluate, "basket-completion"], "is no release"),
        (["export", str(run)], "is no release"),
    ):
        assert main(refused) == 2
        assert reason in capsys.readouterr().err


def test_what_cannot_be_fitted_or_read_is_said_in_one_line(
    users: Path, visits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = str(users.parent / "imported"), tmp_path / "run"
    fit = ["fit", "--data", data, "--recipe", "sequences", "--output", str(run), *FEW]
    assert main([*fit, "--folds", "3"]) == 2
    assert "neither --folds nor a window applies" in capsys.readouterr().err
    assert main([*fit, "--set", "epochs=1", "--set", "members=1"]) == 0
    evaluate = ["evaluate", str(run), "--protocol", "leave-one-out", "--data"]
    assert main([*evaluate, str(visits / "imported")]) == 2
    assert "other items" in capsys.readouterr().err
    kept = (run / "session_knn.npz").read_bytes()
    for torn in (b"", kept[:100]):
        (run / "session_knn.npz").write_bytes(torn)
        with pytest.raises(UserError, match="not readable"):
            read_run(run, CPU)
    (run / "weights.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"weights\.pt"):
        read_run(run, CPU)
    (run / "run.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        read_run(run, CPU)
