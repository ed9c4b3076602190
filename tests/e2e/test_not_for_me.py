"""What a shopper of the demo says is not for them is gone at once, and stays away with consent."""

from playwright.sync_api import expect

from tests.e2e.conftest import OpenPage
from tests.e2e.shop import Demo
from tests.e2e.test_demo_page import (
    SCREENSHOTS,
    after,
    decision_of,
    in_full,
    opened,
    shown,
    suggestions,
)


def test_what_is_not_for_them_goes_at_once_and_stays_away(
    open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    refused, decided = shown(page)[1], decision_of(page)
    row = page.locator(f'#suggestions > li[data-item="{refused}"]')
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "demo-not-for-me.png", full_page=True)
    row.get_by_role("button", name="Not for me").click()
    expect(row).to_have_count(0)
    expect(page.locator("#announcer")).to_contain_text("is not suggested again")
    after(page, decided)
    expect(suggestions(page)).to_have_count(5)
    assert refused not in shown(page)
    # Another visit: the page has forgotten, the gateway has not.
    page.reload()
    expect(suggestions(page)).to_have_count(5)
    in_full(page)
    assert refused not in shown(page)


def test_without_consent_the_page_alone_remembers_what_is_not_for_them(
    open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    decided = decision_of(page)
    page.locator("#consent").uncheck(force=True)
    after(page, decided)
    refused, decided = shown(page)[0], decision_of(page)
    suggestions(page).first.get_by_role("button", name="Not for me").click()
    after(page, decided)
    assert refused not in shown(page)
    expect(page.locator("#announcer")).to_contain_text("5 suggestions")
