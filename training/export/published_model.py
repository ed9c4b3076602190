"""Models on their way into the model repository, and the release read back before it is seen."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from contract.errors import GateRefused
from contract.manifest import (
    MANIFEST,
    ModelEntry,
    Precision,
    Root,
    own_feature_hash,
    sha256,
    tensors,
    verify,
)
from training.export import model_config


@dataclass(frozen=True)
class Model:
    """A model on its way out. `difference` is to torch; `dimension` as of `tensors`."""

    content: bytes
    difference: float
    dimension: int
    precision: Precision = "float32"


def publish(name: str, model: Model, models_dir: Path, numbered_after: Path | None) -> ModelEntry:
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
    served = {"model.onnx": model.content, "model.py": model_config.PYTHON_BACKEND.read_bytes()}
    for file, held in served.items():
        (partial / file).write_bytes(held)
    # Before the version: a server that finds the version finds how to run it.
    model_config.write(folder)
    os.replace(partial, folder / str(version))
    inputs, outputs = tensors(name, model.dimension)
    return ModelEntry(
        name=name,
        version=version,
        inputs=inputs,
        outputs=outputs,
        # Not the configurations: they say how a server runs a model, may be tuned there, and
        # change with Tillwise's version, which must not make an older release unfit to go back to.
        files={f"{name}/{version}/{file}": sha256(held) for file, held in served.items()},
        parity=model.difference,
        precision=model.precision,
        feature_hash=own_feature_hash(name),
    )


def check(folder: Path, models_dir: Path, release_id: str) -> None:
    """What was written is read back and judged as a gateway would judge it, before it is seen."""

    def digest_of(root: Root, name: str) -> str | None:
        path = (folder if root == "release" else models_dir) / name
        return sha256(path.read_bytes()) if path.is_file() else None

    problems = verify((folder / MANIFEST).read_bytes(), digest_of, release_id=release_id)
    if problems:
        raise GateRefused(f"release {release_id}: {problems[0]}")
