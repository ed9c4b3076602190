"""The whole decision on the demo's pages: an offer whose time runs by the gateway's clock, ways to
pay in the decision's order, and a rule that is tried, saved and then followed."""

import re
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from contract.offer_arms import Arm, OfferArms
from contract.offers import AmountOff
from tests.e2e.conftest import OpenPage
from tests.e2e.shop import Demo, Shop, build, demo
from tests.e2e.test_demo_page import (
    CONTRAST,
    SCREENSHOTS,
    after,
    decision_of,
    opened,
    suggestions,
)

RULE = """rules:
- id: invoice-first
  title: Invoice first
  priority: 10
  actions:
  - kind: order_payments
    first: [invoice]
    hide: [bank_transfer]
"""


def payments(page: Page) -> list[str]:
    """The ways to pay, as shown."""
    return [
        row.get_attribute("data-option") or ""
        for row in page.locator("#payment-options > li").all()
    ]


def seconds_left(page: Page) -> int:
    minutes, seconds = page.get_by_role("timer").first.inner_text().split(":")
    return int(minutes) * 60 + int(seconds)


def minor(text: str) -> int:
    return int(re.sub(r"[^\d]", "", text) or 0)


def filled(page: Page) -> None:
    """Have five products in the basket, all with prices: on others no offer is made."""
    lines = page.locator("#lines > li")
    unpriced = lines.filter(has_text="Not priced")
    while (held := lines.count()) != 5 or unpriced.count():
        decided = decision_of(page)
        if unpriced.count():
            unpriced.last.get_by_role("button", name="Remove").click()
            expect(lines).to_have_count(held - 1)
        else:
            priced = suggestions(page).filter(has_not_text="Not priced")
            priced.first.get_by_role("button", name="Add").click()
            expect(lines).to_have_count(held + 1)
        after(page, decided)


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_an_offer_runs_by_the_gateways_clock_and_ends(open_page: OpenPage, own_demo: Demo) -> None:
    page = opened(open_page, own_demo)
    filled(page)
    lines = page.locator("#lines > li")
    offer = page.locator('#offers > li[data-offer="free-delivery"]')
    expect(offer).to_contain_text("Free delivery from five products")
    expect(page.locator("#delivery")).to_have_text("Free")
    # The demo's time is that of its data, years ago: nothing but its own clock gives this.
    left = seconds_left(page)
    assert 0 < left <= 30 * 60
    page.wait_for_timeout(2_100)
    assert left - 5 <= seconds_left(page) <= left - 2
    # It is the offer that made delivery free; a way of delivery has its price without one.
    decided = decision_of(page)
    while lines.count() > 4:
        lines.last.get_by_role("button", name="Remove").click()
    expect(offer).to_be_hidden()
    after(page, decided)
    expect(page.locator("#delivery")).to_have_text("$3.99")
    total = minor(page.locator("#subtotal").inner_text()) + 399
    total -= minor(page.locator("#off").text_content() or "")
    assert minor(page.locator("#total").inner_text()) == total
    page.get_by_label("Collect at the store").check()
    expect(page.locator("#delivery")).to_have_text("$0.99")
    page.locator("#rejected-summary").click()
    expect(page.locator('#rejected-offers > li[data-offer="free-delivery"]')).to_contain_text(
        "Not for this basket"
    )


def test_paying_redeems_what_is_shown(open_page: OpenPage, own_demo: Demo) -> None:
    page = opened(open_page, own_demo)
    filled(page)
    expect(page.locator('#offers > li[data-offer="free-delivery"]')).to_be_visible()
    due = minor(page.locator("#total").inner_text())
    with page.expect_response("**/demo/api/pay") as answered:
        page.locator("#pay").click()
    assert answered.value.ok, answered.value.text()
    paid = answered.value.json()
    assert paid["total"] == due
    assert 399 in [one["amount"] for one in paid["discounts"]]
    expect(page.get_by_role("dialog")).to_contain_text("Order complete")


def test_when_an_offers_time_is_over_the_page_asks_anew(
    open_page: OpenPage, shop: Shop, tmp_path: Path
) -> None:
    with demo(shop, tmp_path / "state", settings={"TILLWISE_OFFER_MINUTES": "0.1"}) as running:
        page = opened(open_page, running)
        filled(page)
        offer = page.locator("#offers > li").first
        expect(offer).to_contain_text("0:0")
        ends = offer.get_attribute("data-ends") or ""
        decided = decision_of(page)
        after(page, decided)  # nobody has touched anything
        expect(page.locator(f'#offers > li[data-ends="{ends}"]')).to_have_count(0)
        expect(page.locator("#offers > li")).not_to_have_count(0)


def test_a_rule_is_tried_saved_and_followed(open_page: OpenPage, own_demo: Demo) -> None:
    shop = opened(open_page, own_demo)
    sent = payments(shop)
    assert sent[-1] == "invoice"
    expect(shop.locator("#payment-why")).to_contain_text("moved nothing")
    expect(shop.locator("#applied-none")).to_be_visible()
    # A browser notes every answer that refuses, and wrong rules are to be refused.
    page = open_page(f"{own_demo.url}/demo/rules", complains=True)
    text = page.get_by_label("All rules, as YAML")
    expect(text).to_be_enabled()
    text.fill("rules: [")
    page.get_by_role("button", name="Dry run").click()
    expect(page.get_by_role("alert").first).to_contain_text("line 1")
    text.fill(RULE.replace("priority: 10", "condition: cart.totl > 1"))
    page.get_by_role("button", name="Save rules").click()
    expect(page.get_by_role("alert").first).to_contain_text("cart.totl")

    text.fill(RULE + "  - {kind: exclude, categories: [Liquer]}\n")
    for act in ("Dry run", "Save rules"):
        page.get_by_role("button", name=act).first.click()
        expect(page.locator("#rules-careful")).to_contain_text("has no category Liquer")
    text.fill("")
    page.get_by_role("button", name="Save rules").click()
    expect(page.locator("#rules-careful")).to_be_hidden()

    text.fill(RULE)
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#dry-summary")).to_contain_text(re.compile(r"(\d+) of \1 checkouts"))
    predicted = page.locator('#samples > li [data-part="payment_method_order"] .then').first
    expect(predicted).to_contain_text("Invoice (due in 14 days), Credit or debit card")
    screenshot(page, "rules-1280")
    decided = decision_of(shop)
    shop.locator("#retry").evaluate("(button) => button.click()")
    after(shop, decided)
    assert payments(shop) == sent  # a dry run writes nothing

    page.get_by_label("What for").first.fill("for the test")
    page.get_by_role("button", name="Save rules").click()
    expect(page.locator("#rules-done")).to_contain_text("version 3")
    expect(page.locator("#rules-version")).to_have_text("Version 3: for the test")
    decided = decision_of(shop)
    shop.locator("#retry").evaluate("(button) => button.click()")
    after(shop, decided)
    assert payments(shop) == ["invoice", *(one for one in sent[:-1] if one != "bank_transfer")]
    expect(shop.locator("#payment-options > li").first).to_contain_text("First")
    why = shop.locator("#payment-why")
    expect(why).to_contain_text("First by the shop's rule: Invoice first.")
    expect(why).to_contain_text("Hidden by a rule: Bank transfer.")
    expect(shop.locator('#applied-rules > li[data-rule="invoice-first"]')).to_be_visible()
    screenshot(shop, "decision-1280")

    # Who has read an older version does not write over this one.
    address = f"{own_demo.url}/demo/api/written/rules"
    stale = httpx.put(address, json={"text": "", "version": 0}, trust_env=False)
    assert stale.status_code == 409
    text.fill("")
    page.get_by_role("button", name="Save rules").click()
    expect(page.locator("#rules-done")).to_contain_text("version 4")
    assert page.evaluate("window.violations") == []


def test_the_rules_page_can_be_read_at_every_width(open_page: OpenPage, served: Demo) -> None:
    for width, scheme in ((390, "light"), (1_280, "dark")):
        page = open_page(f"{served.url}/demo/rules", width=width, color_scheme=scheme)
        page.get_by_role("button", name="Start from an example").click()
        expect(page.get_by_label("All rules, as YAML")).to_be_focused()
        page.get_by_role("button", name="Dry run").click()
        expect(page.locator("#samples > li")).not_to_have_count(0)
        expect(page.locator("#dry-title")).to_be_focused()
        page.get_by_text("Write the offers").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        screenshot(page, f"rules-{width}-{scheme}")


def test_no_key_reaches_the_rules_page(served: Demo) -> None:
    for path in ("rules", "rules.js", "api/written/rules", "api/written/offers"):
        told = httpx.get(f"{served.url}/demo/{path}", trust_env=False)
        assert told.status_code == 200
        for role in ("admin", "checkout"):
            assert served.key(role) not in told.text
    page = httpx.get(f"{served.url}/demo/rules", trust_env=False)
    assert "unsafe" not in page.headers["content-security-policy"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", page.text)
    # What a foreign page could send without being asked is not taken.
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        asked = httpx.post(
            f"{served.url}/demo/api/dry-run/rules",
            content=b'{"text": ""}',
            headers={"Content-Type": kind},
            trust_env=False,
        )
        assert asked.status_code == 415


def test_an_offer_is_chosen_for_whom_agreed_to_that(open_page: OpenPage, tmp_path: Path) -> None:
    arms = OfferArms(arms=(Arm(name="amount_200", discount=AmountOff(amount=200)),))
    learned = build(tmp_path / "shop", uplift=(arms.of_this_version(), (0.2, 0.9)))
    with demo(learned, tmp_path / "state") as running:
        page = opened(open_page, running)
        offers = page.get_by_role("switch", name="Personal offers")
        personal = page.get_by_role("switch", name="Personalization")
        visitor = httpx.get(f"{running.url}/demo/api/shoppers").json()["shoppers"][0]["visitor_id"]
        expect(offers).to_be_checked()
        big = page.locator('#offers > li[data-offer="big-basket"]')
        filled(page)
        until_worth(page, 2_000)
        expect(big).to_contain_text("2.00 off from 20.00")
        screenshot(page, "demo-offer")
        decided = decision_of(page)
        offers.press("Space")
        after(page, decided)
        expect(big).to_be_hidden()
        assert running.agreed(visitor) == {"analytics", "personalization"}
        decided = decision_of(page)
        offers.press("Space")
        after(page, decided)
        expect(big).to_be_visible()
        assert running.agreed(visitor) == {"analytics", "offers", "personalization"}
        decided = decision_of(page)
        personal.press("Space")
        after(page, decided)
        expect(offers).to_be_disabled()
        expect(offers).not_to_be_checked()
        expect(big).to_be_hidden()
        assert running.agreed(visitor) == set()


def until_worth(page: Page, least: int) -> None:
    """More of the first product until the basket has a value that an offer asks for."""
    while minor(page.locator("#subtotal").inner_text()) < least:
        decided = decision_of(page)
        page.locator("#lines > li").first.get_by_role("button", name="One more").click()
        after(page, decided)
