"""Events of every schema version are read as events of the present one."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.event_versions import (
    UNSAID,
    NotInVersionError,
    UnknownVersionError,
    read_stored,
    upgraded,
)
from contract.events import EVENT_NAMES, SCHEMA_VERSION

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(version: int) -> list[str]:
    return (GOLDEN / f"events_v{version}.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_every_version_is_read_with_all_that_it_says(version: int) -> None:
    lines = golden(version)
    assert {json.loads(line)["event_name"] for line in lines} == set(EVENT_NAMES)
    for line in lines:
        stored = json.loads(line)
        assert stored["schema_version"] == version
        read = json.loads(read_stored(line).model_dump_json(exclude_none=True))
        assert read.get("feedback") == stored.get("feedback")
        assert read.pop("schema_version") == SCHEMA_VERSION
        del stored["schema_version"]
        assert read == stored
        assert read_stored(line.encode()) == read_stored(line)


def test_a_body_that_says_nothing_is_of_the_first_version() -> None:
    body = json.loads(golden(1)[0])
    del body["schema_version"]
    assert UNSAID == 1
    assert read_stored(json.dumps(body)) == read_stored(golden(1)[0])


def test_a_field_is_unknown_before_its_version() -> None:
    body: dict[str, Any] = {"event_name": "scroll", "percent_scrolled": 40}
    with pytest.raises(NotInVersionError, match="percent_scrolled"):
        upgraded(body)
    assert upgraded(body | {"schema_version": 2})["percent_scrolled"] == 40
    body = {"event_name": "feedback", "feedback": "hidden"}
    for version in (1, 2):
        with pytest.raises(NotInVersionError, match="feedback"):
            upgraded(body | {"schema_version": version})
    assert upgraded(body | {"schema_version": 3})["feedback"] == "hidden"


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, -1, "1", True, None, 1.0, [1]])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(UnknownVersionError, match="schema_version"):
        upgraded({"schema_version": version})


def test_words_that_look_like_a_version_do_not_make_one() -> None:
    body = json.loads(golden(1)[3])
    looks = f'"schema_version":{SCHEMA_VERSION}'
    body["search_term"] = looks
    compact = json.dumps(body, separators=(",", ":")).replace('\\"', '\\"')
    assert read_stored(compact).search_term == looks
    body["schema_version"] = SCHEMA_VERSION
    body["session_id"] = ""
    with pytest.raises(ValueError, match="session_id"):
        read_stored(json.dumps(body, separators=(",", ":")))
