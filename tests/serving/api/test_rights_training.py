"""What training makes of the log after an erasure: neither the run, nor its checkpoints, nor the
next release holds a name of whoever is gone, or anything that only they taught it."""

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contract.clock import FixedClock
from contract.encoding import Vocabulary
from contract.events import key_of
from tests.serving.api.test_rights import erase, exported, rows_of
from tests.serving.api.test_subjects_and_consent import resolve
from tests.serving.conftest import ALL, Running, Start
from tests.serving.traces import forms_of, standing_in
from tests.training.conftest import small_recipe
from tests.training.shop import WINDOW, build_shop
from training.data.source import read_source
from training.data.storage import CATALOGUE_FILE, write_catalogue, write_split
from training.export.release import export as export_release
from training.fit import Fit
from training.run_folder import read_run, write_run

LATER = datetime(2024, 5, 10, tzinfo=UTC)
SOON = ("tower_epochs=1", "ranker_epochs=1", "tower_examples=300", "ranker_examples=100")
THEIRS = "item-that-only-one-shopper-buys"
GOES = "shopper-who-goes"


def shopped(folder: Path) -> list[dict[str, Any]]:
    """A small shop's purchases as a caller sends them; the first shopper is the one who goes, and
    buys something that nobody else does."""
    rows = pq.read_table(next((folder / "events").glob("*.parquet"))).to_pylist()
    first = rows[0]["subject_id"]
    return [
        {
            "event_id": row["event_id"],
            "event_name": "purchase",
            "occurred_at": row["occurred_at"].isoformat(),
            "session_id": f"session-{row['session_id']}-end",
            "transaction_id": f"transaction-{row['session_id']}-end",
            "visitor_id": GOES if row["subject_id"] == first else f"visitor-{row['subject_id']}",
            "consent": ALL,
            "items": [{"item_id": item["item_id"], "price": item["price"]} for item in row["items"]]
            + ([{"item_id": THEIRS, "price": 5}] if row["subject_id"] == first else []),
        }
        for row in rows
    ]


def catalogue_of(folder: Path) -> pa.Table:
    """The shop's catalogue, with the item that only one shopper buys."""
    table = pq.read_table(folder / CATALOGUE_FILE)
    one = table.slice(0, 1).to_pylist()[0] | {"item_id": THEIRS, "title": "Rare"}
    return pa.concat_tables([table, pa.Table.from_pylist([one], table.schema)])


def fit(data: Path, folder: Path) -> Vocabulary:
    """The next fit, into `run`; its checkpoints are kept."""
    source, recipe = read_source(data), small_recipe(*SOON)
    kept = folder / "checkpoints"
    fitting = Fit(source, recipe, device=torch.device("cpu"), checkpoints=kept)
    recommender = fitting.run()
    assert list(kept.glob("*.pt"))
    write_run(folder / "run", recommender, recipe, source, fitting.report, FixedClock(LATER))
    return recommender.vocabulary


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """What is in the files below `folder`, as it lies there and taken out of its wrapping."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        yield path, path.read_bytes()
        if path.suffix == ".parquet":
            yield path, repr(pq.read_table(path).to_pylist()).encode()
        elif zipfile.is_zipfile(path):  # arrays and checkpoints
            with zipfile.ZipFile(path) as packed:
                for name in packed.namelist():
                    yield path, packed.read(name)


def traces(folder: Path, names: set[str]) -> list[str]:
    """Where below `folder` any of `names` stands, as text, as an id or as the key of it."""
    wanted = {form: name for name in names for form in forms_of(name)}
    wanted |= {np.uint64(key_of(name)).tobytes(): name for name in names}
    return [
        f"{name} in {path.name}"
        for path, content in contents(folder)
        for name in {wanted[form] for form in standing_in(content, wanted)}
    ]


async def shop(running: Running, sent: list[dict[str, Any]]) -> None:
    for start in range(0, len(sent), 500):
        answer = await running.post("/v1/events", {"events": sent[start : start + 500]})
        assert {one["status"] for one in answer.json()["results"]} == {"accepted"}


@pytest.mark.timeout(900)
async def test_the_next_fit_and_release_know_nothing_of_who_is_gone(
    start: Start, tmp_path: Path
) -> None:
    made = build_shop(tmp_path / "shop")
    sent = shopped(made)
    running = await start(clock=FixedClock(LATER), body_limit_bytes=4 << 20)
    await shop(running, sent)
    gone = await resolve(running, GOES, create=False)
    data = tmp_path / "data"
    await exported(running, data)
    write_catalogue(catalogue_of(made), data)
    write_split(data, WINDOW)
    theirs = [one for one in sent if one["visitor_id"] == GOES]
    names = {GOES, gone}
    names |= {one[name] for one in theirs for name in ("event_id", "session_id", "transaction_id")}
    ids = {one["event_id"] for one in theirs}
    names |= {row["subject_id"] for row in rows_of(data) if row["event_id"] in ids}
    assert len(names) == 3 * (1 + len(theirs))
    assert traces(data, names), "the test must be able to find what is still there"
    assert THEIRS in fit(data, tmp_path / "before").item_ids
    assert traces(tmp_path / "before", {THEIRS})
    # Even what was fitted while they were a shopper names nobody.
    assert traces(tmp_path / "before", names) == []

    receipt = (await erase(running, gone))["receipt"]

    assert receipt["export_rows_removed"] == len(theirs)
    await exported(running, data)
    assert traces(data, names) == []
    next_one = tmp_path / "after"
    after = fit(data, next_one)
    release = export_release(
        read_run(next_one / "run"),
        next_one / "models",
        next_one / "releases",
        FixedClock(LATER),
        {},
    )
    assert (next_one / "releases" / release.manifest.release_id).is_dir()
    assert THEIRS not in after.item_ids
    assert len(after.item_ids) == 80
    assert traces(next_one, names) == []
    # The catalogue names every item of the shop; nothing that was learned names this one.
    learned = [one for one in traces(next_one, {THEIRS}) if "catalogue" not in one]
    assert learned == []
    await running.stop()
    assert traces(tmp_path / "state", {GOES, gone}) == []
