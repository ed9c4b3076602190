"""The steps of a retraining as records on disk: what a step was given, what came of it.

A record is written whole after everything that the step wrote. Whoever is killed before that does
the step again; whoever finds the record, made from the same inputs and with its files as they were,
goes on behind it. A step is given what the steps before it recorded, so one that is done again with
another outcome takes all later ones with it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.whole_file import replace

Result = dict[str, Any]
_FORMAT = 1


@dataclass
class Steps:
    """The records in `folder`; `digest` is that of everything that the next step builds upon."""

    folder: Path
    digest: str
    seconds: dict[str, float] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)

    def run(
        self, name: str, work: Callable[[], Result], outputs: Callable[[], list[Path]] = list
    ) -> Result:
        """What `work` returns (JSON), now or when it was done before; `outputs`: the files that it
        leaves for later steps."""
        held = self._read(name)
        if held is not None:
            self.resumed.append(name)
        else:
            began = time.perf_counter()
            result = work()
            held = {
                "format": _FORMAT,
                "step": name,
                "inputs": self.digest,
                "result": json.loads(json.dumps(result)),
                "files": {str(path): file_digest(path) for path in outputs()},
                "seconds": round(time.perf_counter() - began, 3),
            }
            replace(self._path(name), (json.dumps(held, indent=1) + "\n").encode())
        self._count(name, held)
        result = held["result"]
        return dict(result)

    def _read(self, name: str) -> Mapping[str, Any] | None:
        try:
            held: Mapping[str, Any] = json.loads(self._path(name).read_text(encoding="utf-8"))
            fits = held["format"] == _FORMAT and held["inputs"] == self.digest
            whole = all(file_digest(Path(path)) == was for path, was in held["files"].items())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return held if fits and whole else None

    def _count(self, name: str, held: Mapping[str, Any]) -> None:
        """How long a step took is no part of what later ones build upon."""
        told = json.dumps([self.digest, name, held["result"], held["files"]], sort_keys=True)
        self.digest = hashlib.sha256(told.encode()).hexdigest()
        self.seconds[name] = float(held["seconds"])
        self.results[name] = dict(held["result"])

    def _path(self, name: str) -> Path:
        return self.folder / "steps" / f"{name}.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. OSError where it can not be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
