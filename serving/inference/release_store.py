"""Releases in an object store or on a shared volume: what a trainer pushes and every pod pulls.

`live.json` names the live release, one object, so that it is switched in one step. Below
`releases/<id>/` lie the release's files, the files of its models, and `manifest.json`, written
last: a release without one does not exist. Nothing below it is ever changed; what was lost there is
written again by whoever pushes the same release again. `written.json` holds the marks (ETags) that
an object store gave to the files: one that has another mark now is another file.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore, from_url
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError
from contract.file_lock import SHARED, alone
from contract.manifest import MANIFEST, RELEASE_ID, ReleaseId, ReleaseManifest, Root
from contract.rollout import Canary, RolledBack

LIVE: Final = "live.json"
CONFIGURATIONS: Final = "configurations.json"
WRITTEN: Final = "written.json"
HISTORY: Final = 5
_SCHEMES = ("file", "s3", "gs", "az")
_RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_TIMES = {"connect_timeout": "3s", "timeout": "20s"}
# To hear whether it answers at all.
_NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=2)}
_SHORT_TIMES = {"connect_timeout": "2s", "timeout": "3s"}


class StoreUnreachable(UserError):  # noqa: N818 - it names what happened
    """The store did not answer, or not with what was asked for."""


class Live(BaseModel):
    """What `live.json` holds. `generation` counts the changes, so that a reader knows one from
    another even when they name the same release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: Annotated[int, Field(ge=1)]
    history: Annotated[tuple[ReleaseId, ...], Field(min_length=1, max_length=HISTORY)]
    canary: Canary | None = None
    withdrawn: RolledBack | None = None  # by the latest change

    @property
    def current(self) -> str:
        """The live release."""
        return self.history[0]

    @property
    def previous(self) -> str | None:
        """The one before it."""
        return self.history[1] if len(self.history) > 1 else None

    @property
    def needed(self) -> tuple[str, ...]:
        """What a pod must have at hand, the live one first: it, the canary, and what other pods may
        still serve because it was live until just now."""
        trial = () if self.canary is None else (self.canary.release_id,)
        gone = () if self.withdrawn is None else (self.withdrawn.release_id,)
        return tuple(dict.fromkeys((self.current, *trial, *gone, *self.history[1:2])))


class ReleaseStore:
    """One shop's releases under one address. Every method raises StoreUnreachable."""

    def __init__(self, url: str, *, hurried: bool = False) -> None:
        """`url`: `s3://bucket/prefix`, `gs://...`, `az://...` or `file:///folder`; credentials come
        from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT and so on). UserError otherwise.
        `hurried`: give a store up that says nothing for three seconds."""
        scheme = url.partition("://")[0]
        if scheme not in _SCHEMES:
            named = ", ".join(f"{name}://" for name in _SCHEMES)
            raise UserError(f"release store {url!r}: not an address that begins with {named}")
        self.url = url
        self._folder = Path(url.removeprefix("file://")) if scheme == "file" else None
        if self._folder is not None and not self._folder.is_absolute():
            raise UserError(f"release store {url!r}: the folder must be absolute")
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = from_url(url, **_options(scheme, hurried))
        except (BaseError, ValueError, TypeError, OSError) as error:
            raise UserError(f"release store {url}: {_said(error)}") from None

    def live(self) -> Live | None:
        """The live release and those before it; None while nothing was ever promoted."""
        found = self._read(LIVE)
        return None if found is None else _parsed(found[0])

    def promote(self, release_id: str) -> Live:
        """Make a release that is whole in the store the live one; a canary ends. UserError when it
        is not there, or when somebody else made a change in the same moment."""
        self._whole(release_id)
        return self._change(
            lambda held: {
                "history": (release_id, *(x for x in _history(held) if x != release_id))[:HISTORY]
            }
        )

    def roll_back(self, reason: str, at: datetime) -> Live:
        """Make the release before the live one live again. UserError when there is none."""

        def back(held: Live | None) -> dict[str, Any]:
            if held is None:
                raise UserError(f"{self.url}: no release is live")
            if held.previous is None:
                raise UserError(f"{self.url}: there is no release before the live one")
            gone = RolledBack(release_id=held.current, reason=reason, at=at)
            return {"history": held.history[1:], "withdrawn": gone}

        return self._change(back)

    def try_out(self, canary: Canary | None) -> Live:
        """Put a release that is whole in the store on trial, or end the trial. UserError as of
        `promote`, and when the release is the live one."""
        if canary is not None:
            self._whole(canary.release_id)

        def trial(held: Live | None) -> dict[str, Any]:
            if held is None:
                raise UserError(f"{self.url}: no release is live; promote one first")
            if canary is not None and canary.release_id == held.current:
                raise UserError(f"release {canary.release_id} is the live one already")
            return {"history": held.history, "canary": canary}

        return self._change(trial)

    def _whole(self, release_id: str) -> None:
        if self.manifest(release_id) is None:
            raise UserError(f"release {release_id} is not in {self.url}; push it first")

    def _change(self, changed: Callable[[Live | None], dict[str, Any]]) -> Live:
        with self._alone():
            found = self._read(LIVE)
            held = None if found is None else _parsed(found[0])
            live = Live(generation=1 if held is None else held.generation + 1, **changed(held))
            e_tag = None if found is None else found[1]
            self._switch(live.model_dump_json().encode() + b"\n", e_tag)
            return live

    def manifest(self, release_id: str) -> bytes | None:
        """The manifest of a release, None unless the whole release is there. UserError where that
        is no name of one."""
        if not RELEASE_ID.fullmatch(release_id):
            raise UserError(f"{release_id!r} is no release id")
        found = self._read(f"releases/{release_id}/{MANIFEST}")
        return None if found is None else found[0]

    def release_ids(self) -> list[str]:
        """The releases that are whole, by name."""
        with self._told("listing"):
            listed = obstore.list_with_delimiter(self._store, "releases")
        names = [prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"]]
        named = (name for name in names if RELEASE_ID.fullmatch(name))
        return sorted(name for name in named if self.manifest(name) is not None)

    def configurations(self, release_id: str) -> dict[str, str]:
        """Digests, by name, of how a model server is to run the release's models. A manifest does
        not list these files: they may be tuned without making another release of it."""
        try:
            return self._named(release_id, CONFIGURATIONS)
        except (ValueError, AttributeError):
            raise UserError(f"release {release_id}: its {CONFIGURATIONS} can not be read") from None

    def describe(self, release_id: str, configurations: dict[str, str]) -> None:
        """Write what `configurations` returns."""
        self._name(release_id, CONFIGURATIONS, configurations)

    def marks(self, release_id: str) -> dict[str, str]:
        """What the store said of each file of a release when it was written, by root and name."""
        try:
            return self._named(release_id, WRITTEN)
        except (ValueError, AttributeError):  # then the files are read
            return {}

    def remember(self, release_id: str, marks: dict[str, str]) -> None:
        """Write what `marks` returns."""
        self._name(release_id, WRITTEN, marks)

    def put(self, release_id: str, root: Root, name: str, source: Path) -> str:
        """Copy one file of a release in; its mark, empty where the store gives none to rely on."""
        with self._told(name):
            put = obstore.put(self._store, _path(release_id, root, name), source)
        return self._mark(put["e_tag"])

    def sound(self, release_id: str, root: Root, name: str, digest: str, mark: str) -> str | None:
        """The mark of one file of a release that is as it was pushed; None where it is gone or
        another one. A file that still has the `mark` that it was given is the same; where there is
        none, as in a folder, the file is read."""
        path = _path(release_id, root, name)
        with self._told(name):
            try:
                held = self._mark(obstore.head(self._store, path)["e_tag"])
            except FileNotFoundError:
                return None
        if mark:
            return held if held == mark else None
        found = hashlib.sha256()
        for chunk in self._chunks(path, name):
            found.update(chunk)
        return held if found.hexdigest() == digest else None

    def seal(self, release_id: str, manifest: bytes) -> None:
        """Write the manifest, with which the release begins to exist. UserError when another one
        was pushed under the same name meanwhile."""
        path = f"releases/{release_id}/{MANIFEST}"
        with self._told(path), suppress(AlreadyExistsError):
            obstore.put(self._store, path, manifest, mode="create")
        if self.manifest(release_id) != manifest:
            raise UserError(f"release {release_id} in {self.url} is another one of this name")

    def fetch(self, release_id: str, root: Root, name: str, target: Path) -> None:
        """Copy one file of a release out, onto the disk. Raises OSError as well, where it is this
        machine's disk that fails."""
        with target.open("wb") as file:
            for chunk in self._chunks(_path(release_id, root, name), name):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def _chunks(self, path: str, what: str) -> Iterator[bytes]:
        # Told apart from what is done with them: the store is not away because our disk is full.
        with self._told(what):
            chunks = iter(obstore.get(self._store, path).stream())
        while True:
            with self._told(what):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield bytes(chunk)

    def _mark(self, e_tag: str | None) -> str:
        # Of a file in a folder it says when it was written, and nothing of its content.
        return "" if self._folder is not None or e_tag is None else e_tag

    def _named(self, release_id: str, file: str) -> dict[str, str]:
        found = self._read(f"releases/{release_id}/{file}")
        return {} if found is None else {str(k): str(v) for k, v in json.loads(found[0]).items()}

    def _name(self, release_id: str, file: str, held: dict[str, str]) -> None:
        path = f"releases/{release_id}/{file}"
        with self._told(path):
            obstore.put(self._store, path, json.dumps(held, indent=1).encode() + b"\n")

    def _read(self, path: str) -> tuple[bytes, str | None] | None:
        with self._told(path):
            try:
                found = obstore.get(self._store, path)
                return bytes(found.bytes()), found.meta.get("e_tag")
            except FileNotFoundError:
                return None

    def _switch(self, content: bytes, e_tag: str | None) -> None:
        """Write `live.json` if it still is what was read."""
        mode: Any = "create" if e_tag is None else {"e_tag": e_tag}
        if self._folder is not None:  # it can only replace; `_alone` makes that enough
            mode = "overwrite"
        with self._told(LIVE):
            try:
                obstore.put(self._store, LIVE, content, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                raise UserError(
                    f"{self.url}: another release was made live in this moment; look again"
                ) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time changes a folder; an object store compares and sets instead."""
        if self._folder is None:
            yield
            return
        with self._told(".lock"), alone(self._folder / ".lock", SHARED):
            yield

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except (BaseError, OSError) as error:
            raise StoreUnreachable(f"{self.url}: {what}: {_said(error)}") from None


def _history(held: Live | None) -> tuple[str, ...]:
    return () if held is None else held.history


def files_of(manifest: ReleaseManifest) -> list[tuple[Root, str, str]]:
    """Root, name and digest of every file that a manifest lists, the models' first."""
    models = [
        ("models", name, digest)
        for entry in manifest.models
        for name, digest in sorted(entry.files.items())
    ]
    own = [("release", name, digest) for name, digest in sorted(manifest.files.items())]
    return [*models, *own]  # type: ignore[list-item]


def parsed_manifest(content: bytes, release_id: str) -> ReleaseManifest:
    """The manifest; UserError when it is malformed or names a file outside its folders."""
    try:
        manifest = ReleaseManifest.model_validate_json(content)
    except ValidationError:
        raise UserError(f"release {release_id}: its {MANIFEST} can not be read") from None
    for _, name, _ in files_of(manifest):
        check_name(release_id, name)
    return manifest


def check_name(release_id: str, name: str) -> None:
    """UserError unless `name` stays inside the folder that it is relative to."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", name):
        raise UserError(f"release {release_id} names the file {name!r}")


def _path(release_id: str, root: Root, name: str) -> str:
    return f"releases/{release_id}/{root}/{name}"


def _options(scheme: str, hurried: bool) -> dict[str, Any]:
    if scheme == "file":
        return {}
    client: dict[str, Any] = dict(_SHORT_TIMES if hurried else _TIMES)
    if os.environ.get("AWS_ENDPOINT", "").startswith("http://"):  # a store on one's own network
        client["allow_http"] = True
    return {"retry_config": _NO_RETRIES if hurried else _RETRIES, "client_options": client}


def _parsed(content: bytes) -> Live:
    try:
        return Live.model_validate(json.loads(content))
    except (ValueError, ValidationError):
        raise UserError(f"{LIVE} of the release store can not be read") from None


def _said(error: Exception) -> str:
    """The store's own words, without the debug form that follows them."""
    return str(error).partition("\n\nDebug source:")[0].replace("\n", " ")[:300]
