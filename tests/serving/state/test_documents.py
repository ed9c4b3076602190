"""Versioned documents, seen by two processes' worth of connections."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.clock import FixedClock
from serving.state.audit import Actor
from serving.state.document_diff import Change, differences
from serving.state.documents import DocumentConflict
from serving.state.followed_document import FollowedDocument
from serving.state.sql_control_store import SqlControlStore
from tests.serving.state.control_places import ControlPlace, seen

NOW = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
ANNA = Actor("key-of-anna", "admin")
Two = tuple[SqlControlStore, SqlControlStore]


@pytest.fixture
def two_replicas(control_place: ControlPlace) -> Iterator[Two]:
    """Two stores in one place, as two gateways have them."""
    one, other = (control_place.open(clock=FixedClock(NOW)) for _ in range(2))
    yield one, other
    one.close()
    other.close()


async def test_every_version_is_kept_and_seen_by_others_at_once(two_replicas: Two) -> None:
    one, other = two_replicas
    assert one.document("rules") is None
    assert one.document_versions() == {}
    before = other.version()
    first = await one.put_document("rules", '{"rules":[]}', 0, ANNA, "to begin with")
    second = await other.put_document("rules", '{"rules":[1]}', 1, ANNA)
    await one.put_document("offers", "{}", None, ANNA)
    assert (first.version, second.version) == (1, 2)
    await seen(lambda: len(other.document_versions()) == 2 and other.version() > before)
    await seen(lambda: one.document_versions()["rules"] == 2)
    assert one.document_versions() == {"rules": 2, "offers": 1}
    latest, earlier = one.document("rules"), one.document("rules", 1)
    assert latest is not None
    assert earlier is not None
    assert (latest.body, latest.version) == ('{"rules":[1]}', 2)
    assert (earlier.body, earlier.head) == ('{"rules":[]}', first)
    assert (first.by, first.written_at, first.note) == (ANNA, NOW, "to begin with")
    assert one.document("rules", 3) is None
    assert [head.version for head in other.document_history("rules")] == [2, 1]
    assert [head.version for head in other.document_history("rules", limit=1)] == [2]
    assert [head.version for head in other.document_history("rules", before=2)] == [1]
    lines = [json.loads(line.text) for line in one.audit_log()[0]]
    written = [line for line in lines if line["action"] == "document.written"]
    assert [line["detail"]["version"] for line in written] == [1, 2, 1]
    assert written[0]["by"] == {"key_id": "key-of-anna", "role": "admin"}


async def test_who_did_not_see_the_latest_version_does_not_overwrite_it(two_replicas: Two) -> None:
    one, other = two_replicas
    for expected in (1, -1):
        with pytest.raises(DocumentConflict, match="version 0 is"):
            await one.put_document("rules", "{}", expected, ANNA)
    tried = await asyncio.gather(
        *(store.put_document("rules", "{}", 0, ANNA) for store in (one, other) * 10),
        return_exceptions=True,
    )
    refused = [one for one in tried if isinstance(one, DocumentConflict)]
    assert len(refused) == 19
    assert {conflict.current for conflict in refused} == {1}
    await seen(lambda: one.document_versions() == {"rules": 1})


async def test_who_follows_reads_a_new_version_once_and_keeps_the_old_over_a_bad_one(
    two_replicas: Two,
) -> None:
    one, other = two_replicas
    read: list[str] = []

    def understand(body: str) -> int:
        read.append(body)
        return int(json.loads(body)["count"])

    followed = FollowedDocument(other, "rules", understand, -1)
    followed.follow()
    assert (followed.current, followed.version, read) == (-1, 0, [])
    await one.put_document("rules", '{"count": 3}', 0, ANNA)
    await one.put_document("offers", '{"count": 9}', 0, ANNA)
    await seen(lambda: len(other.document_versions()) == 2)
    followed.follow()
    followed.follow()
    assert (followed.current, followed.version, read) == (3, 1, ['{"count": 3}'])
    await one.put_document("rules", '{"from a newer version": 1}', 1, ANNA)
    await seen(lambda: other.document_versions()["rules"] == 2)
    followed.follow()
    followed.follow()
    assert (followed.current, followed.version, len(read)) == (3, 1, 2)
    assert followed.problem == "rules, version 2: 'count'"
    await one.put_document("rules", '{"count": 4}', 2, ANNA)
    await seen(lambda: other.document_versions()["rules"] == 3)
    followed.follow()
    assert (followed.current, followed.version) == (4, 3)
    assert not followed.problem


def test_a_difference_names_the_member_by_its_id() -> None:
    before = {"rules": [{"id": "a", "priority": 1}, {"id": "b"}, {"id": "c"}], "kept": [1]}
    after = {"rules": [{"id": "c"}, {"id": "a", "priority": 2}, {"id": "d"}], "kept": [1]}
    assert differences(json.dumps(before), json.dumps(after)) == [
        Change("rules[a].priority", 1, 2),
        Change("rules[b]", {"id": "b"}, None),
        Change("rules[d]", None, {"id": "d"}),
        Change("rules.order", ["a", "b", "c"], ["c", "a", "d"]),
    ]
    assert differences(None, '{"rules": [{"id": "a"}]}') == [
        Change("rules[a]", None, {"id": "a"}),
    ]
    assert differences('{"x": [1, 2]}', '{"x": [2, 1]}') == [Change("x", [1, 2], [2, 1])]


JSON = st.recursive(
    st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "a"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_there_is_a_difference_exactly_where_two_are_not_alike(
    before: object, after: object
) -> None:
    found = differences(json.dumps({"v": before}), json.dumps({"v": after}))
    texts = [json.dumps(one, sort_keys=True) for one in (before, after)]
    assert bool(found) == (texts[0] != texts[1])
