"""A release: models into the model repository, tables and index into the release folder, and the
manifest that binds them. Nothing is visible under its final name before it is complete."""

import io
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from contract.behaviour import LearnedSegments
from contract.clock import Clock
from contract.encoding import FIRST_ITEM
from contract.errors import GateRefused, UserError
from contract.file_lock import SHARED, alone
from contract.manifest import (
    CHOICES,
    DRIFT_BASELINE,
    INDEX,
    LEARNED_SEGMENTS,
    MANIFEST,
    MODELS,
    OFFER_ARMS,
    OFFER_UPLIFT,
    USUAL_CANDIDATES,
    ModelEntry,
    Precision,
    ReleaseManifest,
    Root,
    expected_feature_hash,
    sha256,
    tensors,
    verify,
)
from contract.rollout import ROLLOUT, ROLLOUT_LOCK, Rollout
from contract.whole_file import replace
from training.choices.learn import read as read_choices
from training.data.source import Source
from training.export import graphs, model_config, parity
from training.export.cards import DATA_CARD, MODEL_CARD, as_files, data_card, model_card
from training.export.exported_decisions import Questions
from training.export.index import FLAT_BELOW, Built, build
from training.export.index_queries import tower_queries
from training.export.int8_gate import Int8, choose
from training.export.uplift import uplift_model
from training.run_folder import TABLE_FILES, Run

CURRENT = "current"


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
    uplift: Path | None = None,
    numbered_after: Path | None = None,
) -> Exported:
    """Write a release of `run`. Raises GateRefused when a model fails parity.

    From `flat_below` items on, the index is chosen by a measured recall gate. With `quantised`,
    models go out in int8 where its gate lets them; it raises GateRefused where it lets none.
    `segments`, `choices`, `uplift`: folders of learned segments, of learned choices and of a fitted
    uplift network that the release is to carry. `numbered_after`: a model repository whose versions
    keep their numbers, where `models_dir` is only a stage on the way there.
    """
    learned = None if segments is None else learned_segments(segments)
    chosen = None if choices is None else read_choices(choices)
    offers = None if uplift is None else uplift_model(uplift)
    created_at = clock.now()
    release_id = f"{created_at:%Y%m%dT%H%M%SZ}-{run.recipe.name}"
    final = releases_dir / release_id
    if final.exists():
        raise UserError(f"{final}: exists already; wait a second and export again")
    modules, vectors_ND = graphs.graphs(run.towers, run.ranker)
    files = {}
    for name in tqdm(MODELS, desc="export", unit="model", disable=None):
        example = parity.example(name, len(run.vocabulary))
        files[name] = graphs.to_onnx(name, modules[name], example, run.recipe.dimension)
    differences = {
        name: parity.largest_difference(
            name, modules[name], content, len(run.vocabulary), np.random.default_rng(0)
        )
        for name, content in files.items()
    }
    for name, difference in differences.items():
        if not difference <= parity.TOLERANCE:
            raise GateRefused(
                f"parity: {name} differs from torch by {difference:.2e}, more than "
                f"{parity.TOLERANCE:.0e}"
            )
    int8 = None
    if quantised is not None:
        asked = Questions.of(run, quantised.source, vectors_ND)
        int8 = choose(files, modules, asked, len(run.vocabulary), quantised.models)
        files |= {name: one.content for name, one in int8.chosen.items()}
        differences |= {name: one.drift for name, one in int8.chosen.items()}
        metrics = metrics | _quality(int8)
    built = build(
        vectors_ND[FIRST_ITEM:].numpy(),
        lambda: tower_queries(run, vectors_ND),
        flat_below=flat_below,
    )
    cards = _cards(run, release_id, created_at, differences, metrics)
    partial = releases_dir / f".partial-{release_id}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in TABLE_FILES:
        shutil.copyfile(run.folder / name, partial / name)
    for name in (USUAL_CANDIDATES, DRIFT_BASELINE):  # runs of earlier versions have none
        if (run.folder / name).exists():
            shutil.copyfile(run.folder / name, partial / name)
    (partial / INDEX).write_bytes(built.content)
    for name, content in cards.items():
        (partial / name).write_bytes(content)
    if learned is not None:
        (partial / LEARNED_SEGMENTS).write_bytes(learned)
    if chosen is not None:
        (partial / CHOICES).write_bytes(chosen)
    entries = tuple(
        _publish_model(
            name,
            files[name],
            models_dir,
            differences[name],
            run.recipe.dimension,
            "int8" if int8 is not None and name in int8.chosen else "float32",
            numbered_after,
        )
        for name in MODELS
    )
    if offers is not None:
        (partial / OFFER_ARMS).write_bytes(offers.arms)
        size = 2 * (1 + offers.num_arms)
        entries += (
            _publish_model(
                *(OFFER_UPLIFT, offers.content, models_dir, offers.difference, size, "float32"),
                numbered_after,
            ),
        )
        files[OFFER_UPLIFT] = offers.content
    currency = run.catalogue["currency"][0].as_py()
    manifest = ReleaseManifest(
        release_id=release_id,
        created_at=created_at,
        recipe=run.recipe.name,
        trained_until=run.window.train_until,
        feature_hash=expected_feature_hash(),
        vocabulary_hash=run.vocabulary.hash,
        currency=currency,
        synthetic=run.synthetic,
        index=built.entry,
        models=entries,
        files={path.name: sha256(path.read_bytes()) for path in sorted(partial.iterdir())},
        metrics=metrics,
    ).sealed()
    (partial / MANIFEST).write_bytes(manifest.as_bytes())
    _check(partial, models_dir, release_id)
    os.replace(partial, final)
    if not (releases_dir / CURRENT).exists():
        promote(releases_dir, release_id, clock)
    return Exported(manifest, {name: len(content) for name, content in files.items()}, built, int8)


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


def promote(releases_dir: Path, release_id: str, clock: Clock) -> None:
    """Make `release_id` the live one, atomically, and remember what it took the place of."""
    with alone(releases_dir / ROLLOUT_LOCK, SHARED):
        pointer, notes = releases_dir / CURRENT, releases_dir / ROLLOUT
        live = pointer.read_text(encoding="utf-8").strip() if pointer.exists() else None
        try:
            rollout = Rollout.parse(notes.read_bytes()) if notes.exists() else Rollout()
        except ValueError as error:
            raise UserError(str(error)) from None
        replace(notes, rollout.promoted(live, release_id, clock.now()).as_bytes())
        replace(pointer, f"{release_id}\n".encode())


def _publish_model(
    name: str,
    content: bytes,
    models_dir: Path,
    difference: float,
    dimension: int,
    precision: Precision,
    numbered_after: Path | None,
) -> ModelEntry:
    """The model as the next version of its folder, with its configuration beside the versions."""
    folder = models_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    taken = [folder, *([] if numbered_after is None else [numbered_after / name])]
    numbers = [
        int(p.name) for one in taken if one.is_dir() for p in one.iterdir() if p.name.isdigit()
    ]
    version = 1 + max(numbers, default=0)
    partial = folder / f".partial-{version}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    served = {"model.onnx": content, "model.py": model_config.PYTHON_BACKEND.read_bytes()}
    for file, held in served.items():
        (partial / file).write_bytes(held)
    model_config.write(
        folder
    )  # before the version: a server that finds the version finds how to run it
    os.replace(partial, folder / str(version))
    inputs, outputs = tensors(name, dimension)
    return ModelEntry(
        name=name,
        version=version,
        inputs=inputs,
        outputs=outputs,
        # Not the configurations: they say how a server runs a model, may be tuned there, and
        # change with Tillwise's version, which must not make an older release unfit to go back to.
        files={f"{name}/{version}/{file}": sha256(held) for file, held in served.items()},
        parity=difference,
        precision=precision,
    )


def _check(folder: Path, models_dir: Path, release_id: str) -> None:
    """What was written is read back and judged as a gateway would judge it, before it is seen."""

    def digest_of(root: Root, name: str) -> str | None:
        path = (folder if root == "release" else models_dir) / name
        return sha256(path.read_bytes()) if path.is_file() else None

    problems = verify((folder / MANIFEST).read_bytes(), digest_of, release_id=release_id)
    if problems:
        raise GateRefused(f"release {release_id}: {problems[0]}")
