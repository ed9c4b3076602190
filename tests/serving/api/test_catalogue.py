"""What the shop says of its items counts for the next decision, survives, and can be taken back."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.catalogue import ItemChange
from serving.api.catalogue import MOST_ITEMS
from serving.inference.catalogue_overlay import CatalogueOverlay
from tests.serving.conftest import Running, Start, checkout
from tests.serving.release_factory import Factory


async def patch(running: Running, *items: dict[str, Any], **more: Any) -> httpx.Response:
    headers = running.bearer("admin") | more.pop("headers", {})
    return await running.client.patch(
        "/v1/catalogue/items", json={"items": list(items)} | more, headers=headers
    )


async def shown(running: Running, **changed: Any) -> list[str]:
    answer = await running.decide(**changed)
    assert answer.status_code == 200, answer.text
    return [one["item_id"] for one in answer.json()["recommendations"]]


async def test_an_item_that_is_sold_out_is_gone_at_once_and_comes_back(running: Running) -> None:
    before = await shown(running)
    answer = await patch(running, *({"item_id": one, "available": False} for one in before))
    assert (answer.status_code, answer.json()) == (200, {"number": 1, "unknown_item_ids": []})
    assert not set(await shown(running)) & set(before)
    answer = await patch(running, *({"item_id": one, "available": None} for one in before))
    assert answer.json()["number"] == 2
    assert await shown(running) == before


async def test_fields_that_are_left_out_stay_as_they_were_said(running: Running) -> None:
    first = (await shown(running))[0]
    await patch(running, {"item_id": first, "available": False})
    await patch(running, {"item_id": first, "price": 7})
    assert first not in await shown(running)
    await patch(running, {"item_id": first, "available": None})
    cheap = {"max_price": 7}
    assert await shown(running, filter=cheap) == [first]
    await patch(running, {"item_id": first, "price": None})
    assert first not in await shown(running, filter=cheap)


async def test_regions(running: Running) -> None:
    first = (await shown(running))[0]
    await patch(running, {"item_id": first, "regions": ["west"]})
    assert first not in await shown(running, context={"region": "east"})
    assert first in await shown(running, context={"region": "west"})
    assert first in await shown(running)  # nobody said where
    await patch(running, {"item_id": first, "regions": []})
    assert first in await shown(running, context={"region": "east"})


async def test_it_survives_a_restart_and_counts_in_the_next_release(
    start: Start, tmp_path: Path
) -> None:
    factory = Factory(tmp_path / "made")
    factory.write()
    running = await start(releases=factory.releases_dir, models=factory.models_dir)
    first, second = (await shown(running))[:2]
    await patch(running, {"item_id": first, "available": False})
    answer = await patch(running, {"item_id": "item-new", "available": False})
    assert answer.json()["unknown_item_ids"] == ["item-new"]
    factory.write("tiny-2")
    await running.gateway.live.load_or_keep("tiny-2")
    assert first not in await shown(running)
    await patch(running, {"item_id": second, "available": False})
    await running.stop()
    again = await start(releases=factory.releases_dir, models=factory.models_dir)
    assert not {first, second} & set(await shown(again))
    assert len(again.gateway.overlay) == 3


async def test_another_gateway_on_the_store_follows(running: Running, start: Start) -> None:
    other = CatalogueOverlay(running.gateway.control.items_changed_since)
    release = running.gateway.live.current
    await patch(running, {"item_id": "item-3", "price": 3})
    assert len(other) == 0
    other.follow([release])
    assert (len(other), other.number) == (1, 1)
    # A gateway that was told nothing itself finds it in the store within half a second.
    neighbour = await start()
    await patch(neighbour, {"item_id": "item-4", "available": False})
    for _ in range(40):
        if running.gateway.overlay.number == 2:
            break
        await asyncio.sleep(0.05)
    assert "item-4" not in await shown(running)


async def test_what_is_wrong_is_refused_and_changes_nothing(running: Running) -> None:
    before = await shown(running)
    first = {"item_id": before[0], "available": False}
    assert (await patch(running, first, currency="EUR")).status_code == 422
    assert (await patch(running, first, first)).status_code == 422
    assert (await patch(running)).status_code == 422
    assert (await patch(running, first | {"price": -1})).status_code == 422
    assert (await patch(running, first | {"price": 1.5})).status_code == 422
    assert (await patch(running, first | {"stock": 3})).status_code == 422
    many = ({"item_id": f"i{number}"} for number in range(MOST_ITEMS + 1))
    assert (await patch(running, *many)).status_code == 422
    for role in ("checkout", "collect"):
        answer = await patch(running, first, headers=running.bearer(role))
        assert answer.status_code == 403
    assert await shown(running) == before
    assert running.gateway.overlay.number == 0


async def test_item_ids_are_text_without_control_characters(running: Running) -> None:
    for wrong in ("a\0b", "a\nb", "\x7f", "a\n", ""):
        assert (await patch(running, {"item_id": wrong, "price": 1})).status_code == 422, wrong
    for right in ("5901234123457", "tröja 1/2", "商品"):
        assert (await patch(running, {"item_id": right, "price": 1})).status_code == 200, right


async def test_no_more_is_kept_of_unknown_items_than_may_be(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = len(running.gateway.live.current.vocabulary)
    monkeypatch.setattr("serving.api.catalogue.MOST_UNKNOWN", 10 - known)
    ten = [{"item_id": f"new-{one}", "price": 1} for one in range(10)]
    assert (await patch(running, *ten)).status_code == 200
    assert (await patch(running, *ten)).status_code == 200  # nothing more to keep
    refused = await patch(running, {"item_id": "new-10", "price": 1})
    assert refused.status_code == 422
    assert "no release" in refused.json()["detail"]
    assert (await patch(running, {"item_id": "item-3", "price": 1})).status_code == 200
    assert len(running.gateway.overlay) == 11


async def test_a_repeat_with_the_same_key_says_it_once(running: Running) -> None:
    key = {"Idempotency-Key": "k"}
    first = await patch(running, {"item_id": "item-3", "price": 3}, headers=key)
    again = await patch(running, {"item_id": "item-3", "price": 3}, headers=key)
    assert first.json() == again.json()
    assert again.headers["idempotent-replay"] == "true"
    answer = await patch(running, {"item_id": "item-3", "price": 4}, headers=key)
    assert answer.status_code == 409


async def test_many_changes_do_not_keep_decisions_from_their_turns(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are worked out while the loop goes on, and count all the same when they are answered."""
    current, loop_thread = running.gateway.live.current, threading.get_ident()
    worked_on: list[int] = []
    say = type(current.catalogue).say

    def noted(*said: Any) -> None:
        worked_on.append(threading.get_ident())
        say(*said)

    monkeypatch.setattr(type(current.catalogue), "say", noted)
    before = await shown(running)
    regions = [f"region-{one}" for one in range(180)]
    items = [{"item_id": f"item-{one}", "regions": regions} for one in range(60)]
    answers = await asyncio.gather(
        patch(running, *items), patch(running, *({"item_id": one} for one in before))
    )
    assert sorted(answer.json()["number"] for answer in answers) == [1, 2]
    assert await shown(running, context={"region": "elsewhere"}) == []
    assert worked_on
    assert loop_thread not in worked_on
    assert current.catalogue.said == running.gateway.overlay.number == 2


async def test_nobody_sees_a_part_of_what_one_number_says(running: Running) -> None:
    release = running.gateway.live.current
    said = [(f"item-{one}", ItemChange(price=1), 1) for one in (1, 2)]
    overlay: CatalogueOverlay

    def since(_: int) -> Iterator[tuple[str, ItemChange, int]]:
        for one in said:
            yield one
            overlay.lay(release)  # as the loading of a release does on its thread

    overlay = CatalogueOverlay(since)  # type: ignore[arg-type]
    overlay.follow([release])
    places = [release.vocabulary.index(item_id) for item_id, _, _ in said]
    assert release.catalogue.now.price[places].tolist() == [1, 1]


async def test_a_decision_sees_one_moment(running: Running) -> None:
    """Changes that come during decisions never leave one with half of them."""
    body = checkout()

    async def change() -> None:
        for number in range(20):
            items = ({"item_id": f"item-{one}", "available": number % 2 == 0} for one in range(60))
            await patch(running, *items)

    async def ask() -> list[int]:
        counts = []
        for _ in range(30):
            answer = await running.post("/v1/checkout/decide", body)
            counts.append(len(answer.json()["recommendations"]))
        return counts

    _, counts = await asyncio.gather(change(), ask())
    assert set(counts) <= {0, 5}
