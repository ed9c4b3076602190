"""The audit log: who changed what and when, as a chain. Every line is authenticated together with
the line before it, under a key that only the master key opens; the head, authenticated too, says
how many lines there are. So a changed, missing or reordered line is found, and so is a cut tail.

No line holds a raw id or a `subject_id`: a subject stands there under a random name of its own that
is kept with its data key and destroyed with it, so that an erased person's lines belong to nobody.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

START = "0" * 64  # what the first line follows


@dataclass(frozen=True)
class Actor:
    """Who did it: an API key with its role, or a person at the command line."""

    key_id: str
    role: str


COMMAND_LINE = Actor("command line", "operator")
GATEWAY = Actor("gateway", "gateway")


@dataclass(frozen=True)
class Entry:
    """One thing that was done. `subject` is the subject's audit name, if one is concerned."""

    action: str
    at: datetime
    by: Actor
    subject: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A written entry: `text` is its canonical JSON, `mac` the chain up to and with it, in hex."""

    number: int
    text: str
    mac: str

    def as_json(self) -> str:
        """The line as it is printed and kept elsewhere."""
        return json.dumps({"line": json.loads(self.text), "mac": self.mac})


@dataclass(frozen=True)
class Head:
    """How far the log reaches. Lines up to `base` were let go of when their time was over; `seal`
    authenticates the rest."""

    base: int
    base_mac: str
    number: int
    mac: str
    seal: str


def next_line(entry: Entry, number: int, previous: str, key: bytes) -> Line:
    """`entry` as line `number` after the line with the MAC `previous`."""
    content = {
        "number": number,
        "at": entry.at.isoformat(),
        "action": entry.action,
        "by": {"key_id": entry.by.key_id, "role": entry.by.role},
        "subject": entry.subject,
        "detail": dict(entry.detail),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Line(number, text, _chained(previous, text, key))


def sealed_head(base: int, base_mac: str, number: int, mac: str, key: bytes) -> Head:
    """The head that says: lines `base` + 1 to `number`, the last with `mac`."""
    text = f"head|{base}|{base_mac}|{number}|{mac}"
    return Head(base, base_mac, number, mac, _mac(key, text))


def first_fault(lines: Iterable[Line], head: Head | None, key: bytes) -> str | None:
    """What is wrong with the log, naming the line, or None when every line is as it was written."""
    if head is None:
        return "the head is missing: nobody can say how many lines there were"
    if not hmac.compare_digest(
        sealed_head(head.base, head.base_mac, head.number, head.mac, key).seal, head.seal
    ):
        return "the head was changed"
    fault, last, mac = _followed(lines, head.base, head.base_mac, key)
    if fault is not None:
        return fault
    if last < head.number:
        return f"line {last + 1} is missing: the log was cut, it had {head.number} lines"
    if last > head.number or mac != head.mac:
        return f"line {last} was added behind the head"
    return None


def fault_behind(lines: Iterable[Line], number: int, mac: str, key: bytes) -> str | None:
    """What is wrong with `lines` as those that follow line `number` with `mac`; None: nothing."""
    return _followed(lines, number, mac, key)[0]


def _followed(
    lines: Iterable[Line], last: int, mac: str, key: bytes
) -> tuple[str | None, int, str]:
    """The first fault behind line `last`, if any; number and MAC of the last line of all."""
    for line in lines:
        if line.number > last + 1:
            return f"line {last + 1} is missing", last, mac
        if line.number != last + 1:
            return f"line {line.number} is out of order", last, mac
        if not hmac.compare_digest(_chained(mac, line.text, key), line.mac):
            return f"line {line.number} was changed, replaced or moved", last, mac
        if _number(line.text) != line.number:
            return f"line {line.number} stands in the place of another", last, mac
        last, mac = line.number, line.mac
    return None, last, mac


def parsed_line(text: str) -> Line:
    """What `Line.as_json` printed. Raises ValueError."""
    held = json.loads(text)
    content = json.dumps(held["line"], sort_keys=True, separators=(",", ":"))
    return Line(int(held["line"]["number"]), content, str(held["mac"]))


def _number(text: str) -> int | None:
    try:
        return int(json.loads(text)["number"])
    except (ValueError, KeyError, TypeError):
        return None


def _chained(previous: str, text: str, key: bytes) -> str:
    return _mac(key, f"line|{previous}|{text}")


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
