"""The dashboard in a real Chromium: behind its login before a gateway with a quarter's figures, and
open in a demo that simulated shoppers came to."""

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from benchmarks.experiment_units import shoppers
from benchmarks.kpi_shoppers import COSTS, START, batches
from contract.experiments import Experiment, personalised_against_generic
from serving.experiments.report import made_report
from serving.experiments.rollup import Rollup
from serving.experiments.statistics import COLUMNS
from serving.experiments.units import Units
from serving.monitoring.kpi_rollup import KpiRollup
from serving.monitoring.kpis import FILE
from serving.state.sqlite_writer import connect
from tests.e2e.conftest import OpenPage
from tests.e2e.shop import ROOT, Shop, demo
from tests.serving.commands.processes import Place

SCREENSHOTS = ROOT / "build" / "screenshots"
VISITS, DAYS = 6_000, 20
KEY = "personalised-against-generic"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the sums of some weeks; no test changes them."""
    state = tmp_path_factory.mktemp("figures")
    with closing(connect(state / FILE)) as file:
        rollup = KpiRollup(file)
        for batch in batches(VISITS, DAYS, 2_000, 1, 4_000):
            file.execute("BEGIN")
            rollup.take(batch, COSTS)
            file.execute("COMMIT")
    return state


@pytest.fixture(scope="module")
def guarded(shop: Shop, figures: Path) -> Iterator[tuple[str, str]]:
    """A gateway over them; its address and an admin key."""
    place = Place(shop.release, figures)
    # As a process: Playwright keeps an event loop in this thread.
    key = place.run("keys", "create", "--role", "admin").stdout.strip().splitlines()[-1]
    with place.gateway("--as-of", (START + timedelta(days=DAYS)).isoformat()) as served:
        yield served.url, key


def loaded(page: Page) -> Page:
    expect(page.locator("body[data-loaded]")).to_be_attached(timeout=30_000)
    expect(page.locator("#tiles .tile")).to_have_count(12)
    return page


def signed_in(open_page: OpenPage, guarded: tuple[str, str], **options: object) -> Page:
    url, key = guarded
    page = open_page(f"{url}/dashboard", **options)
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Show the dashboard").click()
    return loaded(page)


def no_wider_than_the_screen(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_figures_are_read_at_any_width(
    open_page: OpenPage, guarded: tuple[str, str], width: int, scheme: str
) -> None:
    page = signed_in(open_page, guarded, width=width, color_scheme=scheme)
    no_wider_than_the_screen(page)
    tile = page.locator('.tile[data-metric="conversion"]')
    expect(tile.locator(".value")).to_contain_text("%")
    expect(tile.locator(".change")).to_contain_text("pts")
    expect(page.locator('.tile[data-metric="rung_full"]')).to_contain_text("Full answers")
    expect(page.locator("#course svg path.line")).to_have_count(1)
    page.locator("#apart").select_option("experiment")
    expect(page.locator("#course svg path.line")).to_have_count(2)
    expect(page.locator("#course-legend li")).to_have_count(2)
    expect(page.locator("#course-legend li").first).to_contain_text("test: ")
    page.locator("#cut").select_option("segment")
    expect(page.locator("#breakdown tbody tr")).to_have_count(12)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"dashboard-{width}-{scheme}.png", full_page=True)
    no_wider_than_the_screen(page)


def test_it_is_read_with_the_keyboard_and_as_a_table(
    open_page: OpenPage, guarded: tuple[str, str]
) -> None:
    page = signed_in(open_page, guarded)
    page.locator('.tile[data-metric="revenue"]').press("Enter")
    expect(page.locator("#course-title")).to_have_text("Revenue")
    expect(page.locator('.tile[data-metric="revenue"]')).to_have_attribute("aria-pressed", "true")
    chart = page.locator("#course svg")
    assert "$" in (chart.get_attribute("aria-label") or "")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    tip = page.locator("#course .tip")
    expect(tip).to_contain_text("Revenue $")
    first = tip.inner_text()
    page.keyboard.press("Home")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.get_by_text("As a table").first.click()
    expect(page.locator("#course-table tbody tr")).to_have_count(168)


def test_ranges_are_told_against_the_time_before(
    open_page: OpenPage, guarded: tuple[str, str]
) -> None:
    page = signed_in(open_page, guarded)
    visits = page.locator('.tile[data-metric="visits"] .value')
    week = visits.inner_text()
    page.get_by_label("24 hours").check()
    expect(page.locator("#against")).to_contain_text("the day before")
    expect(visits).not_to_have_text(week)
    expect(page.locator("#course-note")).to_be_empty()
    page.get_by_label("90 days").check()
    expect(page.locator("#against")).to_have_text("Of the 90 days before there are no figures.")
    expect(page.locator(".tile .change", has_text="no figures")).to_have_count(0)
    expect(page.locator("#marks")).to_contain_text("release-")
    expect(page.locator("#course-note")).to_contain_text("Something went live")


def test_nobody_sees_figures_without_a_key(open_page: OpenPage, guarded: tuple[str, str]) -> None:
    url, key = guarded
    assert httpx.get(f"{url}/v1/kpis").status_code == 401
    page = open_page(f"{url}/dashboard", complains=True)  # of the 401
    expect(page.locator("#board")).to_be_hidden()
    page.get_by_label("Admin key").fill("tw_admin_" + "x" * 43)
    page.get_by_role("button", name="Show the dashboard").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    expect(page.locator("#board")).to_be_hidden()
    page.get_by_label("Admin key").fill(key)
    page.keyboard.press("Enter")
    loaded(page)
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#board")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_test_that_is_over_or_not_begun_is_not_called_running(
    open_page: OpenPage, guarded: tuple[str, str]
) -> None:
    url, key = guarded
    now = START + timedelta(days=DAYS)
    times = {
        "over": {"ends_at": (now - timedelta(days=1)).isoformat()},
        "not-yet": {"starts_at": (now + timedelta(days=1)).isoformat()},
        "now": {"ends_at": (now + timedelta(days=1)).isoformat()},
    }
    for name, span in times.items():
        made = {"key": name, "title": name, "variants": [{"key": "a"}, {"key": "b"}], **span}
        answer = httpx.put(
            f"{url}/v1/experiments/{name}",
            json={"experiment": made | {"status": "running"}},
            headers={"authorization": f"Bearer {key}"},
        )
        assert answer.status_code == 200, answer.text
    page = signed_in(open_page, guarded, complains=True)  # of reports that are not made yet
    said = {name: page.locator(f'.experiment[data-key="{name}"] .state') for name in times}
    expect(said["over"]).to_have_text("ended")
    expect(said["not-yet"]).to_have_text("not begun")
    expect(said["now"]).to_have_text("running")


def reported(file: Path) -> Experiment:
    """A test that has sold more on phones only, with its report in the worker's file."""
    running = personalised_against_generic().model_copy(update={"status": "running"})
    rng, count = np.random.default_rng(3), 4_000
    devices = ("desktop", "mobile", "tablet")
    rows, variants, on = [], [], []
    for arm in ("generic", "personalised"):
        for device in devices:
            lift = 0.4 if (arm, device) == ("personalised", "mobile") else 0.0
            rows.append(shoppers(rng, count, lift=lift))
            variants += [arm] * count
            on += [device] * count
    places = rng.choice(["CA", "DE", "US"], len(on), p=[0.1, 0.3, 0.6])
    known = np.concatenate(rows)[:, COLUMNS.index("buyers_before")] > 0
    bought_before = ["yes" if one else "no" for one in known]
    cuts = {"device": on, "country": places.tolist(), "bought_before": bought_before}
    report = made_report(running, Units(variants, cuts, np.concatenate(rows), 0, 0), START)
    with closing(Rollup(file)) as rollup:
        rollup.keep_report(running.key, report.model_dump_json())
    return running


@pytest.mark.parametrize("width", [1280, 360])
def test_for_whom_a_test_works_is_unfolded(
    open_page: OpenPage, shop: Shop, figures: Path, tmp_path: Path, width: int
) -> None:
    """Of those whom the interval would call changed, only what outlasts the correction is shown."""
    (tmp_path / "state").mkdir()
    shutil.copy(figures / FILE, tmp_path / "state" / FILE)
    experiment = reported(tmp_path / "state" / FILE)
    place = Place(shop.release, tmp_path / "state")
    key = place.run("keys", "create", "--role", "admin").stdout.strip().splitlines()[-1]
    with place.gateway("--as-of", (START + timedelta(days=DAYS)).isoformat()) as served:
        answer = httpx.put(
            f"{served.url}/v1/experiments/{experiment.key}",
            json={"experiment": experiment.model_dump(mode="json", exclude_none=True)},
            headers={"authorization": f"Bearer {key}"},
        )
        assert answer.status_code == 200, answer.text
        page = open_page(f"{served.url}/dashboard", width=width)
        page.get_by_label("Admin key").fill(key)
        page.get_by_role("button", name="Show the dashboard").click()
        card = loaded(page).locator(f'.experiment[data-key="{KEY}"]')
        cuts = card.locator("details.cuts")
        expect(cuts.locator(".effect").first).to_be_hidden()
        cuts.locator("summary").click()
        expect(cuts.locator(".effect")).to_have_count(8)
        phones = cuts.locator(".effect", has_text="mobile")
        expect(phones).to_contain_text("corrected p below .001")
        expect(phones.locator(".lift.good")).to_contain_text("+")
        desks = cuts.locator(".effect", has_text="desktop")
        expect(desks).to_contain_text("no difference shown yet")
        expect(desks.locator(".lift.open")).to_have_count(1)
        expect(cuts).to_contain_text("Of 8 cuts")
        no_wider_than_the_screen(page)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        card.screenshot(path=SCREENSHOTS / f"cuts-{width}.png")
        page.get_by_label("24 hours").check()  # the figures are drawn anew
        expect(page.locator("#against")).to_contain_text("the day before")
        expect(cuts.locator(".effect").first).to_be_visible()


def test_opened_too_early_it_keeps_asking_and_old_figures_are_told(
    open_page: OpenPage, shop: Shop, figures: Path, tmp_path: Path
) -> None:
    """No worker has made its file yet; then one has, a day ago; then the gateway is gone."""
    place = Place(shop.release, tmp_path / "state")
    key = place.run("keys", "create", "--role", "admin").stdout.strip().splitlines()[-1]
    with place.gateway("--as-of", (START + timedelta(days=DAYS + 1)).isoformat()) as served:
        page = open_page(f"{served.url}/dashboard", complains=True)  # of the 404
        page.clock.install()
        page.reload()
        page.get_by_label("Admin key").fill(key)
        page.get_by_role("button", name="Show the dashboard").click()
        problem, stale = page.locator("#problem"), page.locator("#stale")
        expect(problem).to_contain_text("No key figures are kept yet")
        shutil.copy(figures / FILE, tmp_path / "state" / FILE)
        page.clock.fast_forward(31_000)
        loaded(page)
        expect(problem).to_be_hidden()
        expect(stale).to_contain_text("Nothing was counted for")
        expect(stale).to_contain_text("worker")
    page.clock.fast_forward(31_000)
    expect(problem).to_contain_text("can not be reached")
    expect(page.locator("#tiles .tile")).to_have_count(12)


def test_a_demo_shows_its_running_test(open_page: OpenPage, shop: Shop, tmp_path: Path) -> None:
    with demo(shop, tmp_path / "state", None, "--shoppers=50") as served:
        board, until = f"{served.url}/demo/api/board", time.monotonic() + 120
        reported = f"{board}/experiments/{KEY}/report"
        with httpx.Client(trust_env=False, timeout=20) as client:
            while client.get(reported).status_code != 200 and time.monotonic() < until:
                time.sleep(0.5)
            assert client.get(f"{board}/subjects").status_code == 404
            assert client.get(f"{board}/kpis?bucket=luck").status_code == 422
            total = client.get(f"{board}/kpis", params={"bucket": "day"}).json()
        assert total["as_of"] is not None
        page = loaded(open_page(f"{served.url}/dashboard"))
        expect(page.locator("#simulated")).to_contain_text("Simulated shoppers.")
        expect(page.locator("#stale")).to_be_hidden()
        running = page.locator(f'.experiment[data-key="{KEY}"]')
        expect(running.locator(".state")).to_have_text("running")
        expect(running.locator(".arms")).to_contain_text("generic:")
        no_wider_than_the_screen(page)
