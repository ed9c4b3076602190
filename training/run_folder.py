"""A fitted run on disk: weights, tables and what they were made with; whole or not a run."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from contract.clock import Clock
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.errors import UserError
from contract.items import ITEM_STATISTICS
from contract.manifest import (
    CATALOGUE,
    DRIFT_BASELINE,
    ITEM_NEIGHBOURS,
    POPULAR,
    SEGMENT_CONFIG,
    SESSION_KNN,
    USUAL_CANDIDATES,
    VOCABULARY,
    expected_feature_hash,
)
from contract.segment_config import SegmentConfig
from training import checkpoint
from training.commands import CHECKPOINTS, EVALUATION
from training.data.item_tables import ItemTables
from training.data.source import Source, segment_rules
from training.data.storage import read_parquet, write_parquet
from training.evaluation.protocols import Window
from training.fit import Report, new_towers
from training.models.embeddings import item_columns
from training.models.ranker import Ranker
from training.models.retrieval import RetrievalModel
from training.recipes import Recipe
from training.recommender import Recommender

RUN_FILE, WEIGHTS_FILE = "run.json", "weights.pt"
TABLE_FILES = (VOCABULARY, CATALOGUE, POPULAR, SESSION_KNN, ITEM_NEIGHBOURS, SEGMENT_CONFIG)


@dataclass(frozen=True)
class Run:
    """A run read back: everything that export needs, without the data it was fitted on."""

    folder: Path
    recipe: Recipe
    window: Window
    vocabulary: Vocabulary
    catalogue: pa.Table
    towers: RetrievalModel
    ranker: Ranker
    synthetic: bool
    fitted_at: datetime
    gap: dict[str, dict[str, float]]  # see `Report`
    rules: SegmentConfig  # that the models have learned the segments of
    data: dict[str, Any]  # what was learned from, counted; nothing in runs of earlier versions


def write_run(
    folder: Path,
    recommender: Recommender,
    recipe: Recipe,
    source: Source,
    report: Report,
    clock: Clock,
) -> None:
    """Write the run in the place of the one that stands in `folder`, if any."""
    weights = {
        "towers": recommender.towers.cpu().state_dict(),
        "ranker": recommender.ranker.cpu().state_dict(),
    }
    told = {
        "recipe": asdict(recipe),
        "window": {name: day.isoformat() for name, day in asdict(source.window).items()},
        "feature_hash": expected_feature_hash(),
        "vocabulary_hash": recommender.vocabulary.hash,
        "synthetic": source.synthetic,
        "fitted_at": clock.now().isoformat(),
        "report": asdict(report),
        "data": source.facts(),
    }
    with replaced(folder, told) as new:
        _write_tables(new, recommender.vocabulary, recommender.tables, source.catalogue)
        (new / SEGMENT_CONFIG).write_bytes(source.timelines.rules.as_bytes())
        if recommender.usual is not None:
            (new / USUAL_CANDIDATES).write_bytes(recommender.usual.as_bytes())
        if recommender.profile is not None:
            text = recommender.profile.model_dump_json()
            (new / DRIFT_BASELINE).write_text(text, encoding="utf-8")
        checkpoint.save(new / WEIGHTS_FILE, weights)


@contextmanager
def replaced(folder: Path, told: dict[str, Any]) -> Iterator[Path]:
    """A folder to write the files of a run to; with `told`, what the run is, they then take the
    places of those in `folder` together. Checkpoints and evaluations of what was there go.
    UserError on a full disk: the run that stood there is untouched."""
    new = folder / "new"
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        text = json.dumps({"format": 1, **told}, indent=1) + "\n"
        (new / RUN_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(
            f"{folder}: the run could not be written, one that stood there is untouched: "
            f"{error.strerror or error}"
        ) from None
    (folder / RUN_FILE).unlink(missing_ok=True)  # between two runs there is none
    for stale in folder.glob(EVALUATION.format(protocol="*")):
        stale.unlink()
    files = sorted(new.iterdir(), key=lambda file: file.name == RUN_FILE)
    for file in files:
        file.replace(folder / file.name)
    new.rmdir()
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def read_run(folder: Path) -> Run:
    """The run in `folder`; UserError where it is absent, unfinished or made for other features."""
    told = described(folder)
    if "feature_hash" not in told:
        raise UserError(
            f"{folder}: a run of recipe {told['recipe']['name']} answers for itself (`evaluate`) "
            "and is no release; export a run of demo or base"
        )
    if told["feature_hash"] != expected_feature_hash():
        raise UserError(
            f"{folder.name}: fitted with other features than this version has; fit again"
        )
    recipe = Recipe(**told["recipe"])
    days = {name: datetime.fromisoformat(day) for name, day in told["window"].items()}
    ids = read_parquet(folder / VOCABULARY)["item_id"].to_pylist()
    vocabulary = Vocabulary(tuple(ids))
    if vocabulary.hash != told["vocabulary_hash"]:
        raise UserError(f"{folder.name}: {VOCABULARY} is not the one the run was fitted with")
    catalogue = read_parquet(folder / CATALOGUE)
    towers, ranker = _models(folder, recipe, vocabulary, catalogue)
    return Run(
        folder,
        recipe,
        Window(**days),
        vocabulary,
        catalogue,
        towers,
        ranker,
        told["synthetic"],
        datetime.fromisoformat(told["fitted_at"]),
        told["report"].get("gap", {}),
        segment_rules(folder),
        told.get("data", {}),
    )


def described(folder: Path) -> dict[str, Any]:
    """What the finished run in `folder` says about itself; UserError where there is none."""
    try:
        told: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no finished run; make one with `tillwise-train fit`") from None
    except ValueError as error:
        raise UserError(f"{folder / RUN_FILE}: not readable: {error}") from None
    return told


def _models(
    folder: Path, recipe: Recipe, vocabulary: Vocabulary, catalogue: pa.Table
) -> tuple[RetrievalModel, Ranker]:
    towers = new_towers(recipe, item_columns(catalogue, vocabulary))
    try:
        weights = torch.load(folder / WEIGHTS_FILE, weights_only=True)
        towers.load_state_dict(weights["towers"])
        ranker = Ranker(
            len(weights["ranker"]["mean"]),
            recipe.ranker_hidden,
            recipe.ranker_dropout,
        )
        ranker.load_state_dict(weights["ranker"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{folder / WEIGHTS_FILE}: not readable: {first}") from None
    return towers.eval(), ranker.eval()


def _write_tables(
    folder: Path, vocabulary: Vocabulary, tables: ItemTables, catalogue: pa.Table
) -> None:
    """The frozen tables, in the very files that a release carries."""
    write_parquet(pa.table({"item_id": list(vocabulary.item_ids)}), folder / VOCABULARY)
    write_parquet(_release_catalogue(vocabulary, tables, catalogue), folder / CATALOGUE)
    (folder / POPULAR).write_bytes(tables.popular.as_bytes(vocabulary))
    arrays: dict[str, Any] = tables.knn.arrays()
    np.savez(folder / SESSION_KNN, **arrays)
    together: dict[str, Any] = tables.neighbours.arrays()
    np.savez(folder / ITEM_NEIGHBOURS, **together)


def _release_catalogue(vocabulary: Vocabulary, tables: ItemTables, catalogue: pa.Table) -> pa.Table:
    """The catalogue's rows of the vocabulary, in its order, with the item statistics."""
    place = {item_id: row for row, item_id in enumerate(catalogue["item_id"].to_pylist())}
    absent = [item_id for item_id in vocabulary.item_ids if item_id not in place]
    if absent:
        raise UserError(
            f"{len(absent)} sold items are not in the catalogue, the first is {absent[0]!r}"
        )
    rows = catalogue.take([place[item_id] for item_id in vocabulary.item_ids])
    for name in ITEM_STATISTICS:
        column = getattr(tables.statistics, name)[FIRST_ITEM:].astype(np.float32)
        rows = rows.append_column(name, pa.array(column))
    return rows
