"""Random valid requests for every model of a release, and who asks a Triton server for them."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from contract.encoding import Encoded
from contract.manifest import MODELS, ModelEntry, ReleaseManifest
from serving.inference.triton_client import TritonClient
from training.export.parity import random_inputs

_POOL = 256  # different requests per model


class Questions:
    """The requests, made once, and how they are asked."""

    def __init__(self, manifest: ReleaseManifest, num_items: int) -> None:
        self.entries = {name: manifest.model(name) for name in MODELS}
        self._pool = {
            name: requests(entry, num_items, _POOL) for name, entry in self.entries.items()
        }

    async def ask(
        self, client: TritonClient, names: Sequence[str], callers: int, count: int, seconds: float
    ) -> tuple[list[float], float]:
        """Latencies in seconds until `count` requests or `seconds` are over, and how long it took.
        Every caller asks again when it has its answer, the models in turn."""
        latencies: list[float] = []
        began = time.perf_counter()

        async def caller(number: int) -> None:
            turn = number
            while len(latencies) < count and time.perf_counter() - began < seconds:
                name = names[turn % len(names)]
                asked = time.perf_counter()
                await client.infer(self.entries[name], self._pool[name][turn % _POOL], 10.0)
                latencies.append(time.perf_counter() - asked)
                turn += 1

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return latencies, time.perf_counter() - began


def requests(entry: ModelEntry, num_items: int, count: int) -> list[Encoded]:
    """`count` of them for one model, a batch of one each."""
    made: Any = random_inputs(entry.name, count, num_items, np.random.default_rng(0))
    return [{name: array[n : n + 1] for name, array in made.items()} for n in range(count)]
