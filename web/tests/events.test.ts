import assert from "node:assert/strict";
import { test } from "node:test";
import { bodyOf, minor } from "../src/events.ts";
import { eventIn } from "../src/data_layer.ts";

const sent = (...args: Parameters<typeof bodyOf>) => JSON.parse(JSON.stringify(bodyOf(...args) ?? null));

test("amounts become minor units of their currency", () => {
  // What the page says, the digits of the currency, what is sent.
  const cases: [unknown, number | undefined, number | undefined][] = [
    [19.99, 2, 1999],
    ["19.99", 2, 1999],
    [1.005, 2, 101], // 1.005 * 100 is 100.49999999999999
    [0.1 + 0.2, 2, 30],
    [1299, 0, 1299],
    [12.9, 0, 13],
    [1.2345, 3, 1235],
    [0, 2, 0],
    [-1, 2, undefined],
    ["1,299.00", 2, undefined],
    ["", 2, undefined],
    [null, 2, undefined],
    [Number.NaN, 2, undefined],
    [1e300, 2, undefined],
    [5, undefined, undefined],
  ];
  for (const [amount, exponent, expected] of cases) {
    assert.equal(minor(amount, exponent), expected, `${String(amount)} in ${String(exponent)}`);
  }
});

test("how far was scrolled is said, and only where it can be so far", () => {
  assert.equal(sent("scroll", { percent_scrolled: 90 }).percent_scrolled, 90);
  assert.equal(sent("scroll", { percent_scrolled: 25.4 }).percent_scrolled, 25);
  for (const wrong of [-1, 101, "far", undefined]) {
    assert.equal("percent_scrolled" in sent("scroll", { percent_scrolled: wrong as number }), false);
  }
});

test("a page says what its shopper thinks of items, and nothing else", () => {
  const items = [{ item_id: "a" }];
  for (const feedback of ["not_for_me", "hidden"] as const) {
    assert.equal(sent("feedback", { items, feedback }).feedback, feedback);
  }
  assert.equal("feedback" in sent("click", { items, feedback: "hidden" }), false);
  assert.equal(bodyOf("feedback", { feedback: "hidden" }), undefined);
});

test("an event of GA4 becomes one of the gateway", () => {
  const items = [
    { item_id: "SKU_1", item_name: "Milk", price: 1.5, quantity: 2, index: 0, item_brand: "Farm" },
    { item_id: 7, price: "3" },
  ];
  assert.deepEqual(sent("add_to_cart", { currency: "EUR", value: 6, items, coupon: "SPRING" }), {
    event_name: "add_to_cart",
    items: [
      { item_id: "SKU_1", quantity: 2, price: 150, index: 0 },
      { item_id: "7", quantity: 1, price: 300 },
    ],
    value: 600,
    currency: "EUR",
    coupon: "SPRING",
  });
});

test("the currency is looked for, and never guessed", () => {
  const priced = (more: object, usual?: string) =>
    sent("view_item", { items: [{ item_id: "a", price: 12 }], ...more }, usual);
  assert.equal(priced({ currency: "JPY" }).items[0].price, 12);
  assert.equal(priced({ currency: "KWD" }).items[0].price, 12_000);
  assert.equal(priced({}, "USD").items[0].price, 1_200);
  assert.equal(priced({ items: [{ item_id: "a", price: 12, currency: "USD" }] }).currency, "USD");
  assert.deepEqual(priced({}), { event_name: "view_item", items: [{ item_id: "a", quantity: 1 }] });
  assert.equal(priced({ currency: "us dollars" }).items[0].price, undefined);
});

test("what a page may not send, or nobody can use, is not sent", () => {
  const items = [{ item_id: "a" }];
  for (const name of ["purchase", "refund", "decision", "sign_up", "gtm.js", "", "view_item x"]) {
    assert.equal(sent(name, { items, transaction_id: "t" }), null, name);
  }
  for (const name of ["view_item", "select_item", "add_to_cart", "remove_from_cart", "hover"]) {
    assert.equal(sent(name, {}), null, name);
    assert.equal(sent(name, { items: [{ item_id: "" }] }), null, name);
  }
  assert.equal(sent("search", {}), null);
  assert.equal(sent("search", { search_term: "4111 1111 1111 1111" }), null);
  assert.equal(sent("view_item", { items, user_id: "u", transaction_id: "t" }).user_id, undefined);
});

test("text is cut to what the gateway takes, between characters", () => {
  const long = "🥛".repeat(300);
  assert.equal([...sent("search", { search_term: long }).search_term].length, 200);
  assert.equal(sent("search", { search_term: `milk \ud83e` }).search_term, "milk");
  assert.equal(sent("view_search_results", { search_term: "milk" }).event_name, "search");
  assert.equal(sent("view_item", { items: [{ item_id: "x".repeat(200) }] }).items[0].item_id.length, 128);
  assert.equal(sent("view_item_list", { items: Array(90).fill({ item_id: "a" }) }).items.length, 50);
});

test("odd numbers are put right or left out", () => {
  const line = (more: object) => sent("view_item", { items: [{ item_id: "a", ...more }] }).items[0];
  assert.equal(line({ quantity: 0 }).quantity, 1);
  assert.equal(line({ quantity: "3" }).quantity, 3);
  assert.equal(line({ quantity: "many" }).quantity, 1);
  assert.equal(line({ index: null }).index, undefined);
  assert.equal(line({ index: "4" }).index, 4);
  assert.equal(line({ index: -1 }).index, undefined);
});

test("both forms of the data layer are read", () => {
  const ecommerce = { items: [{ item_id: "a" }] };
  function gtag(..._: unknown[]) {
    // eslint-disable-next-line prefer-rest-params
    return arguments;
  }
  assert.deepEqual(eventIn({ event: "view_item", ecommerce }), ["view_item", ecommerce]);
  assert.deepEqual(eventIn(gtag("event", "view_item", ecommerce)), ["view_item", ecommerce]);
  assert.deepEqual(eventIn(["event", "view_cart"]), ["view_cart", {}]);
  assert.deepEqual(eventIn({ event: "search", search_term: "milk" }), ["search", { search_term: "milk" }]);
  assert.equal(eventIn({ ecommerce: null }), undefined);
  assert.equal(eventIn(gtag("js", new Date())), undefined);
  assert.equal(eventIn(gtag("config", "G-1")), undefined);
});
