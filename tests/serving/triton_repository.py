"""The tiny release as a repository that a real Triton server serves."""

import shutil
from pathlib import Path

from contract.manifest import MODELS
from tests.serving.release_factory import Factory
from training.export import model_config


def prepare(factory: Factory) -> Path:
    """Put beside the models what export puts there; the repository."""
    for name in MODELS:
        folder = factory.models_dir / name
        for version in folder.iterdir():
            if version.name.isdigit():
                shutil.copyfile(model_config.PYTHON_BACKEND, version / "model.py")
        kept = (folder / "config.pbtxt").read_bytes()  # named in the tiny release's manifest
        model_config.write(folder)
        (folder / "config.pbtxt").write_bytes(kept)
    return factory.models_dir
