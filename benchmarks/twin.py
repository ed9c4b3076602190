"""Folders of a benchmark's own with a release and its twin in them: the same models and tables
under another id and as further model versions, so that a swap loads everything anew."""

import shutil
from pathlib import Path

from contract.errors import UserError
from contract.manifest import MANIFEST, ModelEntry, ReleaseManifest

TWIN = "twin"


def live_manifest(releases: Path) -> ReleaseManifest:
    """The manifest of the release that `current` names. Raises UserError."""
    try:
        release_id = (releases / "current").read_text(encoding="utf-8").strip()
        content = (releases / release_id / MANIFEST).read_bytes()
        return ReleaseManifest.model_validate_json(content)
    except (OSError, ValueError):
        raise UserError(
            f"{releases} holds no release that can be read; make one with `make demo DEMO_EXIT=1`"
        ) from None


def copy_with_twin(releases: Path, models: Path, root: Path) -> tuple[str, str]:
    """Copy the live release into `root`/releases and `root`/models, live there too, with a twin
    beside it; both ids. Raises UserError."""
    manifest = live_manifest(releases)
    own, own_models = root / "releases", root / "models"
    shutil.copytree(releases / manifest.release_id, own / manifest.release_id)
    entries = [_copied(entry, models, own_models, 0) for entry in manifest.models]
    assert tuple(entries) == manifest.models
    twin = f"{manifest.release_id[:50]}-{TWIN}"
    shutil.copytree(own / manifest.release_id, own / twin)
    higher = tuple(_copied(entry, models, own_models, 1) for entry in manifest.models)
    sealed = manifest.model_copy(update={"release_id": twin, "models": higher}).sealed()
    (own / twin / MANIFEST).write_bytes(sealed.as_bytes())
    (own / "current").write_text(f"{manifest.release_id}\n", encoding="utf-8")
    return manifest.release_id, twin


def _copied(entry: ModelEntry, models: Path, target: Path, further: int) -> ModelEntry:
    """The model's files copied, as a version that is higher by `further`."""
    own, version = f"{entry.name}/{entry.version}/", entry.version + further
    files = {}
    for path, digest in entry.files.items():
        name = path
        if path.startswith(own):
            name = f"{entry.name}/{version}/{path.removeprefix(own)}"
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(models / path, target / name)
        files[name] = digest
    return entry.model_copy(update={"version": version, "files": files})
