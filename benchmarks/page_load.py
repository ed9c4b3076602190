"""How long a page takes to show what it is there for, in a real browser that has never seen it."""

import shutil
import time
from collections.abc import Sequence

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def page_loads(url: str, api_key: str, times: int) -> Sequence[float] | None:
    """Milliseconds from asking for the dashboard at `url` until all of its figures stand there,
    each time in a profile of its own; None where there is no Chromium to drive."""
    executable = next((found for name in _CHROMIUM if (found := shutil.which(name))), None)
    if executable is None:
        return None
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    spent = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_FLAGS))
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1_280, "height": 900})
            context.add_init_script(f"sessionStorage.setItem('tillwise-admin-key', '{api_key}')")
            page = context.new_page()
            began = time.perf_counter()
            page.goto(url, wait_until="commit")
            page.wait_for_selector("body[data-loaded] .tile")
            spent.append((time.perf_counter() - began) * 1_000)
            context.close()
        browser.close()
    return spent
