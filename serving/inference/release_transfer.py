"""Releases between a store and this machine's folders. Pushing: only what verifies and runs.
Pulling: into a draft, verified against the manifest, then moved into place. Whoever reads the
folders sees a whole release or none."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from contract.errors import UserError
from contract.manifest import MANIFEST, ReleaseManifest, Root, expected_feature_hash, verify
from contract.whole_file import replace, sync
from serving.inference.release_place import (
    Folders,
    changing,
    digest_of_file,
    manifest_bytes,
    manifest_files,
)
from serving.inference.release_store import ReleaseStore, check_name, files_of, parsed_manifest

_DRAFT = ".partial-"  # as an export names its own; Triton and the gateway pass such names over


def push(store: ReleaseStore, folders: Folders, release_id: str) -> bool:
    """Copy a release into the store; False when all of it was there already. UserError when it can
    not be served, or when one of its model versions is another model in the store."""
    content = manifest_bytes(folders, release_id)
    # Only here: it brings the whole gateway along, and most who use this module pull.
    from serving.inference.releases import load_release

    load_release(folders.releases, folders.models, release_id).models.close()
    held = store.manifest(release_id)
    manifest = parsed_manifest(content, release_id)
    if held is not None:
        if held != content:
            raise UserError(f"release {release_id} in {store.url} is another one of this name")
        return _mend(store, folders, manifest)
    for other in store.release_ids():
        taken = _clash(manifest, _readable(store.manifest(other) or b"", other))
        if taken:
            raise UserError(
                f"{taken} belongs to release {other} in {store.url}; "
                "`tillwise-serve release pull --all`, then export again"
            )
    configurations = _configurations(folders, manifest)
    wanted = [*files_of(manifest), *_as_files(configurations)]
    _write(store, folders, release_id, {}, [(root, name) for root, name, _ in wanted])
    store.describe(release_id, configurations)
    store.seal(release_id, content)
    return True


def reconfigure(store: ReleaseStore, folders: Folders, release_id: str) -> list[str]:
    """Have the store hold how this machine would have a server run the models of a release that is
    there; which files were written. Servers read them when they start."""
    manifest = parsed_manifest(manifest_bytes(folders, release_id), release_id)
    own, held = _configurations(folders, manifest), store.configurations(release_id)
    changed = [name for name, digest in own.items() if held.get(name) != digest]
    if changed or own.keys() != held.keys():
        marks = store.marks(release_id)
        _write(store, folders, release_id, marks, [("models", name) for name in changed])
        store.describe(release_id, own)
    return [*changed, *(name for name in held if name not in own)]


def otherwise_run(store: ReleaseStore, folders: Folders, release_id: str) -> list[str]:
    """Which configurations are not here as the store holds them for a release."""
    manifest = parsed_manifest(manifest_bytes(folders, release_id), release_id)
    own, held = _configurations(folders, manifest), store.configurations(release_id)
    return sorted(name for name, digest in own.items() if held.get(name) != digest)


def _write(
    store: ReleaseStore,
    folders: Folders,
    release_id: str,
    marks: dict[str, str],
    names: Sequence[tuple[Root, str]],
) -> None:
    """Copy these files into the store, and have it remember their marks beside `marks`."""
    given = dict(marks)
    for root, name in names:
        mark = store.put(release_id, root, name, folders.of(root, release_id) / name)
        given[f"{root}/{name}"] = mark
    given = {name: mark for name, mark in given.items() if mark}
    if given != marks:
        store.remember(release_id, given)


def _mend(store: ReleaseStore, folders: Folders, manifest: ReleaseManifest) -> bool:
    """Write again what of a release has gone from the store or is another file there; whether there
    was any."""
    release_id = manifest.release_id
    own = _configurations(folders, manifest)
    # Of the configurations those alone that are here as they were pushed.
    same = {name: d for name, d in store.configurations(release_id).items() if own.get(name) == d}
    marks, lost = store.marks(release_id), list[tuple[Root, str]]()
    found = dict(marks)
    for root, name, digest in [*files_of(manifest), *_as_files(same)]:
        place = f"{root}/{name}"
        mark = store.sound(release_id, root, name, digest, marks.get(place, ""))
        if mark is None:
            lost.append((root, name))
        else:
            found[place] = mark
    if lost or found != marks:
        _write(store, folders, release_id, found, lost)
    return bool(lost)


def pull(store: ReleaseStore, folders: Folders, release_id: str) -> bool:
    """Have a whole, verified copy of a release; False when it was there already.

    Raises UserError when what the store holds does not verify; nothing is visible of it then.
    """
    content = store.manifest(release_id)
    if content is None:
        raise UserError(f"release {release_id} is not in {store.url}")
    manifest = parsed_manifest(content, release_id)
    if manifest.feature_hash != expected_feature_hash():  # before anything large is copied
        raise UserError(f"release {release_id}: {verify(content, lambda *_: None)[0]}")
    with changing(folders.releases):

        def digest(root: Root, name: str) -> str | None:
            return digest_of_file(folders.of(root, release_id) / name)

        if not _same(folders, release_id, content) or verify(content, digest):
            _refuse_clashes(folders, manifest)
            _fetch(store, folders, manifest, content)
            return True
    return False


def _fetch(
    store: ReleaseStore, folders: Folders, manifest: ReleaseManifest, content: bytes
) -> None:
    """Copy into drafts, verify there, move into place: versions, configurations, the release."""
    release_id = manifest.release_id
    # Only what is not here yet: what is may be another release's, which is live (`configure`).
    configurations = {
        name: digest
        for name, digest in _held(store, release_id).items()
        if not (folders.models / name).exists()
    }
    wanted = [*files_of(manifest), *_as_files(configurations)]
    draft = {name: _draft(folders, release_id, root, name) for root, name, _ in wanted}
    _clear(folders, manifest)
    try:
        for root, name, digest in wanted:
            draft[name].parent.mkdir(parents=True, exist_ok=True)
            _arrive(store, release_id, (root, name, digest), draft[name])
        problems = verify(
            content, lambda _, name: digest_of_file(draft[name]), release_id=release_id
        )
        if problems:
            raise UserError(f"release {release_id} is refused: {problems[0]}")
        replace(folders.releases / f"{_DRAFT}{release_id}" / MANIFEST, content)
        _place(folders, manifest, draft)
    finally:
        _clear(folders, manifest)


def configure(store: ReleaseStore, folders: Folders, release_id: str) -> list[str]:
    """Have the configurations of a release here, whichever release others came with; which were
    not. The live release's are what a model server is to read when it starts."""
    arrived = []
    with changing(folders.releases):
        for name, digest in _held(store, release_id).items():
            target = folders.models / name
            if digest_of_file(target) == digest:
                continue
            draft = target.with_name(f"{_DRAFT}{target.name}")
            draft.parent.mkdir(parents=True, exist_ok=True)
            try:
                _arrive(store, release_id, ("models", name, digest), draft)
                os.replace(draft, target)
            finally:
                draft.unlink(missing_ok=True)
            arrived.append(name)
    return arrived


def _held(store: ReleaseStore, release_id: str) -> dict[str, str]:
    """The configurations of a release in the store, none of which lies outside its folder."""
    configurations = store.configurations(release_id)
    for name in configurations:
        check_name(release_id, name)
    return configurations


def _arrive(
    store: ReleaseStore, release_id: str, wanted: tuple[Root, str, str], draft: Path
) -> None:
    root, name, digest = wanted
    store.fetch(release_id, root, name, draft)
    if digest_of_file(draft) != digest:
        raise UserError(
            f"release {release_id}: {name}: what {store.url} holds is damaged; "
            "`tillwise-serve release push` of it, from where it was made, writes it again"
        )


def _place(folders: Folders, manifest: ReleaseManifest, draft: dict[str, Path]) -> None:
    """Configurations before the versions: a server that finds a version finds how to run it."""
    for name, path in draft.items():
        if f"/{_DRAFT}shared/" in str(path):
            (folders.models / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, folders.models / name)
    for entry in manifest.models:
        version = folders.models / entry.name / str(entry.version)
        _replace(version.with_name(f"{_DRAFT}{entry.version}"), version)
        sync(folders.models / entry.name)
    _replace(
        folders.releases / f"{_DRAFT}{manifest.release_id}", folders.releases / manifest.release_id
    )
    sync(folders.releases)


def _configurations(folders: Folders, manifest: ReleaseManifest) -> dict[str, str]:
    """What lies beside the versions for a model server, less what the manifest lists itself."""
    listed = {name for _, name, _ in files_of(manifest)}
    paths = [
        path
        for entry in manifest.models
        for pattern in ("config.pbtxt", "configs/*.pbtxt")
        for path in sorted((folders.models / entry.name).glob(pattern))
    ]
    names = {str(path.relative_to(folders.models)): path for path in paths}
    return {name: digest_of_file(path) or "" for name, path in names.items() if name not in listed}


def _as_files(configurations: dict[str, str]) -> list[tuple[Root, str, str]]:
    return [("models", name, digest) for name, digest in configurations.items()]


def _draft(folders: Folders, release_id: str, root: Root, name: str) -> Path:
    if root == "release":
        return folders.releases / f"{_DRAFT}{release_id}" / name
    model, _, rest = name.partition("/")
    version, _, file = rest.partition("/")
    if version.isdigit() and file:
        return folders.models / model / f"{_DRAFT}{version}" / file
    return folders.models / model / f"{_DRAFT}shared" / rest


def _clear(folders: Folders, manifest: ReleaseManifest) -> None:
    shutil.rmtree(folders.releases / f"{_DRAFT}{manifest.release_id}", ignore_errors=True)
    for entry in manifest.models:
        for name in (str(entry.version), "shared"):
            shutil.rmtree(folders.models / entry.name / f"{_DRAFT}{name}", ignore_errors=True)


def _replace(draft: Path, final: Path) -> None:
    """Rename a folder into place; what a damaged copy left there is moved away first."""
    if final.exists():
        shutil.rmtree(final.with_name(f"{_DRAFT}old"), ignore_errors=True)
        os.replace(final, final.with_name(f"{_DRAFT}old"))
    os.replace(draft, final)
    shutil.rmtree(final.with_name(f"{_DRAFT}old"), ignore_errors=True)


def _refuse_clashes(folders: Folders, manifest: ReleaseManifest) -> None:
    for path in manifest_files(folders):
        if path.parent.name != manifest.release_id:
            taken = _clash(manifest, _readable(path.read_bytes(), path.parent.name))
            if taken:
                raise UserError(
                    f"release {manifest.release_id}: {taken} here belongs to {path.parent.name}"
                )


def _readable(content: bytes, release_id: str) -> ReleaseManifest | None:
    """The manifest, None where it is damaged or of another version of Tillwise: one that can not
    be served here must not keep all others away."""
    try:
        return parsed_manifest(content, release_id)
    except UserError:
        return None


def _clash(one: ReleaseManifest, other: ReleaseManifest | None) -> str | None:
    """The model version that two releases both claim with different files, if there is one."""
    if other is None:
        return None
    held = {(entry.name, entry.version): entry for entry in other.models}
    for entry in one.models:
        there = held.get((entry.name, entry.version))
        own = f"{entry.name}/{entry.version}/"
        if there is not None and _below(entry.files, own) != _below(there.files, own):
            return f"version {entry.version} of model {entry.name}"
    return None


def _below(files: dict[str, str], folder: str) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.startswith(folder)}


def _same(folders: Folders, release_id: str, content: bytes) -> bool:
    try:
        return (folders.releases / release_id / MANIFEST).read_bytes() == content
    except OSError:
        return False
