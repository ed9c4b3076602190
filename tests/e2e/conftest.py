"""A real browser before a real gateway. What the browser complains of fails the test."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.shop import Demo, Shop, build, demo

INSTALL = "chromium is missing; get it: apt-get update && apt-get install -y chromium"
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Safari/537.36"
)
FLAGS = [
    # Also for beacons of a page that is gone: a headless one is taken for a crawler.
    f"--user-agent={BROWSER}",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
]
# How quick a page is, its own tests ask; all others only wait for it, beside whatever else runs.
PATIENCE_MS = 15_000
expect.set_options(timeout=PATIENCE_MS)
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A release and the import behind it; no test changes them."""
    return build(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def served(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that no test stops."""
    with demo(shop, tmp_path_factory.mktemp("demo") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. It ends with the module: Playwright keeps an event loop of its own in
    this thread, and no asynchronous test could run beside it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        pytest.fail(INSTALL)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages: `open_page(url, width=..., complains=True)`. Those that may not complain are
    checked at the end: no error on the console, no uncaught error, no breach of the policy."""
    checked: list[tuple[Page, list[str]]] = []
    with ExitStack() as opened:

        def open_one(url: str, *, complains: bool = False, **options: Any) -> Page:
            width, height = options.pop("width", 1_280), options.pop("height", 900)
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            opened.callback(context.close)
            context.add_init_script(NOTE_VIOLATIONS)
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            said: list[str] = []
            page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(url)
            if not complains:
                checked.append((page, said))
            return page

        yield open_one
        for page, said in checked:
            assert said == []
            assert page.evaluate("window.violations") == []


@pytest.fixture
def own_demo(shop: Shop, tmp_path: Path) -> Iterator[Demo]:
    """A demo that the test may kill."""
    with demo(shop, tmp_path / "state") as running:
        yield running
