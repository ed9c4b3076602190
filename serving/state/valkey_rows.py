"""What Valkey holds of a subject: a hash under the subject's log key, a random name that only the
control store can tell whose it is, with a field for each feature whose rows are sealed under the
subject's own key. Once that key is destroyed nothing here opens, in a copy of the server's files
either."""

import hashlib
import logging
import re
from collections.abc import Sequence

import numpy as np

from contract.features import FEATURES, Feature, SubjectState
from serving.state.sealing import FORM, HeldKey, Tampered

log = logging.getLogger(__name__)

EVERY_SUBJECT = "tillwise:{*}:features"  # a pattern of keys
_KEY = re.compile(rb"tillwise:\{([0-9a-f]{32})\}:features")


def key_of(log_key: bytes) -> str:
    """The key under which a subject is kept; what is in braces decides its slot of a cluster."""
    return f"tillwise:{{{log_key.hex()}}}:features"


def log_key_of(key: bytes) -> bytes | None:
    """The log key in such a key, None if it is another."""
    found = _KEY.fullmatch(key)
    return None if found is None else bytes.fromhex(found[1].decode())


def _field(feature: Feature) -> bytes:
    """Another definition, or another form of sealing, is another field: its rows are made anew from
    the log."""
    described = (feature.version, feature.kind.dtype, feature.capacity, sorted(feature.event_types))
    digest = hashlib.sha256(repr((FORM, described)).encode()).hexdigest()
    return f"{feature.name}.{digest[:8]}".encode()


FIELDS = tuple(_field(feature) for feature in FEATURES)
DEFINITIONS = hashlib.sha256(b"/".join(FIELDS)).hexdigest()[:8]


def opened(fields: Sequence[bytes | None], held: HeldKey) -> SubjectState:
    """The state in the values of `FIELDS`; what was damaged counts as nothing and is told."""
    state: SubjectState = {}
    for feature, name, sealed in zip(FEATURES, FIELDS, fields, strict=True):
        if not sealed:
            continue
        try:
            # Copied, because compiled functions ask for arrays that may be written to.
            rows = np.frombuffer(bytearray(held.open(sealed, name)), feature.kind.dtype)
        except Tampered:
            log.error("what the feature store holds of a subject was changed there; it is left out")
            continue
        state[feature.name] = rows
    return state


def changed(before: SubjectState, after: SubjectState, held: HeldKey) -> list[bytes]:
    """Field and value of each feature that is not what it was; nothing left is an empty value."""
    words: list[bytes] = []
    for feature, name in zip(FEATURES, FIELDS, strict=True):
        rows, were = after.get(feature.name), before.get(feature.name)
        if rows is None or rows is were:
            continue
        raw = rows.tobytes()
        if raw != (b"" if were is None else were.tobytes()):
            words += [name, held.seal(raw, name) if raw else b""]
    return words
