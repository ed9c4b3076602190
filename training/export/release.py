"""A release: models into the model repository, tables and index into the release folder, and the
manifest that binds them. Nothing is visible under its final name before it is complete."""

import io
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from contract import rollout_file
from contract.behaviour import LearnedSegments
from contract.clock import Clock
from contract.encoding import FIRST_ITEM
from contract.errors import GateRefused, UserError
from contract.manifest import (
    CHOICES,
    DRIFT_BASELINE,
    INDEX,
    LEARNED_SEGMENTS,
    MANIFEST,
    MODELS,
    OFFER_ARMS,
    OFFER_UPLIFT,
    RANKER,
    USUAL_CANDIDATES,
    ModelEntry,
    ReleaseManifest,
    expected_feature_hash,
    sha256,
)
from contract.rollout import CURRENT
from training.choices.learn import read as read_choices
from training.data.source import Source
from training.export import graphs, parity
from training.export.attributions import attributions_graph
from training.export.cards import DATA_CARD, MODEL_CARD, as_files, data_card, model_card
from training.export.exported_decisions import Questions
from training.export.index import FLAT_BELOW, Built, build
from training.export.index_queries import tower_queries
from training.export.int8_gate import Int8, choose
from training.export.published_model import Model, check, publish
from training.export.uplift import ExportedUplift, uplift_model
from training.run_folder import TABLE_FILES, Run


@dataclass(frozen=True)
class Quantised:
    """The wish for int8: the data that `run` was fitted on, to judge by, and the models, by default
    those where it pays."""

    source: Source
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    manifest: ReleaseManifest
    bytes_by_model: Mapping[str, int]
    index: Built
    int8: Int8 | None = None


def export(
    run: Run,
    models_dir: Path,
    releases_dir: Path,
    clock: Clock,
    metrics: dict[str, float],
    *,
    flat_below: int = FLAT_BELOW,
    quantised: Quantised | None = None,
    segments: Path | None = None,
    choices: Path | None = None,
    uplift: Path | ExportedUplift | None = None,
    numbered_after: Path | None = None,
) -> Exported:
    """Write a release of `run`. Raises GateRefused when a model fails parity.

    From `flat_below` items on, the index is chosen by a measured recall gate. With `quantised`,
    models go out in int8 where its gate lets them; it raises GateRefused where it lets none.
    `segments`, `choices`, `uplift`: folders of learned segments, of learned choices and of a fitted
    uplift network that the release is to carry, or the network itself. `numbered_after`: a model
    repository whose versions keep their numbers, where `models_dir` is a stage on the way there.
    """
    carried = _carried(segments, choices)
    offers = uplift_model(uplift) if isinstance(uplift, Path) else uplift
    created_at = clock.now()
    release_id = f"{created_at:%Y%m%dT%H%M%SZ}-{run.recipe.name}"
    final = releases_dir / release_id
    if final.exists():
        raise UserError(f"{final}: exists already; wait a second and export again")
    modules, vectors_ND = graphs.graphs(run.towers, run.ranker)
    models, int8 = _checked(run, modules), None
    if quantised is not None:
        asked = Questions.of(run, quantised.source, vectors_ND)
        int8 = _in_int8(run, models, modules, asked, quantised.models)
        metrics = metrics | _quality(int8)
    built = build(
        vectors_ND[FIRST_ITEM:].numpy(),
        lambda: tower_queries(run, vectors_ND),
        flat_below=flat_below,
    )
    if models[RANKER].precision == "float32":  # one in int8 is asked itself
        carried |= attributions_graph(run.ranker, run.folder / USUAL_CANDIDATES)
    differences = {name: one.difference for name, one in models.items()}
    carried |= _cards(run, release_id, created_at, differences, metrics)
    if offers is not None:
        carried[OFFER_ARMS] = offers.arms
        size = 2 * (1 + offers.num_arms)
        models[OFFER_UPLIFT] = Model(offers.content, offers.difference, size)
    partial = releases_dir / f".partial-{release_id}"
    _write_tables(partial, run, {INDEX: built.content} | carried)
    entries = [publish(name, one, models_dir, numbered_after) for name, one in models.items()]
    manifest = _manifest(run, release_id, created_at, built, entries, partial, metrics)
    (partial / MANIFEST).write_bytes(manifest.as_bytes())
    check(partial, models_dir, release_id)
    os.replace(partial, final)
    if not (releases_dir / CURRENT).exists():
        rollout_file.promote(releases_dir, release_id, created_at)
    sizes = {name: len(one.content) for name, one in models.items()}
    return Exported(manifest, sizes, built, int8)


def _carried(segments: Path | None, choices: Path | None) -> dict[str, bytes]:
    """What was learned apart from the run."""
    carried = {}
    if segments is not None:
        carried[LEARNED_SEGMENTS] = learned_segments(segments)
    if choices is not None:
        carried[CHOICES] = read_choices(choices)
    return carried


def _checked(run: Run, modules: Mapping[str, nn.Module]) -> dict[str, Model]:
    """The models in float32. Raises GateRefused where one answers otherwise than torch."""
    num_items, size = len(run.vocabulary), run.recipe.dimension
    files = {}
    for name in tqdm(MODELS, desc="export", unit="model", disable=None):
        example = parity.example(name, num_items)
        files[name] = graphs.to_onnx(name, modules[name], example, size)
    models = {}
    for name, content in files.items():
        draw = np.random.default_rng(0)
        difference = parity.largest_difference(name, modules[name], content, num_items, draw)
        models[name] = Model(content, difference, size)
    for name, one in models.items():
        if not one.difference <= parity.TOLERANCE:
            raise GateRefused(
                f"parity: {name} differs from torch by {one.difference:.2e}, more than "
                f"{parity.TOLERANCE:.0e}"
            )
    return models


def _in_int8(
    run: Run,
    models: dict[str, Model],
    modules: Mapping[str, nn.Module],
    asked: Questions,
    named: Sequence[str],
) -> Int8:
    """Put the int8 forms that pass their gate among `models`; `named` as of `choose`."""
    files = {name: one.content for name, one in models.items()}
    int8 = choose(files, modules, asked, len(run.vocabulary), named)
    for name, one in int8.chosen.items():
        models[name] = replace(
            models[name], content=one.content, difference=one.drift, precision="int8"
        )
    return int8


def _write_tables(folder: Path, run: Run, files: Mapping[str, bytes]) -> None:
    """The tables of the run, and `files`, into a folder of their own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in TABLE_FILES:
        shutil.copyfile(run.folder / name, folder / name)
    for name in (USUAL_CANDIDATES, DRIFT_BASELINE):  # runs of earlier versions have none
        if (run.folder / name).exists():
            shutil.copyfile(run.folder / name, folder / name)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _cards(
    run: Run,
    release_id: str,
    created_at: datetime,
    parity: Mapping[str, float],
    metrics: Mapping[str, float],
) -> dict[str, bytes]:
    """The files of both cards."""
    told = model_card(run, release_id, created_at, parity, metrics)
    seen = data_card(run, release_id)
    return as_files(MODEL_CARD, f"Model card of {release_id}", told) | as_files(
        DATA_CARD, f"Data card of {release_id}", seen
    )


def _quality(int8: Int8) -> dict[str, float]:
    """What the manifest says of the quality of int8."""
    return {f"int8 NDCG@5 loss, {who}": loss for who, loss in int8.change.loss.items()}


def _manifest(
    run: Run,
    release_id: str,
    created_at: datetime,
    built: Built,
    models: Sequence[ModelEntry],
    folder: Path,
    metrics: dict[str, float],
) -> ReleaseManifest:
    """It binds the `models` and all files in `folder`."""
    return ReleaseManifest(
        release_id=release_id,
        created_at=created_at,
        recipe=run.recipe.name,
        trained_until=run.window.train_until,
        feature_hash=expected_feature_hash(),
        vocabulary_hash=run.vocabulary.hash,
        currency=run.catalogue["currency"][0].as_py(),
        synthetic=run.synthetic,
        index=built.entry,
        models=tuple(models),
        files={path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())},
        metrics=metrics,
    ).sealed()


def learned_segments(folder: Path) -> bytes:
    """The learned segments in `folder`, as `segments` wrote them; UserError where they are missing
    or were learned from other behaviour than this version computes."""
    path = folder / LEARNED_SEGMENTS
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            LearnedSegments.from_arrays(dict(arrays))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make it with `tillwise-train segments`") from None
    except KeyError as error:
        raise UserError(f"{path}: array {error.args[0]} is missing") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {error}") from None
    return content
