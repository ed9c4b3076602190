"""What comes from pages: crawlers, the shop's own people and floods are kept out, servers never."""

import sqlite3
from contextlib import closing
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Request

from serving.api.auth import Caller
from serving.api.page_limits import PageLimits, is_page
from serving.state.control_records import Role
from tests.serving.api.test_auth import page_token
from tests.serving.api.test_subjects_and_consent import resolve
from tests.serving.conftest import ALL, BROWSER, Running, Start, checkout, event, purchase

pytestmark = pytest.mark.usefixtures("one_minute")

CRAWLER = "Googlebot/2.1 (+http://www.google.com/bot.html)"


async def send(
    running: Running, *events: dict[str, Any], role: Role = "collect", agent: str = BROWSER
) -> httpx.Response:
    return await running.client.post(
        "/v1/events",
        json={"events": list(events)},
        headers=running.bearer(role) | {"User-Agent": agent},
    )


def told(answer: httpx.Response) -> list[tuple[str, str | None]]:
    assert answer.status_code == 202, answer.text
    return [(one["status"], one.get("reason")) for one in answer.json()["results"]]


async def test_what_a_crawler_does_in_a_page_is_not_stored(running: Running) -> None:
    assert told(await send(running, event(), event(), agent=CRAWLER)) == [("rejected", "bot")] * 2
    assert running.logged() == []
    assert told(await send(running, event())) == [("accepted", None)]
    # A server speaks for its shopper, with whatever library.
    sent = await send(running, purchase("item-1"), role="checkout", agent="python-httpx/0.28")
    assert told(sent) == [("accepted", None)]


async def test_the_shops_own_people_leave_nothing(start: Start) -> None:
    running = await start(internal_networks=[ip_network("127.0.0.0/8")])
    assert told(await send(running, event())) == [("rejected", "internal")]
    assert told(await send(running, event(), role="checkout")) == [("accepted", None)]


async def test_nobody_does_so_much_by_hand(start: Start) -> None:
    running = await start(page_events_per_minute=3)
    results = told(await send(running, *(event() for _ in range(5))))
    assert results == [("accepted", None)] * 3 + [("rejected", "bot")] * 2
    assert told(await send(running, event(visitor_id="another"))) == [("accepted", None)]
    many = [event(visitor_id="served") for _ in range(5)]
    assert told(await send(running, *many, role="checkout")) == [("accepted", None)] * 5


@pytest.mark.parametrize("kind", ["crawler", "internal", "flood"])
async def test_a_no_counts_in_what_is_not_stored(start: Start, kind: str) -> None:
    networks = [ip_network("127.0.0.0/8")] if kind == "internal" else []
    running = await start(internal_networks=networks, page_events_per_minute=3)
    agreed = await send(running, event(), role="checkout")
    assert told(agreed) == [("accepted", None)]
    many = [event() for _ in range(3)] if kind == "flood" else []
    no = event(consent=dict.fromkeys(ALL, False))
    agent = CRAWLER if kind == "crawler" else BROWSER
    assert told(await send(running, *many, no, agent=agent))[-1][0] == "rejected"
    who = await resolve(running, no["visitor_id"])
    held = await running.client.get(f"/v1/consent/{who}", headers=running.bearer("checkout"))
    assert not any(held.json()["purposes"].values())


async def test_a_page_says_no_for_no_user(start: Start) -> None:
    running = await start(page_events_per_minute=3)
    assert told(await send(running, event(user_id="u"), role="checkout")) == [("accepted", None)]
    no = event(user_id="u", consent=dict.fromkeys(ALL, False))
    assert told(await send(running, no, agent=CRAWLER)) == [("rejected", "bot")]
    assert told(await send(running, event(user_id="u"), role="checkout")) == [("accepted", None)]


async def test_an_address_that_asks_too_often_is_told_to_wait(start: Start) -> None:
    running = await start(page_requests_per_minute=2)
    answers = [await send(running, event()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    assert answers[2].headers["content-type"] == "application/problem+json"
    assert (await send(running, event(), role="checkout")).status_code == 202
    assert (await running.decide()).status_code == 200


@pytest.mark.parametrize(
    ("addresses", "households"),
    [
        (("192.0.2.1", "::ffff:192.0.2.1"), 1),
        (("192.0.2.1", "192.0.2.2"), 2),
        (("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"), 1),  # one network, 2**64 addresses
        (("2001:db8:0:1::1", "2001:db8:0:2::1"), 2),
        (("unix", "unix"), 1),
    ],
)
async def test_who_has_many_addresses_counts_as_one(
    addresses: tuple[str, ...], households: int
) -> None:
    limits = PageLimits(100, 100, new_visitors_per_minute=1)
    taken = [
        await limits.takes_new(Request({"type": "http", "headers": [], "client": (address, 1)}))
        for address in addresses
    ]
    assert taken.count(True) == households


async def test_a_crawlers_decision_leaves_nothing_and_knows_nothing(running: Running) -> None:
    await send(running, *(event(items=[{"item_id": f"item-{n}"}]) for n in range(3)))
    token = page_token(running)
    before = len(running.logged())
    for agent, kept in ((BROWSER, 1), (CRAWLER, 1)):
        answer = await running.client.post(
            "/v1/checkout/decide",
            json=checkout(consent=ALL),
            headers={"Authorization": f"Bearer {token}", "User-Agent": agent},
        )
        assert answer.status_code == 200, answer.text
        await running.quiet()
        assert len(running.logged()) == before + kept


def test_only_what_stands_in_a_page_is_limited(running: Running) -> None:
    assert is_page(Caller("k", "collect"))
    assert is_page(Caller("k", "checkout", from_page=True))
    assert not is_page(Caller("k", "checkout"))
    assert not is_page(Caller("k", "admin"))


async def test_a_page_makes_no_subjects_without_bound(start: Start) -> None:
    running = await start(page_new_visitors_per_minute=3)
    known = await resolve(running, "known")
    flood = [event(visitor_id=f"forged-{n}") for n in range(8)]
    results = told(await send(running, *flood, *(event(visitor_id="forged-0"),) * 2))
    assert results[:8] == [("accepted", None)] * 3 + [("rejected", "bot")] * 5
    assert len(running.gateway.control.subject_ids()) == 4
    assert (
        told(await send(running, *flood)) == [("duplicate", None)] * 3 + [("rejected", "bot")] * 5
    )
    # Who is known goes on, and so do those of whom nothing is kept.
    assert told(await send(running, event(visitor_id="known"))) == [("accepted", None)]
    said_no = event(visitor_id="no", consent={"analytics": False})
    assert told(await send(running, said_no)) == [("rejected", "no_consent")]
    assert known in running.gateway.control.subject_ids()
    # A server speaks for all of its shoppers.
    assert told(await send(running, *flood, role="checkout"))[3:] == [("accepted", None)] * 5


async def test_decisions_in_a_page_make_no_subjects_without_bound(start: Start) -> None:
    running = await start(page_new_visitors_per_minute=2)
    await send(running, event(visitor_id="known"), role="checkout")
    token = page_token(running)

    async def decide(visitor: str, key: str = token, **said: Any) -> None:
        answer = await running.client.post(
            "/v1/checkout/decide",
            json=checkout(visitor_id=visitor, consent=ALL, **said),
            headers={"Authorization": f"Bearer {key}", "User-Agent": BROWSER},
        )
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["recommendations"]) > 0
        await running.quiet()

    def kept() -> tuple[int, int]:
        return len(running.gateway.control.subject_ids()), len(running.logged())

    assert kept() == (1, 1)
    for number in range(6):
        await decide(f"forged-{number}")
    assert kept() == (3, 3)
    # Events count against the same limit; who is known goes on.
    assert told(await send(running, event(visitor_id="forged-7"))) == [("rejected", "bot")]
    await decide("forged-0")
    await decide("known")
    assert kept() == (3, 5)
    # Of somebody logged in each further visitor is one more to remember, however well known.
    speaker = page_token(running, sub="u")
    await decide("forged-8", speaker, user_id="u")
    assert kept() == (3, 5)
    # A server speaks for all of its shoppers.
    await decide("forged-9", running.keys["checkout"])
    assert kept() == (4, 6)


async def test_a_page_that_asks_too_much_can_still_withdraw(start: Start) -> None:
    running = await start(page_new_visitors_per_minute=1)
    subject = await resolve(running, "v")
    headers = {"Authorization": f"Bearer {page_token(running)}", "User-Agent": BROWSER}
    for visitor, consent in (("v", ALL), ("stranger", ALL), ("v", dict.fromkeys(ALL, False))):
        body = checkout(visitor_id=visitor, consent=consent)
        answer = await running.client.post("/v1/checkout/decide", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        await running.quiet()
    word = running.gateway.control.consent_of(subject)
    assert word is not None
    assert not word.purposes


async def test_pages_share_no_idempotency_keys(running: Running) -> None:
    headers = {"Idempotency-Key": "the-same"}
    first, other = event(visitor_id="one"), event(visitor_id="other")
    for sent, status in ((first, "accepted"), (other, "accepted"), (first, "duplicate")):
        answer = await running.post("/v1/events", {"events": [sent]}, "collect", headers)
        assert told(answer) == [(status, None)]
    with closing(sqlite3.connect(running.gateway.settings.state / "control.sqlite")) as store:
        assert store.execute("SELECT count(*) FROM answers").fetchone() == (0,)


async def test_a_page_can_not_make_a_repeat_of_a_purchase(running: Running) -> None:
    guessed = str(uuid4())
    page_view = event(event_name="page_view", items=[], event_id=guessed, visitor_id="somebody")
    for status in ("accepted", "duplicate"):
        answer = await send(running, page_view)
        assert answer.json()["results"] == [{"event_id": guessed, "status": status}]
    bought = purchase("item-1", event_id=guessed)
    assert told(await send(running, bought, role="checkout")) == [("accepted", None)]
    assert told(await send(running, bought, role="checkout")) == [("duplicate", None)]
    assert [one.event_name for one in running.logged()] == ["page_view", "purchase"]
