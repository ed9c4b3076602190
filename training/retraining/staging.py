"""The challenger as a release before anybody may serve it: exported to a stage, judged there, and
only then moved to where gateways look. A refused one never leaves the stage."""

import os
import shutil
from pathlib import Path

from contract.clock import Clock
from contract.errors import UserError
from contract.manifest import CHOICES, LEARNED_SEGMENTS, MANIFEST, OFFER_ARMS
from training.evaluation.released import read_manifest
from training.export.release import export
from training.export.uplift import ExportedUplift, carried_uplift
from training.retraining.plan import Plan, Wish
from training.retraining.steps import Result, file_digest
from training.run_folder import Run


def export_to(stage: Path, run: Run, wish: Wish, plan: Plan, clock: Clock) -> Result:
    """Export into an empty `stage`, with model versions that are free in the real repository.

    What the champion carries besides its models (learned segments, choices, an uplift network) and
    no new one was named for goes along unchanged."""
    shutil.rmtree(stage, ignore_errors=True)
    manifest = read_manifest(wish.releases, plan.champion)
    champion = wish.releases / plan.champion
    segments, choices = wish.segments, wish.choices
    if segments is None and LEARNED_SEGMENTS in manifest.files:
        segments = champion
    if choices is None and CHOICES in manifest.files:
        choices = champion
    uplift: Path | ExportedUplift | None = wish.uplift
    if uplift is None and OFFER_ARMS in manifest.files:
        uplift = carried_uplift(wish.releases, wish.models, plan.champion)
    exported = export(
        run,
        stage / "models",
        stage / "releases",
        clock,
        {},
        segments=segments,
        choices=choices,
        uplift=uplift,
        numbered_after=wish.models,
    )
    index = exported.manifest.index
    return {
        "release_id": exported.manifest.release_id,
        "parity": {entry.name: entry.parity for entry in exported.manifest.models},
        "recall": None if index.search is None else min(r.value for r in index.search.recall),
    }


def publish(stage: Path, wish: Wish) -> None:
    """Copy the staged release into place, models first, each folder whole or not at all. What is
    there already with the same content was published by whoever was killed. UserError where
    somebody took a version's number meanwhile."""
    for version in sorted((stage / "models").glob("*/[0-9]*")):
        _placed(version, wish.models / version.parent.name / version.name)
    for model in sorted((stage / "models").iterdir()):
        for beside in sorted(model.iterdir()):
            target = wish.models / model.name / beside.name
            if not beside.name.isdigit() and not target.exists():
                _placed(beside, target)
    for release in sorted((stage / "releases").glob(f"*/{MANIFEST}")):
        _placed(release.parent, wish.releases / release.parent.name)


def _placed(source: Path, target: Path) -> None:
    if target.exists():
        if _content(source) != _content(target):
            raise UserError(
                f"{target}: somebody else wrote it meanwhile; remove the step `export` of this "
                "retraining and run it again"
            )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, partial)
    else:
        shutil.copyfile(source, partial)
    os.replace(partial, target)


def _content(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path.parent)): file_digest(one) for one in files}
