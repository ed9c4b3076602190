"""Query vectors that were computed before, by the hash of exactly what the model was given: a
shopper who comes back to the checkout, or one of many with the same cart and no history, costs no
second run. Only the vectors are kept: every answer, with its propensities and tokens, is fresh.

Each release has a cache of its own, gone with it, so no vector is ever searched in another
release's space.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary

from contract.encoding import QUERY_TOWER_INPUTS, SEQUENCE_INPUTS, Encoded
from contract.items import Floats
from contract.manifest import QUERY_TOWER, SEQUENCE_ENCODER
from serving.inference.release import Release

_INPUTS = {QUERY_TOWER: tuple(QUERY_TOWER_INPUTS), SEQUENCE_ENCODER: tuple(SEQUENCE_INPUTS)}
OnLookUp = Callable[[str, bool], None]  # told the model and whether its vector was held


def key_of(model: str, encoded: Encoded) -> bytes:
    """A 128-bit hash of the model's name and of all that it would be given, bit for bit."""
    # Of fixed shapes, so that one cannot be taken for another.
    asked = (encoded[name].tobytes() for name in _INPUTS[model])
    return hashlib.blake2b(b"".join((model.encode(), *asked)), digest_size=16).digest()


class VectorCache:
    """At most `capacity` vectors [d]; the one longest not asked for goes first. Thread-safe."""

    def __init__(
        self, capacity: int, on_look_up: OnLookUp | None = None, generation: int = 0
    ) -> None:
        self._capacity = capacity
        self._on_look_up = on_look_up
        self._generation = generation
        self._held: OrderedDict[bytes, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def ask(self, model: str, encoded: Encoded) -> tuple[bytes, Floats | None]:
        """The key of this question, and the vector that `model` gave for it, if it is held."""
        key = key_of(model, encoded) if self._capacity else b""
        return key, self.get(model, key)

    def get(self, model: str, key: bytes) -> Floats | None:
        """The vector that `model` gave for `key`, if it is held."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
        if self._on_look_up is not None:
            self._on_look_up(model, found is not None)
        return found

    def put(self, key: bytes, vector: Floats, generation: int = 0) -> None:
        """Hold a copy of `vector`: it is a row of a batch that would stay in memory with it. Not
        when all was cleared since `generation`: it may follow from what was to be forgotten."""
        if not self._capacity:
            return
        kept = vector.copy()
        kept.flags.writeable = False
        with self._lock:
            if generation != self._generation:
                return
            self._held[key] = kept
            if len(self._held) > self._capacity:
                self._held.popitem(last=False)

    def clear(self, generation: int) -> None:
        """Hold nothing of what came before `generation`."""
        with self._lock:
            self._generation = generation
            self._held.clear()


class VectorCaches:
    """The caches of the releases that decide."""

    def __init__(self, capacity: int, on_look_up: OnLookUp | None = None) -> None:
        self._capacity = capacity
        self._on_look_up = on_look_up
        self._of: WeakKeyDictionary[Release, VectorCache] = WeakKeyDictionary()
        self.generation = 0  # grows with every `clear`; a decision notes it before it reads a state

    def of(self, release: Release) -> VectorCache:
        """The cache of `release`, empty when it is first asked for."""
        cache = self._of.get(release)
        if cache is None:
            cache = VectorCache(self._capacity, self._on_look_up, self.generation)
            self._of[release] = cache
        return cache

    def clear(self) -> None:
        """Empty all of them: whoever is forgotten must not live on in a vector, and nobody could
        say whose any of them is. What is being computed now is not held either."""
        self.generation += 1
        for cache in list(self._of.values()):
            cache.clear(self.generation)
