"""Review items on the dashboard in a real Chromium: read, acknowledged with a name, closed with a
note; nothing in them is markup."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from contract.reviews import Before, Contribution, Finding
from serving.experiments.rollup import FILE, Rollup
from serving.state.secrets import load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL
from tests.e2e.conftest import OpenPage
from tests.e2e.shop import ROOT, Shop
from tests.serving.commands.processes import Place

SCREENSHOTS = ROOT / "build" / "screenshots"
NOW = datetime(2026, 11, 20, 14, 15, tzinfo=UTC)
SINCE = NOW - timedelta(hours=2)
DROP = Finding(
    key="conversion",
    source="kpi",
    metric="conversion",
    title="Conversion: 17 % lower than expected",
    expected=0.0481,
    seen=0.0399,
    low=0.0465,
    high=0.0498,
    since=SINCE,
    seen_at=NOW,
    contributions=(
        Contribution(dimension="device", value="mobile", share=0.93, expected=0.041, seen=0.0312),
        Contribution(dimension="country", value="DE", share=0.66, expected=0.048, seen=0.0396),
    ),
    before=(
        Before(kind="release", name="20261120T115500Z-demo", at=SINCE - timedelta(minutes=5)),
        Before(
            kind="rules",
            name="version 7",
            at=SINCE - timedelta(hours=1),
            by="key-anna",
            note="<b>autumn</b>",
        ),
    ),
    detail={"strength": 2.4, "hours": 2.0, "also": ["abandonment", "revenue_per_decision"]},
)
DRIFT = Finding(
    key="drift/features",
    source="drift",
    metric="drift_features",
    title="What the ranker is told of shoppers and items is not what it was trained on",
    expected=0.0,
    seen=0.61,
    high=0.25,
    since=NOW - timedelta(days=7),
    seen_at=NOW,
    detail={
        "release": "20261120T115500Z-demo",
        "columns": [{"name": "price", "psi": 0.61, "ks": 0.31}],
    },
)


def found(state: Path) -> None:
    """What the worker would tell."""
    secrets = load_secrets(state, None)
    with closing(SqliteControlStore(state / CONTROL, secrets)) as store:
        asyncio.run(store.note_findings("kpi", [DROP]))
        asyncio.run(store.note_findings("drift", [DRIFT]))


@pytest.fixture
def served(shop: Shop, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A gateway whose worker has found something; its address and an admin key."""
    place = Place(shop.release, tmp_path / "state")
    # In a process and a thread of their own: Playwright has an event loop in this one.
    key = place.run("keys", "create", "--role", "admin").stdout.strip().splitlines()[-1]
    Rollup(place.state / FILE).close()
    with ThreadPoolExecutor() as threads:
        threads.submit(found, place.state).result()
    with place.gateway() as running:
        yield running.url, key


def opened(open_page: OpenPage, served: tuple[str, str], **options: object) -> Page:
    url, key = served
    page = open_page(f"{url}/dashboard", **options)
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Show the dashboard").click()
    expect(page.locator("#reviews .review")).to_have_count(2, timeout=30_000)
    return page


def test_items_are_read_acknowledged_and_closed(
    open_page: OpenPage, served: tuple[str, str]
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width, scheme in ((360, "dark"), (1_280, "light")):
        page = opened(open_page, served, width=width, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#reviews").screenshot(path=SCREENSHOTS / f"reviews-{width}.png")
    drop = page.locator(".review", has_text="Conversion: 17 %")
    expect(drop).to_contain_text("4.0 %, expected 4.8 %")
    expect(drop).to_contain_text("device mobile, 93 % of it")
    expect(drop).to_contain_text("Release 20261120T115500Z-demo")
    expect(drop).to_contain_text("<b>autumn</b>")
    expect(page.locator(".review", has_text="price (PSI 0.61, KS 0.31)")).to_be_visible()
    expect(page.locator("#reviews .card-head")).to_contain_text("2 open")
    expect(page.locator("#reviews")).not_to_contain_text("null")
    drop.get_by_label("Your name").fill("Anna")
    drop.get_by_role("button", name="Acknowledge").click()
    expect(drop.locator(".state").first).to_have_text("acknowledged")
    expect(page.locator("#reviews .card-head")).to_contain_text("1 open")
    drop.get_by_label("Note on").fill("the new checkout page")
    drop.get_by_role("button", name="Close").click()
    expect(page.locator("#reviews > .review-list > .review")).to_have_count(1)
    page.get_by_text("Closed lately (1)").click()
    closed = page.locator("#reviews details .review")
    closed.get_by_text("What was done").click()
    expect(closed).to_contain_text("acknowledged by Anna")
    expect(closed).to_contain_text(": the new checkout page")
    page.locator("#reviews").screenshot(path=SCREENSHOTS / "reviews-closed.png")
