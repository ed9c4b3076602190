"""The demo checkout in a real Chromium, before a real gateway with a real (small) release."""

import re
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.e2e.conftest import OpenPage
from tests.e2e.shop import ROOT, Demo, Shop, demo

SCREENSHOTS = ROOT / "build" / "screenshots"
PERSONAL = {"bought_before", "goes_with_looked_at", "your_taste"}


def suggestions(page: Page) -> Locator:
    return page.locator("#suggestions > li[data-item]")


def found(page: Page) -> Locator:
    """The items that the search offers."""
    return page.locator("#found").get_by_role("option")


def shown(page: Page) -> list[str]:
    """The ids of the suggestions, once the page has come to rest."""
    expect(page.locator("#suggestions")).to_have_attribute("aria-busy", "false")
    return [row.get_attribute("data-item") or "" for row in suggestions(page).all()]


def reasons(page: Page) -> set[str]:
    rows = suggestions(page).all()
    return {code for row in rows for code in (row.get_attribute("data-reasons") or "").split()}


def decision_of(page: Page) -> str:
    return page.locator("#decision-id").inner_text()


def opened(open_page: OpenPage, served: Demo, **options: object) -> Page:
    page = open_page(f"{served.url}/demo/", **options)
    expect(suggestions(page)).to_have_count(5)
    in_full(page)
    return page


def after(page: Page, before: str) -> None:
    """Wait for another decision than `before`."""
    anew(page, before)
    in_full(page)


def anew(page: Page, before: str) -> None:
    """Wait for another decision than `before`, however good."""
    expect(page.locator("#decision-id")).not_to_have_text(before)
    expect(page.locator("#suggestions")).to_have_attribute("aria-busy", "false")


def in_full(page: Page) -> None:
    """Ask again until the answer is a full one: the page is judged here, and a busy machine may
    well miss a decision's deadline, or have the breaker rest for a while."""
    full = page.locator('#ladder > li[data-rung="full"][aria-current]')
    for _ in range(40):
        expect(page.locator("#suggestions")).to_have_attribute("aria-busy", "false")
        if full.count() and page.locator("#degraded-stages").inner_text() == "none":
            return
        decided = decision_of(page)
        page.wait_for_timeout(250)
        page.evaluate("document.getElementById('retry').click()")
        anew(page, decided)
    raise AssertionError("the gateway never answered in full")


def test_five_suggestions_with_title_brand_price_and_reasons(
    open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    cart = [row.get_attribute("data-item") for row in page.locator("#lines > li").all()]
    assert len(set(shown(page))) == 5
    assert not set(shown(page)) & set(cart)
    for row in suggestions(page).all():
        assert row.locator(".name").inner_text()
        assert re.search("National|Private", row.locator(".brand").inner_text())
        assert row.locator(".reasons").inner_text().endswith(".")
        assert re.fullmatch(r"\$\d+\.\d\d|Not priced", row.locator(".price").inner_text())
        expect(row.get_by_role("button", name="Add")).to_be_enabled()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)


def test_adding_a_suggestion_moves_it_to_the_cart_and_changes_the_rest(
    open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    before, first, decided = shown(page), shown(page)[0], decision_of(page)
    lines = page.locator("#lines > li").count()
    suggestions(page).first.get_by_role("button", name="Add").click()
    expect(page.locator("#lines > li")).to_have_count(lines + 1)
    expect(page.locator(f'#lines > li[data-item="{first}"]')).to_be_visible()
    after(page, decided)
    expect(suggestions(page)).to_have_count(5)
    assert first not in shown(page)
    assert shown(page) != before


def test_quantity_and_removal_change_total_and_suggestions(
    open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    total, decided = page.locator("#total").inner_text(), decision_of(page)
    line = page.locator("#lines > li").first
    line.get_by_role("button", name="One more").click()
    expect(line.locator("output")).to_have_text("2")
    assert page.locator("#total").inner_text() != total
    after(page, decided)
    line.get_by_role("button", name="One less").click()
    expect(page.locator("#total")).to_have_text(total)
    lines = page.locator("#lines > li").count()
    for left in range(lines - 1, -1, -1):
        page.locator("#lines > li").first.get_by_role("button", name="Remove").click()
        expect(page.locator("#lines > li")).to_have_count(left)
    expect(page.get_by_text("The basket is empty.")).to_be_visible()
    expect(page.locator("#pay")).to_be_disabled()
    expect(suggestions(page)).to_have_count(5)


def test_the_catalogue_is_searched_by_keyboard(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    known = {row.get_attribute("data-item") for row in page.locator("#lines > li").all()}
    page.get_by_role("combobox", name="Add an item").fill("coffee")
    expect(found(page)).not_to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Escape")
    expect(page.locator("#found-panel")).to_be_hidden()
    page.get_by_role("combobox", name="Add an item").fill("organic")
    expect(found(page)).to_have_count(8)
    expect(found(page).first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    title = found(page).nth(1).locator(".name").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#lines .name", has_text=title).first).to_be_visible()
    assert known <= {row.get_attribute("data-item") for row in page.locator("#lines > li").all()}
    page.get_by_role("combobox", name="Add an item").fill("no such thing")
    expect(page.get_by_text("Nothing in the catalogue has these words.")).to_be_visible()


@pytest.mark.parametrize("switch", ["Personalization", "Global Privacy Control"])
def test_without_consent_nothing_is_personal(
    switch: str, open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    telling: set[Request] = set()
    page.on("request", lambda one: telling.add(one) if "/v1/events" in one.url else None)
    page.on("requestfinished", lambda one: telling.discard(one))
    page.on("requestfailed", lambda one: telling.discard(one))
    personal, decided = shown(page), decision_of(page)
    assert "bought_before" in reasons(page)
    page.get_by_role("switch", name=switch).press("Space")
    after(page, decided)
    assert not reasons(page) & PERSONAL
    assert shown(page) != personal
    expect(page.locator("#privacy")).to_contain_text("no history is touched")
    decided = decision_of(page)
    until = time.monotonic() + 15
    while telling:  # a no that is on its way would be the last word
        assert time.monotonic() < until
        page.wait_for_timeout(20)
    page.get_by_role("switch", name=switch).press("Space")
    after(page, decided)
    assert shown(page) == personal


def test_the_browsers_own_privacy_control_counts(open_page: OpenPage, served: Demo) -> None:
    page = open_page("about:blank")
    page.add_init_script(
        "Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })"
    )
    page.goto(f"{served.url}/demo/")
    expect(suggestions(page)).to_have_count(5)
    expect(page.get_by_role("switch", name="Global Privacy Control")).to_be_checked()
    expect(page.get_by_role("switch", name="Global Privacy Control")).to_be_disabled()
    assert not reasons(page) & PERSONAL


def test_another_shopper_has_another_cart(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    decided = decision_of(page)
    names = page.locator("#lines .name").all_inner_texts()
    page.get_by_label("Shopping as").select_option(index=1)
    after(page, decided)
    assert page.locator("#lines .name").all_inner_texts() != names
    decided = decision_of(page)
    page.get_by_label("Shopping as").select_option(label="Somebody new, who agreed to nothing")
    after(page, decided)
    expect(page.get_by_role("switch", name="Personalization")).not_to_be_checked()
    assert not reasons(page) & PERSONAL


def test_rung_timings_and_held_out_basket_are_shown(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    expect(page.locator("#ladder > li")).to_have_count(5)
    expect(page.locator('#ladder > li[aria-current="step"]')).to_have_count(1)
    expect(page.locator("#stages > li[data-stage]").nth(3)).to_be_visible()
    assert re.fullmatch(r"[\d.]+ ms", page.locator("#elapsed").inner_text())
    expect(page.locator("#release")).to_have_text("tiny-1")
    bought = httpx.get(f"{served.url}/demo/api/shoppers").json()["shoppers"][0]["bought_too"]
    hits = len({one["item_id"] for one in bought} & set(shown(page)))
    expect(page.locator("#held-out-summary")).to_contain_text(f"{hits} of {len(bought)} items")
    expect(page.locator("#suggestions .real")).to_have_count(hits)
    page.locator("#held-out-summary").click()
    expect(page.locator("#held-out-items > li")).to_have_count(len(bought))


def test_a_degraded_answer_says_so(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    rung = "no_ranker"

    def degrade(route: Route) -> None:
        answer = route.fetch()
        said = answer.json()
        spent = {**said["timings_ms"], "ranker": 30.0}
        changed = {**said, "rung": rung, "degraded": ["ranker"], "timings_ms": spent}
        route.fulfill(response=answer, json=changed)

    page.route("**/demo/api/decide", degrade)
    page.locator("#lines > li").first.get_by_role("button", name="One more").click()
    expect(page.locator("#degraded")).to_contain_text("no ranker")
    expect(page.locator('#ladder > li[aria-current="step"]')).to_have_text("No ranker")
    expect(page.locator("#stages > li.late")).to_have_attribute("data-stage", "ranker")
    rung = "full"
    page.locator("#lines > li").first.get_by_role("button", name="One more").click()
    late = "These stages did not do their part in time: ranker."
    expect(page.locator("#degraded")).to_have_text(late)


def test_only_the_latest_answer_counts(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    asked: list[Route] = []
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            held.append(route)
        else:
            route.continue_()

    page.route("**/demo/api/decide", hold_the_first)
    decided = decision_of(page)
    more = page.locator("#lines > li").first.get_by_role("button", name="One more")
    with page.expect_request("**/demo/api/decide"):
        more.click()
    more.click()
    anew(page, decided)
    latest = decision_of(page)
    held[0].abort()
    page.wait_for_timeout(300)
    assert decision_of(page) == latest
    expect(page.locator("#trouble")).to_be_hidden()


def test_a_burst_of_changes_is_asked_about_once(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if "decide" in one.url else None)
    decided = decision_of(page)
    page.evaluate(
        "for (let n = 0; n < 8; n++) document.querySelector('[data-focus^=\"One more\"]').click()"
    )
    anew(page, decided)
    expect(page.locator("#lines output").first).to_have_text("9")
    assert len(asked) == 1


def test_the_checkout_works_while_the_gateway_is_down(
    open_page: OpenPage, own_demo: Demo, shop: Shop, tmp_path: Path
) -> None:
    page = open_page(f"{own_demo.url}/demo/", complains=True)
    expect(suggestions(page)).to_have_count(5)
    own_demo.kill()
    line = page.locator("#lines > li").first
    line.get_by_role("button", name="One more").click()
    expect(page.get_by_role("alert")).to_contain_text("can not be reached")
    expect(page.get_by_role("alert")).to_contain_text("basket and the payment work as usual")
    expect(suggestions(page)).to_have_count(0)
    lines = page.locator("#lines > li").count()
    line.get_by_role("button", name="Remove").click()
    expect(page.locator("#lines > li")).to_have_count(lines - 1)
    page.get_by_role("combobox", name="Add an item").fill("milk")
    expect(page.get_by_text("The catalogue can not be searched right now.")).to_be_visible()
    page.locator("#pay").click()
    expect(page.get_by_role("dialog")).to_contain_text("Order complete")
    page.get_by_role("button", name="Start again").click()
    with demo(shop, tmp_path / "again", port=int(own_demo.url.rsplit(":", 1)[1])):
        page.get_by_role("button", name="Try again").click()
        expect(suggestions(page)).to_have_count(5)
        expect(page.locator("#trouble")).to_be_hidden()


def test_a_title_is_text_whatever_it_holds(open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served)
    hostile = "<img src=x onerror=alert(1)>"
    item = {
        "item_id": "h",
        "title": hostile,
        "brand": hostile,
        "category_path": [hostile],
        "price": 100,
        "currency": "USD",
        "available": True,
    }
    page.route("**/demo/api/items?q=*", lambda route: route.fulfill(json={"items": [item]}))
    page.get_by_role("combobox", name="Add an item").fill("h")
    found(page).first.click()
    expect(page.locator("#lines .name").last).to_have_text(hostile)
    assert page.locator("#lines img").count() == 0


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (320, "light"),
        (360, "light"),
        (360, "dark"),
        (768, "dark"),
        (1_280, "light"),
        (1_280, "dark"),
    ],
)
def test_every_width_fits(width: int, scheme: str, open_page: OpenPage, served: Demo) -> None:
    page = opened(open_page, served, width=width, color_scheme=scheme)
    page.locator("#held-out-summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width in (360, 1_280):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"demo-{width}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str, open_page: OpenPage, served: Demo) -> None:
    """Contrast of at least 4.5 (WCAG AA) for every text on the page."""
    page = opened(open_page, served, color_scheme=scheme)
    page.locator("#held-out-summary").click()
    page.wait_for_timeout(400)  # until what arrives has arrived
    assert page.evaluate(CONTRAST) == []


def test_the_keyboard_reaches_everything_and_keeps_its_place(
    open_page: OpenPage, served: Demo
) -> None:
    page = opened(open_page, served)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the basket")).to_be_focused()
    suggestions(page).nth(1).get_by_role("button", name="Add").focus()
    decided = decision_of(page)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('#suggestions') !== null")
    after(page, decided)
    assert page.evaluate("document.activeElement !== document.body")
    expect(page.locator("#announcer")).to_contain_text("for this basket")
    page.locator("#lines > li").last.get_by_role("button", name="Remove").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('#lines') !== null")


def test_the_policy_allows_nothing_inline(served: Demo) -> None:
    page = httpx.get(f"{served.url}/demo/").text
    assert "unsafe" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", page)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


# The texts whose contrast with what lies behind them is below 4.5, as WCAG computes it.
CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((numbers(color)[3] ?? 1) > 0.99) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.disabled) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(style.color), light(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.textContent} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
