"""A release in memory: the files of both folders and the manifest that seals them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from contract.encoding import Vocabulary
from contract.index_entry import IndexEntry
from contract.manifest import (
    MODELS,
    RELEASE_FILES,
    ModelEntry,
    ReleaseManifest,
    Root,
    expected_feature_hash,
    sha256,
    tensors,
)

RELEASE_ID = "golden-1"
DIMENSION = 4


def model(name: str, **changed: Any) -> ModelEntry:
    inputs, outputs = tensors(name, DIMENSION)
    files = {f"{name}/1/model.onnx": b"graph", f"{name}/config.pbtxt": b"config"}
    fields: dict[str, Any] = {
        "name": name,
        "version": 1,
        "inputs": inputs,
        "outputs": outputs,
        "files": {path: sha256(content + path.encode()) for path, content in files.items()},
        "parity": 1e-6,
    }
    return ModelEntry(**(fields | changed))


def manifest(**changed: Any) -> ReleaseManifest:
    """The sealed manifest of `Release`, with some fields changed before it is sealed."""
    fields: dict[str, Any] = {
        "release_id": RELEASE_ID,
        "created_at": datetime(2017, 11, 20, tzinfo=UTC),
        "recipe": "demo",
        "trained_until": datetime(2017, 11, 20, tzinfo=UTC),
        "feature_hash": expected_feature_hash(),
        "vocabulary_hash": Vocabulary(("milk", "bread")).hash,
        "currency": "USD",
        "synthetic": False,
        "index": IndexEntry(metric="inner_product", kind="flat", dimension=DIMENSION, count=2),
        "models": tuple(model(name) for name in MODELS),
        "files": {name: sha256(b"part" + name.encode()) for name in RELEASE_FILES},
        "metrics": {"NDCG@5": 0.25},
    }
    return ReleaseManifest(**(fields | changed)).sealed()


@dataclass
class Release:
    """The bytes of every file; `digest_of` is what `verify` is lent."""

    files: dict[tuple[Root, str], bytes] = field(default_factory=dict)

    @classmethod
    def complete(cls) -> "Release":
        made = cls()
        for name in RELEASE_FILES:
            made.files["release", name] = b"part" + name.encode()
        for name in MODELS:
            for path, content in (("1/model.onnx", b"graph"), ("config.pbtxt", b"config")):
                made.files["models", f"{name}/{path}"] = content + f"{name}/{path}".encode()
        return made

    def digest_of(self, root: Root, name: str) -> str | None:
        content = self.files.get((root, name))
        return None if content is None else sha256(content)
