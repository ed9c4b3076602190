"""A shopper's way through the demo shop in a real Chromium: what they do counts within a second,
what they refuse stops counting at once, and what they ask to be erased is gone, with proof."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import helper
from playwright.sync_api import Page, expect

from contract.manifest import RANKER
from contract.pair_features import PAIR_FEATURES
from serving.state.secrets import load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL, EVENTS
from tests.e2e.conftest import OpenPage
from tests.e2e.shop import ROOT, Demo, Shop, build, demo
from tests.e2e.test_demo_page import (
    PERSONAL,
    SCREENSHOTS,
    after,
    anew,
    decision_of,
    opened,
    reasons,
    shown,
)
from tests.serving.release_factory import Factory, onnx_model
from tests.serving.traces import found_in, opened_by_any, sealed_events

SEGMENT = "browsing_explorers"
# What is promised; on a machine that is busy with other tests it only has to come.
AT_MOST_MS = 1_000 if os.environ.get("TILLWISE_PROVE") else 5_000
VISITS = 3
# When a product was chosen, and what could be seen from then on.
STOPWATCH = """() => {
  const ids = (list, name) => [...document.querySelectorAll(list)].map((row) => row.dataset[name]);
  window.seen = [];
  const chosen = (event) => event.target.closest("#products button") &&
    (window.seen = [{ at: performance.now() }]);
  document.addEventListener("click", chosen, true);
  new MutationObserver(() => window.seen.push({
    at: performance.now(),
    segments: ids("#segments > li", "segment"),
    suggestions: ids("#suggestions > li[data-item]", "item"),
  })).observe(document.querySelector(".aside"), { childList: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A release whose ranker minds what goes together, as trained ones do and the usual random one
    of the tests may not."""
    weight = np.zeros((len(PAIR_FEATURES), 1), np.float32)
    weight[PAIR_FEATURES.index("cart_similarity")] = 2
    weight[PAIR_FEATURES.index("baskets")] = 0.1
    nodes = [
        helper.make_node("MatMul", ["pair_features", "weight"], ["wide"]),
        helper.make_node("Squeeze", ["wide", "last"], ["scores"]),
    ]
    constants = {"weight": weight, "last": np.array([2])}
    ranker = onnx_model(RANKER, nodes, constants, Factory.dimension)
    return build(tmp_path_factory.mktemp("shop"), models={RANKER: ranker})


def segments(page: Page) -> list[str]:
    """The segments on the page."""
    rows = page.locator("#segments > li").all()
    return [row.get_attribute("data-segment") or "" for row in rows]


def look(page: Page, place: int) -> str:
    """Look at a product of the shelf and wait for what follows; its name."""
    decided = decision_of(page)
    card = page.locator("#products > li").nth(place)
    name = card.locator(".name").inner_text()
    card.get_by_role("button").click()
    expect(page.locator("#product-title")).to_have_text(name)
    expect(page.locator("#product-title")).to_be_focused()
    anew(page, decided)
    return name


def browse(page: Page) -> float:
    """Look at three products of one kind, which changes segments and suggestions; milliseconds from
    the third choice until the page showed both."""
    page.evaluate(STOPWATCH)
    suggested, marked = shown(page), 0
    for place in range(3):
        assert SEGMENT not in segments(page)
        before = shown(page)
        look(page, place)
        rows = page.locator("#suggestions > li.fresh")
        assert (rows.count() > 0) == (shown(page) != before)  # what moved is marked
        marked += rows.count()
    assert marked > 0
    assert SEGMENT in segments(page)
    assert shown(page) != suggested
    seen: list[dict[str, Any]] = page.evaluate("window.seen")
    chosen, *moments = seen
    moved = next(
        one
        for one in moments
        if SEGMENT in one["segments"] and one["suggestions"] and one["suggestions"] != suggested
    )
    return float(moved["at"] - chosen["at"])


def switch(page: Page, name: str) -> None:
    decided = decision_of(page)
    page.get_by_role("switch", name=name).press("Space")
    after(page, decided)


def play(page: Page, shopper: int) -> None:
    decided = decision_of(page)
    page.get_by_label("Shopping as").select_option(index=shopper)
    after(page, decided)


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_three_products_of_one_kind_move_segment_and_suggestions_within_a_second(
    open_page: OpenPage, own_demo: Demo
) -> None:
    page = opened(open_page, own_demo)
    took = []
    for shopper in range(VISITS):
        if shopper:
            play(page, shopper)
        took.append(browse(page))
        fresh = page.locator(f'#segments > li.fresh[data-segment="{SEGMENT}"]')
        expect(fresh).to_contain_text("New")
        expect(fresh).to_contain_text("since Nov 20, 2017")
        expect(fresh.locator(".why > li").first).to_contain_text("3")
        expect(page.locator("#changed")).to_contain_text("Now in Browsing Explorers")
        expect(page.locator("#announcer")).to_contain_text("You are now in Browsing Explorers.")
    print(f"from the third product to both changes, ms: {[round(one) for one in took]}")
    assert median(took) <= AT_MOST_MS
    screenshot(page, "live-1280")


def until_nothing_is_kept(page: Page) -> None:
    """Wait until this browser holds nothing: a no is kept until the gateway has answered it."""
    for _ in range(100):
        if not page.evaluate("localStorage.length + sessionStorage.length"):
            return
        page.wait_for_timeout(100)
    raise AssertionError(page.evaluate("({...localStorage, ...sessionStorage})"))


def test_withdrawing_makes_both_generic_at_once_and_agreeing_brings_them_back(
    open_page: OpenPage, own_demo: Demo
) -> None:
    page = opened(open_page, own_demo)
    browse(page)
    assert reasons(page) & PERSONAL
    personal = segments(page)
    switch(page, "Personalization")
    assert segments(page) == []
    assert not reasons(page) & PERSONAL
    generic = shown(page)
    expect(page.locator("#segments-empty")).to_contain_text("nothing is looked at")
    expect(page.locator("#privacy")).to_contain_text("On record: refused on Nov 20, 2017")
    until_nothing_is_kept(page)
    # It is the gateway that remembers, not the page.
    page.reload()
    expect(page.locator("#suggestions > li[data-item]")).to_have_count(5)
    expect(page.get_by_role("switch", name="Personalization")).not_to_be_checked()
    assert segments(page) == []
    assert shown(page) == generic
    switch(page, "Personalization")
    assert segments(page) == personal
    assert reasons(page) & PERSONAL
    expect(page.locator("#privacy")).to_contain_text("On record: agreed on")
    switch(page, "Global Privacy Control")
    assert segments(page) == []
    assert not reasons(page) & PERSONAL


def test_somebody_new_is_told_apart_only_by_what_they_agreed_to(
    open_page: OpenPage, own_demo: Demo
) -> None:
    page = opened(open_page, own_demo, width=390, height=844)
    page.get_by_label("Shopping as").select_option(label="Somebody new, who agreed to nothing")
    expect(page.get_by_role("switch", name="Personalization")).not_to_be_checked()
    expect(page.locator("#privacy")).to_contain_text("Nothing is recorded.")
    for place in range(3):
        page.locator("#products > li").nth(place).get_by_role("button").click()
    page.wait_for_timeout(1_700)
    assert segments(page) == []
    decided = decision_of(page)
    switch(page, "Personalization")
    assert decision_of(page) != decided
    assert SEGMENT not in segments(page)  # what was done before the word never counts
    look(page, 3)
    look(page, 4)
    look(page, 0)
    assert SEGMENT in segments(page)
    # On a small screen what moved is told where the shopper is looking.
    box = page.locator("#changed").bounding_box()
    assert box is not None
    assert 0 <= box["y"] <= 844 - box["height"]
    screenshot(page, "live-390")


def test_what_is_erased_is_gone_and_the_receipt_holds(
    open_page: OpenPage, shop: Shop, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with demo(shop, state) as running:
        page = opened(open_page, running)
        browse(page)
        visitor = _shoppers(running)[0]["visitor_id"]
        label = page.locator("#shopper option:checked").inner_text()
        page.get_by_role("button", name="Erase me").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(label)
        dialog.get_by_role("button", name="Keep it").click()
        expect(dialog).to_be_hidden()
        lines = page.locator("#lines > li").count()
        before = sealed_events(state / EVENTS)
        with closing(SqliteControlStore(state / CONTROL, load_secrets(state, None))) as control:
            assert opened_by_any(control, state / CONTROL, before) == len(before) > 3
            decided = decision_of(page)
            page.get_by_role("button", name="Erase me").click()
            dialog.get_by_role("button", name="Erase everything").click()
            expect(dialog.get_by_role("heading")).to_have_text("Erased")
            with page.expect_download() as download:
                dialog.get_by_role("link", name="Download the receipt").click()
            receipt = tmp_path / download.value.suggested_filename
            download.value.save_as(receipt)
            screenshot(page, "erased-1280")
            gone = json.loads(receipt.read_text())["receipt"]["subject_ids"]
            assert gone
            # The page goes on with a stranger and the same basket; this browser keeps nothing.
            dialog.get_by_role("button", name="Close").click()
            after(page, decided)
            assert page.locator("#lines > li").count() == lines
            assert segments(page) == []
            assert not reasons(page) & PERSONAL
            until_nothing_is_kept(page)
            assert label not in page.locator("#shopper option").all_inner_texts()
            assert visitor not in {one["visitor_id"] for one in _shoppers(running)}
            # Neither the id nor a key that opens anything of it.
            assert found_in(state, [*gone, visitor]) == []
            assert opened_by_any(control, state / CONTROL, before) < len(before)
            left = sealed_events(state / EVENTS)
            assert opened_by_any(control, state / CONTROL, left) == len(left)
        _shows_the_proof(page, receipt, state)
    assert found_in(state, [*gone, visitor]) == []  # nor after what the shutdown writes
    with demo(shop, state) as again:
        assert visitor not in {one["visitor_id"] for one in _shoppers(again)}


def _shoppers(running: Demo) -> list[dict[str, Any]]:
    told = httpx.get(f"{running.url}/demo/api/shoppers", trust_env=False).json()
    shoppers: list[dict[str, Any]] = told["shoppers"]
    return shoppers


def _shows_the_proof(page: Page, receipt: Path, state: Path) -> None:
    """The command that the page shows verifies the receipt, and refuses a changed one."""
    command = page.locator("#receipt-check").text_content() or ""
    program, *arguments = command.split()
    assert program == ".venv/bin/tillwise-serve"
    assert arguments == ["receipt", "verify", receipt.name, "--state", str(state)]

    def verified() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "serving", *arguments],
            cwd=receipt.parent,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    told = verified()
    assert told.returncode == 0, told.stderr
    assert "the receipt holds" in told.stdout
    changed = json.loads(receipt.read_text())
    changed["receipt"]["events_removed"] += 1
    receipt.write_text(json.dumps(changed))
    assert verified().returncode == 3


def test_no_key_but_the_public_one_reaches_the_page(served: Demo) -> None:
    page = httpx.get(f"{served.url}/demo/", trust_env=False).text
    assert served.key("collect") in page
    for path in ("/demo/", "/demo/demo.js", "/demo/api/shoppers", "/demo/api/aisles"):
        told = httpx.get(f"{served.url}{path}", trust_env=False).text
        assert served.key("checkout") not in told
        assert served.key("admin") not in told
