"""A fitted next-item recommender on disk: the members' weights, the neighbourhood, the mixture and
what they were made with; whole or not a run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import torch

from contract.clock import Clock
from contract.encoding import Vocabulary
from contract.errors import UserError
from contract.manifest import SESSION_KNN, VOCABULARY
from contract.session_knn import SessionKnn
from training import checkpoint
from training.data.storage import read_parquet, write_parquet
from training.next_item.fit import Report, new_model
from training.next_item.recipe import SEQUENCE_RECIPES, SequenceRecipe
from training.next_item.recommender import KnnSetting, Neighbours, NextItemRecommender
from training.next_item.split import NextItemProtocol, Split
from training.run_folder import RUN_FILE, WEIGHTS_FILE, described, replaced


@dataclass(frozen=True)
class NextItemRun:
    """A run read back; `seconds` are those of its fit."""

    recipe: SequenceRecipe
    protocol: NextItemProtocol
    vocabulary: Vocabulary
    recommender: NextItemRecommender
    seconds: float
    first_member_seconds: float


def write_run(
    folder: Path,
    recommender: NextItemRecommender,
    recipe: SequenceRecipe,
    split: Split,
    report: Report,
    clock: Clock,
) -> None:
    """Write the run in the place of the one that stands in `folder`, if any."""
    assert recommender.neighbours is not None
    arrays: dict[str, Any] = recommender.neighbours.index.arrays()
    members = [member.cpu().state_dict() for member in recommender.members]
    told = {
        "recipe": asdict(recipe),
        "protocol": split.protocol,
        "vocabulary_hash": split.vocabulary.hash,
        "knn": asdict(recommender.neighbours.setting),
        "mixture": recommender.mixture,
        "exclude_seen": recommender.exclude_seen,
        "fitted_at": clock.now().isoformat(),
        "report": asdict(report),
    }
    with replaced(folder, told) as new:
        write_parquet(pa.table({"item_id": list(split.vocabulary.item_ids)}), new / VOCABULARY)
        np.savez(new / SESSION_KNN, **arrays)
        checkpoint.save(new / WEIGHTS_FILE, {"members": members})


def read_run(folder: Path, device: torch.device) -> NextItemRun:
    """The run in `folder`; UserError where it is absent, unfinished, damaged or another kind."""
    told = described(folder)
    if told["recipe"]["name"] not in SEQUENCE_RECIPES:
        raise UserError(f"{folder}: not a run of {' or '.join(sorted(SEQUENCE_RECIPES))}")
    try:
        recipe = SequenceRecipe(**told["recipe"])
    except TypeError as error:
        raise UserError(f"{folder / RUN_FILE}: not of this version: {error}") from None
    vocabulary = Vocabulary(tuple(read_parquet(folder / VOCABULARY)["item_id"].to_pylist()))
    if vocabulary.hash != told["vocabulary_hash"]:
        raise UserError(f"{folder.name}: {VOCABULARY} is not the one the run was fitted with")
    members = []
    try:
        for weights in checkpoint.read(folder / WEIGHTS_FILE)["members"]:
            member = new_model(recipe, len(vocabulary), searches="words.weight" in weights)
            member.load_state_dict(weights)
            members.append(member.to(device).eval())
        with (folder / SESSION_KNN).open("rb") as file, np.load(file) as arrays:
            index = SessionKnn.from_arrays(arrays)
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{folder}: not readable: {str(error).partition(chr(10))[0]}") from None
    near = Neighbours(index, KnnSetting(**told["knn"]))
    recommender = NextItemRecommender(members, near, told["mixture"], told["exclude_seen"], device)
    report = told["report"]
    return NextItemRun(
        recipe,
        told["protocol"],
        vocabulary,
        recommender,
        report["seconds"],
        report["first_member_seconds"],
    )
