"""The folders that releases are pulled into, and how they are changed: by one process at a time,
each file and each folder at once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError
from contract.file_lock import alone
from contract.manifest import MANIFEST, ReleaseManifest, Root
from serving.inference.release_store import parsed_manifest

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Folders:
    """Where releases and their models lie on this machine, on one file system each."""

    releases: Path
    models: Path

    def of(self, root: Root, release_id: str) -> Path:
        """The folder that names of files are relative to."""
        return self.releases / release_id if root == "release" else self.models


def local_manifest(folders: Folders, release_id: str) -> ReleaseManifest:
    """The manifest of a release that is here. Raises UserError."""
    return parsed_manifest(manifest_bytes(folders, release_id), release_id)


def manifest_bytes(folders: Folders, release_id: str) -> bytes:
    """Its bytes. Raises UserError when there is no such release."""
    try:
        return (folders.releases / release_id / MANIFEST).read_bytes()
    except OSError:
        raise UserError(
            f"there is no release {release_id} in {folders.releases}; "
            "see `tillwise-serve release list`"
        ) from None


def manifest_files(folders: Folders) -> Iterator[Path]:
    """The manifest of every release that is here."""
    for path in folders.releases.glob(f"*/{MANIFEST}"):
        if not path.parent.name.startswith("."):
            yield path


def digest_of_file(path: Path) -> str | None:
    """SHA-256; None where there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(releases: Path, models: Path, release_id: str) -> Fingerprint:
    """Names, sizes and times of all files that a release may be made of."""
    found = [*(releases / release_id).glob("*"), *models.glob("*/*"), *models.glob("*/*/*")]
    seen = []
    for path in sorted(found):
        try:
            status = path.stat()
        except OSError:  # gone in this moment
            continue
        seen.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(seen)


@contextmanager
def changing(releases: Path) -> Iterator[None]:
    """One at a time changes the folders, also across processes."""
    releases.mkdir(parents=True, exist_ok=True)
    with alone(releases / ".lock"):
        yield
