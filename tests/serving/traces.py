"""Looking for what must be gone, byte by byte and with every key that is left."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from valkey import Valkey

from serving.state.control_records import SubjectKey
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


def standing_in(content: bytes, forms: Iterable[bytes]) -> set[bytes]:
    """Which of `forms` stand in `content`. In one pass over all of it for the first four bytes of
    all of them: hundreds are looked for in megabytes."""
    heads: dict[bytes, list[bytes]] = defaultdict(list)
    for form in forms:
        heads[form[:4]].append(form)
    assert all(len(head) == 4 for head in heads)
    begins, goes_on = np.zeros(1 << 16, bool), np.zeros(1 << 16, bool)
    for head in heads:
        begins[int.from_bytes(head[:2])] = goes_on[int.from_bytes(head[2:])] = True
    read = np.frombuffer(content, np.uint8).astype(np.uint16)
    pairs = read[:-1] << 8 | read[1:]
    places = np.flatnonzero(begins[pairs[:-2]] & goes_on[pairs[2:]]).tolist()
    return {
        form
        for place in places
        for form in heads.get(content[place : place + 4], ())
        if content.startswith(form, place)
    }


def found_in(folder: Path, names: Iterable[str]) -> list[str]:
    """Which of `names` stand in which file below `folder`, in whatever form."""
    wanted = {form: name for name in names for form in forms_of(name)}
    return [
        f"{name} in {path.name}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for name in sorted({wanted[form] for form in standing_in(path.read_bytes(), wanted)})
    ]


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


Message = tuple[bytes, dict[str, bytes], bytes]


def messages_in(addresses: str, topic: str) -> list[Message]:
    """Key, headers and value of every message of a topic, through a consumer of its own."""
    consumer = Consumer(
        {
            "bootstrap.servers": addresses,
            "group.id": "looks-for-traces",
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions]
        left = sum(
            high - low for low, high in (consumer.get_watermark_offsets(one) for one in places)
        )
        consumer.assign(places)
        found: list[Message] = []
        while len(found) < left:
            message = consumer.poll(10)
            assert message is not None, "the topic gave up before its end"
            assert message.error() is None
            headers = message.headers()
            named = dict(headers) if isinstance(headers, list) else {}
            said = {name: _bytes(value) for name, value in named.items()}
            found.append((_bytes(message.key()), said, _bytes(message.value())))
        return found
    finally:
        consumer.close()


def _bytes(written: str | bytes | None) -> bytes:
    return written.encode() if isinstance(written, str) else written or b""


def valkey_holds(url: str) -> dict[bytes, dict[bytes, bytes]]:
    """Every key of a server with its fields and values; of a set, its members."""
    with Valkey.from_url(url) as client:
        found: dict[bytes, dict[bytes, bytes]] = {}
        for key in client.scan_iter(count=1_000):
            kind = client.type(key)
            assert kind in (b"hash", b"set"), kind
            if kind == b"hash":
                found[key] = client.hgetall(key)
            else:
                found[key] = dict.fromkeys(client.smembers(key), b"")
        return found


def states_opened_by_any(
    control: ControlStore, control_file: Path, sealed: Iterable[tuple[bytes, bytes]]
) -> int:
    """How many field values of a feature store open under any of the keys that are left."""
    connection = sqlite3.connect(control_file)
    subjects = [row[0] for row in connection.execute("SELECT subject_id FROM subject_keys")]
    connection.close()
    keys = list(control.subject_keys(subject_ids=subjects))
    return sum(any(_opens_state(*one, key) for key in keys) for one in sealed)


def _opens_state(field: bytes, value: bytes, key: SubjectKey) -> bool:
    bound = FORM + field + UUID(key.subject_id).bytes
    try:
        AESGCM(key.data_key).decrypt(value[:12], value[12:], bound)
    except InvalidTag:
        return False
    return True
