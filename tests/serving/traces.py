"""Looking for what must be gone, byte by byte and with every key that is left."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from serving.state.control_store import ControlStore
from serving.state.sealing import FORM


def forms_of(name: str) -> list[bytes]:
    """`name` as text and, where it is an id, as its 16 bytes in either order and in hex."""
    forms = [name.encode(), name.upper().encode(), name.encode("utf-16-le")]
    try:
        one = UUID(name)
    except ValueError:
        return forms
    return [*forms, one.bytes, one.bytes_le, one.hex.encode()]


def found_in(folder: Path, names: Iterable[str]) -> list[str]:
    """Which of `names` stand in which file below `folder`, in whatever form."""
    wanted = [(name, form) for name in names for form in forms_of(name)]
    told = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            told += [f"{name} in {path.name}" for name, form in wanted if form in content]
    return told


def sealed_events(path: Path) -> list[bytes]:
    """The bodies of an event log, straight from its file."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT body FROM records ORDER BY position")]
    finally:
        connection.close()


def opened_by_any(control: ControlStore, control_file: Path, bodies: Iterable[bytes]) -> int:
    """How many of `bodies` open under any of the subject keys that are left, whoever's they are."""
    connection = sqlite3.connect(control_file)
    subjects = [row[0] for row in connection.execute("SELECT subject_id FROM subject_keys")]
    connection.close()
    keys = list(control.subject_keys(subject_ids=subjects))
    assert len(keys) == len(subjects)
    return sum(any(_opens(body, key.data_key, key.subject_id) for key in keys) for body in bodies)


def _opens(body: bytes, data_key: bytes, subject_id: str) -> bool:
    bound = FORM + body[17:33] + UUID(subject_id).bytes
    try:
        AESGCM(data_key).decrypt(body[33:45], body[45:], bound)
    except InvalidTag:
        return False
    return True
