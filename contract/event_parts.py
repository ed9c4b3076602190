"""Which files of an `events` folder belong to it. An export that grows names them in `parts.json`,
which is replaced as a whole, so that a reader sees every round of it or none; a folder without that
file holds what it holds."""

import json
from dataclasses import dataclass
from typing import Final

PARTS_FILE: Final = "parts.json"


@dataclass(frozen=True)
class EventParts:
    """The files of an export, as paths within the folder, after `rounds` rounds; `log_id` and
    `position` say which event log they are of and how far."""

    log_id: str
    position: int | tuple[int, ...]
    rounds: int
    parts: tuple[str, ...]

    def as_json(self) -> str:
        """The content of `parts.json`."""
        held = {
            "log_id": self.log_id,
            "position": self.position,
            "rounds": self.rounds,
            "parts": self.parts,
        }
        return json.dumps(held, indent=1) + "\n"


def read_parts(text: str) -> EventParts:
    """What `as_json` wrote. Raises ValueError."""
    try:
        held = json.loads(text)
        position = held["position"]
        parts = tuple(str(part) for part in held["parts"])
        position = position if isinstance(position, int) else tuple(int(one) for one in position)
        found = EventParts(str(held["log_id"]), position, int(held["rounds"]), parts)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{PARTS_FILE} has another form") from error
    if any(part.startswith("/") or ".." in part.split("/") for part in parts):
        raise ValueError(f"{PARTS_FILE} names files outside of its folder")
    return found
