"""The snippet in a real Chromium, on a shop's pages and on the demo's, before a real gateway."""

import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from playwright.sync_api import Route, expect

from contract.events import EVENT_NAMES, NEEDS_ITEMS, SERVER_ONLY, Event
from serving.api.auth import PAGE_TOKEN_AUDIENCE, page_token_secret
from tests.e2e.conftest import OpenPage
from tests.e2e.shop import Demo, Shop, demo
from tests.e2e.storefront import ALL, NO, ShopServer, Storefront, bodies
from tests.serving.release_factory import BUILT_AT

GPC = "Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })"
CART = [{"item_id": "item-1", "price": 1.01, "quantity": 2}]
LONGER_THAN_A_BATCH_WAITS_MS = 1_200


@pytest.fixture(scope="module")
def server() -> Iterator[ShopServer]:
    """The shop's own server."""
    with ShopServer() as running:
        yield running


def allowing(server: ShopServer) -> dict[str, str]:
    """The gateway's setting that lets the shop's pages call it."""
    return {"TILLWISE_CORS_ORIGINS": json.dumps([server.origin])}


@pytest.fixture(scope="module")
def gateway(
    shop: Shop, server: ShopServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """A gateway that the shop's pages may call."""
    state = tmp_path_factory.mktemp("gateway") / "state"
    with demo(shop, state, settings=allowing(server)) as running:
        yield running


OpenShop = Callable[..., Storefront]


@pytest.fixture
def open_shop(open_page: OpenPage, gateway: Demo, server: ShopServer) -> Iterator[OpenShop]:
    """Opens pages of the shop; none of them may see an uncaught error."""
    opened: list[Storefront] = []

    def open_one(
        path: str = "/shop",
        *,
        before: str = "",
        script: str = "",
        platform: str = "",
        **more: str,
    ) -> Storefront:
        page = open_page("about:blank", complains=True)
        if script:
            page.add_init_script(script)
        front = Storefront(page, gateway, server, before, platform)
        front.open(path, **more)
        opened.append(front)
        return front

    yield open_one
    for front in opened:
        assert front.trouble == []
        assert front.say("window.violations") == []


def browse(front: Storefront) -> None:
    """A little of everything that is captured."""
    front.page.locator("#bread").hover()
    front.page.wait_for_timeout(450)
    front.page.locator("#more").click()
    front.page.mouse.wheel(0, 3_000)
    front.push("add_to_cart", items=CART, currency="USD")
    said = "{ items: [{ item_id: 'item-1' }], feedback: 'not_for_me' }"
    front.say(f"window.tillwise.push(['event', 'feedback', {said}])")
    front.page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)


def test_nothing_at_all_happens_before_consent(open_shop: OpenShop) -> None:
    front = open_shop("/shop?q=milk", before="(window.dataLayer ||= []).push({event: 'x'});")
    browse(front)
    assert front.say("window.tillwise.ids()") is None
    front.consent({"personalization": False, "analytics": False, "offers": True})
    front.push("view_cart", items=CART)
    front.open("/shop?q=bread")
    front.page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)
    assert front.asked == []
    assert front.storage() == {}
    # It was not for want of anything to say.
    front.consent()
    front.wait(front.session, lambda events: len(events) > 0)


def test_global_privacy_control_is_a_no(open_shop: OpenShop) -> None:
    front = open_shop("/shop?q=milk", script=GPC)
    front.consent()
    browse(front)
    front.open("/shop")
    front.consent()
    assert front.say("window.tillwise.ids()") is None
    assert front.asked == []
    assert front.storage() == {}


def test_privacy_control_that_is_switched_on_later_erases(open_shop: OpenShop) -> None:
    front = open_shop()
    front.consent()
    session = front.session
    front.wait(session, lambda events: len(events) > 0)
    front.push("view_cart", items=CART)
    front.say(GPC)
    front.say("window.dispatchEvent(new Event('pagehide'))")
    front.page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)
    assert front.storage() == {}
    assert "view_cart" not in {one["event_name"] for one in bodies(front.asked)}


def test_every_kind_of_behaviour_arrives_with_its_body(open_shop: OpenShop) -> None:
    front = open_shop("/shop?q=oat+milk")
    front.consent()
    session = front.session
    pushed = (
        *("view_item_list", "view_item", "select_item", "remove_from_cart", "view_cart"),
        *("begin_checkout", "add_shipping_info", "add_payment_info"),
        *("view_promotion", "select_promotion", "purchase", "refund"),
    )
    for name in pushed:
        front.push(
            name,
            items=CART,
            currency="USD",
            value=2.02,
            coupon="SPRING",
            shipping_tier="Ground",
            payment_type="card",
            transaction_id="t-1",
        )
    front.page.locator("#bread").hover()
    front.page.wait_for_timeout(450)
    front.page.locator("#text").hover()
    front.page.locator("#text").click()  # nothing there to click on
    front.page.locator("#more").click()
    front.page.locator("#buy").click()
    front.page.mouse.wheel(0, 10_000)
    front.page.wait_for_timeout(400)
    said = "{ items: [{ item_id: 'item-1' }], feedback: 'hidden' }"
    front.say(f"window.tillwise.event('feedback', {said})")
    front.open("/shop")  # leaving the first page says how long it was looked at
    wanted = set(EVENT_NAMES) - SERVER_ONLY
    events = front.wait(session, lambda found: {one.event_name for one in found} >= wanted)
    assert {one.event_name for one in events} == wanted
    first: dict[str, Event] = {one.event_name: one for one in reversed(events)}
    for name in wanted & set(pushed):
        (line,) = first[name].items
        assert (line.item_id, line.quantity, line.price) == ("item-1", 2, 101), name
        assert (first[name].value, first[name].currency) == (202, "USD")
        assert (first[name].coupon, first[name].shipping_tier) == ("SPRING", "Ground")
    assert first["search"].search_term == "oat milk"
    assert first["feedback"].feedback == "hidden"
    assert first["hover"].items[0].item_id == "item-2"
    assert 300 < (first["hover"].engagement_ms or 0) < 5_000
    assert first["click"].items[0].item_id == "item-1"
    added = first["add_to_cart"].items[0]
    assert (added.item_id, added.price, added.index) == ("item-1", 101, 0)
    assert (first["page_dwell"].engagement_ms or 0) > 500
    assert first["page_dwell"].items[0].item_id == "item-1"  # what the page was about
    counts = Counter(one.event_name for one in events)
    depths = [one.percent_scrolled for one in events if one.event_name == "scroll"]
    assert sorted(depths, key=str) == [100, 25, 50, 75]
    assert counts["click"] == 1
    assert all(one.items for one in events if one.event_name in NEEDS_ITEMS)
    assert {one.purposes for one in events} == {("analytics", "offers", "personalization")}
    context = first["page_view"].context
    assert context is not None
    assert context.device == "desktop"
    assert context.timezone


BEFORE = """
window.dataLayer = window.dataLayer || [];
function gtag() { dataLayer.push(arguments); }
gtag("js", new Date());
gtag("config", "G-1");
dataLayer.push({ ecommerce: null });
dataLayer.push({
  event: "view_item",
  ecommerce: { currency: "JPY", items: [{ item_id: "item-3", price: 120 }] },
});
gtag("event", "add_to_cart", {
  currency: "KWD",
  items: [{ item_id: "item-4", price: "1.5", quantity: 3 }],
});
(window.tillwise ||= []).push(["consent", { analytics: true, personalization: true }]);
"""
TAG_MANAGER = """() => {
  // As Google Tag Manager does once it is loaded: its own push around the one that is there.
  const inner = dataLayer.push;
  dataLayer.push = function () { return inner.apply(dataLayer, arguments); };
  gtag("event", "view_cart", { items: [{ item_id: "item-5", price: 2.5 }] });
  dataLayer.push(
    { event: "begin_checkout", ecommerce: { currency: "EUR", items: [{ item_id: 6 }] } },
    { event: "gtm.dom" },
  );
}"""


def test_pages_that_speak_ga4_are_understood(open_shop: OpenShop) -> None:
    front = open_shop(before=BEFORE)
    front.say(TAG_MANAGER)
    events = front.wait(front.session, lambda found: len(found) >= 5)
    said = [
        (one.event_name, one.currency, [(i.item_id, i.quantity, i.price) for i in one.items])
        for one in events
    ]
    assert said == [
        ("page_view", "USD", []),
        ("view_item", "JPY", [("item-3", 1, 120)]),
        ("add_to_cart", "KWD", [("item-4", 3, 1_500)]),
        ("view_cart", "USD", [("item-5", 1, 250)]),
        ("begin_checkout", "EUR", [("6", 1, None)]),
    ]
    assert front.say("dataLayer.length") == 8  # the page's own measurement is as it was


def test_what_was_done_before_agreeing_is_not_sent_what_is_shown_is(open_shop: OpenShop) -> None:
    front = open_shop(before="window.dataLayer = [];")
    front.push("view_item", items=CART)
    front.page.locator("#text").click()
    front.push("add_to_cart", items=CART)
    front.consent()
    front.push("view_cart", items=CART)
    events = front.wait(front.session, lambda found: len(found) >= 3)
    assert [one.event_name for one in events] == ["page_view", "view_item", "view_cart"]


def test_card_numbers_stay_in_the_page(open_shop: OpenShop) -> None:
    front = open_shop("/shop?q=4111+1111+1111+1111")
    front.consent()
    for term in ("milk 5555-5555-5555-4444", "378282246310005", "bread"):
        front.say("term => dataLayer.push({event: 'search', search_term: term})", term)
    events = front.wait(front.session, lambda found: len(found) >= 3)
    assert [one.search_term for one in events] == [None, "milk", "bread"]
    sent = json.dumps([*bodies(front.asked)]) + json.dumps(front.storage())
    # Eight digits of each: four stand in an id by chance.
    digits = re.sub(r"(?<=\d)[ +-](?=\d)", "", sent)
    assert not any(card in digits for card in ("41111111", "55555555", "37828224"))


def test_an_outage_loses_nothing_within_bounds_and_counts_nothing_twice(
    open_shop: OpenShop,
) -> None:
    front = open_shop()
    front.consent()
    session = front.session
    front.wait(session, lambda found: len(found) == 1)
    front.page.route("**/v1/events**", lambda route: route.abort())
    for number in range(250):
        front.push("view_item", items=[{"item_id": f"item-{number}"}])
    front.page.wait_for_timeout(500)
    front.open("/shop")  # the queue outlives the page
    assert len(json.loads(front.storage()["tillwise.queue"])) == 200
    front.page.unroute("**/v1/events**")
    lost: list[str] = []

    def lose_the_answer(route: Route) -> None:
        """The gateway has the events, the page does not know."""
        route.fetch()
        lost.append(route.request.url)
        route.abort()

    front.page.route("**/v1/events", lose_the_answer, times=2)
    front.consent()
    events = front.wait(
        session, lambda found: "item-249" in {i.item_id for e in found for i in e.items}
    )
    front.page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)
    until_empty(front)
    events = front.demo.events(session)
    viewed = [one.items[0].item_id for one in events if one.event_name == "view_item"]
    assert len(viewed) == len(set(viewed))
    assert {f"item-{number}" for number in range(60, 250)} <= set(viewed)
    assert lost
    sent = Counter(one["event_id"] for one in bodies(front.asked))
    assert max(sent.values()) > 1
    assert len({str(one.event_id) for one in events}) == len(events)


def until_empty(front: Storefront) -> None:
    """Wait until nothing is kept for sending again."""
    for _ in range(200):
        if "tillwise.queue" not in front.storage():
            return
        front.page.wait_for_timeout(100)
    raise AssertionError("the queue does not empty")


def test_withdrawing_empties_queue_and_ids_in_every_tab(open_shop: OpenShop) -> None:
    front = open_shop()
    front.consent()
    visitor, session = front.say("window.tillwise.ids().visitor_id"), front.session
    front.wait(session, lambda found: len(found) == 1)
    other = Storefront(front.page.context.new_page(), front.demo, front.server)
    other.open()
    other.consent()
    assert other.say("window.tillwise.ids().visitor_id") == visitor
    front.page.route("**/v1/events**", lambda route: route.abort())
    front.push("view_cart", items=CART)
    front.say("window.dispatchEvent(new Event('pagehide'))")
    assert "view_cart" in front.storage()["tillwise.queue"]
    front.consent({})
    assert front.storage() == {}
    front.page.unroute("**/v1/events**")
    front.push("view_cart", items=CART)
    browse(front)
    other.page.wait_for_timeout(500)
    assert other.say("window.tillwise.ids()") is None
    assert front.storage() == {}
    assert "view_cart" not in {one.event_name for one in front.demo.events(session)}
    front.consent()
    assert front.say("window.tillwise.ids().visitor_id") != visitor
    other.page.close()


def test_a_no_is_on_record_and_what_was_not_said_is_none(open_shop: OpenShop) -> None:
    front = open_shop()
    front.consent()
    session = front.session
    visitor = front.say("window.tillwise.ids().visitor_id")
    front.wait(session, lambda found: len(found) == 1)
    front.consent({})
    front.consent(NO)  # the ids are gone by now
    assert front.demo.agreed(visitor) == set(ALL)
    front.open()
    front.consent()
    session, visitor = front.session, front.say("window.tillwise.ids().visitor_id")
    front.wait(session, lambda found: len(found) >= 1)
    front.open()  # and says no on the next page, before any yes there
    front.consent(NO)
    until_taken_back(front, visitor)


def until_taken_back(front: Storefront, visitor: str) -> None:
    """Wait until the gateway's record is a no, and nothing is left of it here."""
    until_empty(front)
    assert front.storage() == {}
    assert front.demo.agreed(visitor) == set()


def said_no(front: Storefront) -> str:
    """The id of the no that is kept, which is all that is."""
    assert [*front.storage()] == ["tillwise.queue"]
    (kept,) = json.loads(front.storage()["tillwise.queue"])
    assert kept["consent"] == NO | {"offers": False}
    assert not kept.keys() & {"context", "items"}
    said: str = kept["event_id"]
    return said


def test_a_no_that_nobody_hears_is_said_again_and_nothing_else(open_shop: OpenShop) -> None:
    front = open_shop()
    front.consent()
    visitor = front.say("window.tillwise.ids().visitor_id")
    front.wait(front.session, lambda found: len(found) == 1)
    front.page.route("**/v1/events**", lambda route: route.abort())
    front.push("view_cart", items=CART)
    del front.asked[:]
    front.consent(NO)
    said = said_no(front)
    front.consent(NO)
    front.consent({})
    browse(front)
    assert front.say("window.tillwise.ids()") is None
    assert said_no(front) == said
    assert front.demo.agreed(visitor) == set(ALL)
    front.page.unroute("**/v1/events**")
    until_taken_back(front, visitor)
    times = len(front.asked)
    front.page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)
    assert len(front.asked) == times
    assert {one["event_id"] for one in bodies(front.asked)} == {said}


def test_a_no_outlives_its_page_and_an_outage(
    open_page: OpenPage, shop: Shop, server: ShopServer, tmp_path: Path
) -> None:
    with demo(shop, tmp_path / "state", settings=allowing(server)) as own:
        front = Storefront(open_page("about:blank", complains=True), own, server)
        front.open()
        front.consent()
        visitor = front.say("window.tillwise.ids().visitor_id")
        front.wait(front.session, lambda found: len(found) == 1)
        until_empty(front)
        port = int(own.url.rpartition(":")[2])
        own.kill()
        del front.asked[:]
        front.consent(NO)
        said = said_no(front)
        front.open()  # the browser holds the snippet
        browse(front)
        assert said_no(front) == said
        front.page.goto("about:blank")
    with demo(shop, own.state, port, settings=allowing(server)):
        assert own.agreed(visitor) == set(ALL)
        front.open("/shop?q=milk", data_key=own.key("collect"))  # nobody says anything there
        until_taken_back(front, visitor)
    assert {one["event_id"] for one in bodies(front.asked)} == {said}
    assert front.trouble == []


def test_a_no_is_told_under_privacy_control_too(open_shop: OpenShop) -> None:
    front = open_shop()
    front.consent()
    visitor = front.say("window.tillwise.ids().visitor_id")
    front.wait(front.session, lambda found: len(found) == 1)
    front.say(GPC)
    front.consent(NO)
    until_taken_back(front, visitor)


def test_a_yes_takes_the_place_of_a_no_that_nobody_heard(open_shop: OpenShop) -> None:
    front = open_shop()
    visitor = "visitor-who-comes-back"
    front.say("id => window.tillwise.visitor({visitor_id: id})", visitor)
    front.consent()
    front.wait(front.session, lambda found: len(found) == 1)
    front.page.route("**/v1/events**", lambda route: route.abort())
    front.consent(NO)
    said = said_no(front)
    front.page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)
    front.consent()
    assert said not in front.storage().get("tillwise.queue", "")
    front.page.unroute("**/v1/events**")
    front.push("view_cart", items=CART)
    front.wait(front.session, lambda found: len(found) == 2)
    assert front.demo.agreed(visitor) == set(ALL)


CONSENT_MODE = """
window.dataLayer = window.dataLayer || [];
function gtag() { dataLayer.push(arguments); }
gtag("consent", "default", { analytics_storage: "granted", personalization_storage: "granted" });
"""
BANNER = """
const told = [];
let data = { gdprApplies: true, eventStatus: "cmpuishown", purpose: { consents: {} } };
window.__tcfapi = (command, version, callback) => {
  told.push(callback);
  callback(data, true);
};
window.answer = (...purposes) => {
  const consents = Object.fromEntries(purposes.map((one) => [one, true]));
  data = { gdprApplies: true, eventStatus: "useractioncomplete", purpose: { consents } };
  told.forEach((one) => one(data, true));
};
"""
YES_TO_GOOGLE = """gtag("consent", "update", { analytics_storage: "granted",
  personalization_storage: "granted", ad_personalization: "denied" })"""
NO_TO_GOOGLE = """gtag("consent", "update",
  { analytics_storage: "denied", personalization_storage: "denied" })"""
OWN = """
window.tillwiseConsent = [{
  follow(hear) {
    window.answer = (yes) => hear({ analytics: yes, personalization: yes, offers: false });
  },
}];
"""


@pytest.mark.parametrize(
    ("platform", "before", "yes", "no"),
    [
        ("google", CONSENT_MODE, YES_TO_GOOGLE, NO_TO_GOOGLE),
        ("tcf", BANNER, "answer(1, 5, 6, 8)", "answer()"),
        ("own", OWN, "answer(true)", "answer(false)"),
    ],
)
def test_a_consent_platform_speaks_for_the_shopper(
    open_shop: OpenShop, platform: str, before: str, yes: str, no: str
) -> None:
    front = open_shop("/shop?q=milk", before=before, platform=platform)
    front.until("!!window.tillwiseConsent?.push && !Array.isArray(window.tillwiseConsent)")
    browse(front)
    assert front.asked == []
    assert front.storage() == {}
    front.say(f"void {yes}")
    front.until("!!window.tillwise.ids()")
    visitor = front.say("window.tillwise.ids().visitor_id")
    front.wait(front.session, lambda found: len(found) >= 1)
    assert front.demo.agreed(visitor) == {"analytics", "personalization"}
    front.say(f"void {no}")
    until_taken_back(front, visitor)


def test_a_page_that_goes_at_once_is_not_forgotten(open_shop: OpenShop) -> None:
    front = open_shop()
    front.consent()
    session = front.session
    front.push("add_to_cart", items=CART)
    front.page.goto("about:blank")  # nothing of the shop runs any more
    events = front.wait(session, lambda found: len(found) >= 2)
    assert "add_to_cart" in {one.event_name for one in events}
    front.open()


def test_a_changed_script_is_not_run(
    open_page: OpenPage, gateway: Demo, server: ShopServer
) -> None:
    page = open_page("about:blank", complains=True)
    front = Storefront(page, gateway, server)
    page.route(
        "**/sdk/*.js",
        lambda route: route.fulfill(
            content_type="text/javascript",
            headers={"Access-Control-Allow-Origin": "*"},
            body="window.tillwise = 'something else';",
        ),
    )
    front.show()
    assert front.say("typeof window.tillwise") == "undefined"
    page.unroute("**/sdk/*.js")
    front.open()
    assert front.trouble == []


def test_decide_through_the_shops_own_server(open_shop: OpenShop, gateway: Demo) -> None:
    front = open_shop(data_decide=f"{gateway.url}/demo/api/decide")
    # The demo's server answers its own pages only: here the browser is told otherwise.
    front.page.route("**/demo/api/decide", lambda route: answer_anyone(route, front.server))
    asked = "window.tillwise.decide({cart: {cart_id: 'c', currency: 'USD', items: []}})"
    generic = front.say(asked)
    assert len(generic["recommendations"]) == 5
    assert front.storage() == {}
    bodies_sent = [json.loads(one.post_data or "{}") for one in front.asked if one.method == "POST"]
    assert bodies_sent[0]["consent"] == {
        "personalization": False,
        "analytics": False,
        "offers": False,
    }
    front.consent()
    decision = front.say(asked)
    item = decision["recommendations"][0]["item_id"]
    front.say("id => window.tillwise.event('select_item', {items: [{item_id: id}]})", item)
    events = front.wait(front.session, lambda found: any(e.attribution_token for e in found))
    (selected,) = [one for one in events if one.event_name == "select_item"]
    assert selected.attribution_token == decision["attribution_token"]
    (decided,) = [one for one in events if one.event_name == "decision"]
    assert decided.subject_id == selected.subject_id
    front.page.unroute("**/demo/api/decide")
    front.page.route("**/demo/api/decide", lambda route: route.abort())
    assert front.say(asked) is None
    front.page.unroute("**/demo/api/decide")
    front.page.route("**/demo/api/decide", lambda route: None)  # never answers
    slow = "window.tillwise.decide({cart: {}}, {timeout_ms: 200})"
    assert front.say(slow) is None


def answer_anyone(route: Route, server: ShopServer) -> None:
    allowed = {
        "Access-Control-Allow-Origin": server.origin,
        "Access-Control-Allow-Headers": "content-type",
    }
    if route.request.method == "OPTIONS":
        route.fulfill(headers=allowed)
        return
    answer = route.fetch()
    route.fulfill(status=answer.status, body=answer.body(), headers=allowed)


def test_decide_with_a_page_token(open_shop: OpenShop, gateway: Demo) -> None:
    front = open_shop()
    front.consent()
    cart = {"cart_id": "c", "currency": "USD", "items": []}
    refused = front.say("cart => window.tillwise.decide({cart}, {token: 'a.b.c'})", cart)
    assert refused is None
    token = page_token(gateway)
    asked = "([cart, token]) => window.tillwise.decide({cart}, {token})"
    assert len(front.say(asked, [cart, token])["recommendations"]) == 5


def page_token(gateway: Demo) -> str:
    """What the shop's server would sign."""
    # The demo's clock starts where its release was trained until.
    expires = BUILT_AT + timedelta(minutes=14)
    claims = {"aud": PAGE_TOKEN_AUDIENCE, "exp": expires}
    secret = page_token_secret(gateway.key("checkout"))
    return jwt.encode(claims, secret, "HS256", headers={"kid": gateway.key_id("checkout")})


def test_a_gateway_that_is_down_costs_the_page_nothing(
    open_page: OpenPage, shop: Shop, server: ShopServer, tmp_path: Path
) -> None:
    with demo(shop, tmp_path / "state", settings=allowing(server)) as own:
        page = open_page("about:blank", complains=True)
        front = Storefront(page, own, server)
        front.open()
        front.consent()
        session = front.session
        front.wait(session, lambda found: len(found) == 1)
        own.kill()
        browse(front)
        assert "add_to_cart" in front.storage()["tillwise.queue"]
        front.open()  # the browser holds the snippet for ever: it needs no gateway
        # Where it does not, the page is without.
        front.show(src=f"{own.url}/sdk/tillwise.js")
        assert front.say("typeof window.tillwise") == "undefined"
        expect(page.locator("#text")).to_be_visible()
        port = int(own.url.rsplit(":", 1)[1])
    # It takes the connection and never says a word: nothing waits for it.
    with socket.create_server(("127.0.0.1", port)):
        front.show(wait_until="domcontentloaded", src=f"{own.url}/sdk/tillwise.js")
        front.until("performance.getEntriesByName('first-contentful-paint').length === 1")
        assert front.say("document.readyState") == "interactive"  # the script is still awaited
        expect(page.locator("#text")).to_be_visible()
    page.goto("about:blank")
    assert front.trouble == []
    with demo(shop, own.state, port, settings=allowing(server)):
        front.open(data_key=own.key("collect"))
        front.consent()
        events = front.wait(
            session, lambda found: "add_to_cart" in {one.event_name for one in found}
        )
    names = Counter(one.event_name for one in events)
    assert (names["add_to_cart"], names["hover"], names["feedback"]) == (1, 1, 1)


def test_the_demo_shop_tells_the_gateway_once_its_shopper_agrees(
    open_page: OpenPage, gateway: Demo, server: ShopServer
) -> None:
    page = open_page("about:blank")
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.url) if "/v1/events" in one.url else None)
    page.route("**/v1/events**", lambda route: route.continue_())
    page.goto(f"{gateway.url}/demo/")
    expect(page.locator("#suggestions > li[data-item]")).to_have_count(5)
    page.get_by_label("Shopping as").select_option(label="Somebody new, who agreed to nothing")
    expect(page.get_by_role("switch", name="Personalization")).not_to_be_checked()
    page.wait_for_timeout(500)
    del sent[:]
    page.locator("#suggestions > li[data-item] button").first.click()
    page.wait_for_timeout(LONGER_THAN_A_BATCH_WAITS_MS)
    assert sent == []
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("switch", name="Personalization").press("Space")
    page.get_by_role("combobox", name="Add an item").fill("coffee")
    page.locator("#found").get_by_role("option").first.click()
    session = page.evaluate("window.tillwise.ids().session_id")
    front = Storefront(page, gateway, server)
    wanted = {"search", "select_item", "add_to_cart", "view_item_list"}
    events = front.wait(session, lambda found: {one.event_name for one in found} >= wanted)
    (searched,) = [one for one in events if one.event_name == "search"]
    assert searched.search_term == "coffee"
    (added,) = [one for one in events if one.event_name == "add_to_cart"]
    assert added.items[0].price is not None
    expect(page.locator("#suggestions")).to_have_attribute("aria-busy", "false")
    looked = page.locator("#suggestions > li[data-item]").first
    item = looked.get_attribute("data-item")
    name = looked.get_by_role("link").inner_text()
    looked.get_by_role("link").click()
    expect(page.locator("#product")).to_contain_text(name)
    events = front.wait(session, lambda found: "view_item" in {one.event_name for one in found})
    (viewed,) = [one for one in events if one.event_name == "view_item"]
    assert [line.item_id for line in viewed.items] == [item]
    page.get_by_role("button", name="Close").click()
    decided = [one for one in events if one.event_name == "decision"]
    assert {one.subject_id for one in decided} <= {searched.subject_id}
    page.get_by_role("switch", name="Personalization").press("Space")
    front.until("!localStorage.length")
