// The checkout: one state, changed by the shopper, painted at once; suggestions follow when they can.

import { api, GatewayError, latest } from "./gateway.js";
import { count, money } from "./format.js";
import * as measure from "./measure.js";
import { openSearch } from "./search.js";
import * as views from "./views.js";

const QUIET_MS = 120; // how long the basket must rest before it is asked about
const HEARD_MS = 700; // by then what was told has reached the gateway
const RETRY_MS = [2000, 4000, 8000, 15000];
const $ = views.$;

const browserGpc = navigator.globalPrivacyControl === true;
const nobody = { visitor_id: "somebody-new", label: "Somebody new", session_id: "new", consent: {}, cart: [], bought_too: [] };
const state = {
  shoppers: [nobody],
  shopper: nobody,
  filter: {},
  lines: [], // { item, quantity }, in the order in which they were put in
  consent: false,
  gpc: browserGpc,
  looked: null, // the item whose dialog is or was open
  suggested: [], // { item, reasons }
  failures: 0,
  met: false, // whether the gateway has said who shops here
};
const known = new Map(); // every item the page has seen, by id
let retry = 0;

const learn = (items) => items.forEach((item) => known.set(item.item_id, item));
const cartIds = () => new Set(state.lines.map((line) => line.item.item_id));
const currency = () => state.lines[0]?.item.currency ?? [...known.values()][0]?.currency ?? "USD";

function say(text) {
  $("announcer").textContent = text;
}

// --- what the shopper does -------------------------------------------------------------------------

const act = {
  add(item) {
    learn([item]);
    measure.tell("add_to_cart", [{ item }]);
    const line = state.lines.find((one) => one.item.item_id === item.item_id);
    if (line) line.quantity += 1;
    else state.lines.push({ item, quantity: 1 });
    const next = afterSuggestion(item.item_id);
    state.suggested = state.suggested.filter((one) => one.item.item_id !== item.item_id);
    paintSuggestions();
    basketChanged(`${item.title} is in the basket.`);
    focusOn(next);
  },
  // The page of a product, in small. What was looked at counts for the next suggestions.
  look(item) {
    state.looked = item;
    measure.tell("view_item", [{ item }]);
    views.showProduct(item);
    setTimeout(() => ask({ now: true }), HEARD_MS);
  },
  change(itemId, by) {
    const line = state.lines.find((one) => one.item.item_id === itemId);
    line.quantity = Math.max(1, line.quantity + by);
    measure.tell(by > 0 ? "add_to_cart" : "remove_from_cart", [{ item: line.item }]);
    const focused = document.activeElement?.dataset.focus;
    basketChanged(`${line.item.title}: ${line.quantity}.`);
    const button = focused && document.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
    (button?.disabled ? button.parentElement.lastElementChild : button)?.focus();
  },
  remove(itemId) {
    const place = state.lines.findIndex((one) => one.item.item_id === itemId);
    const [gone] = state.lines.splice(place, 1);
    measure.tell("remove_from_cart", [gone]);
    basketChanged(`${gone.item.title} is no longer in the basket.`);
    const near = state.lines[Math.min(place, state.lines.length - 1)];
    focusOn(near ? `remove-${near.item.item_id}` : null, "search");
  },
};

// The button that takes the focus when the suggestion with this id has gone.
function afterSuggestion(itemId) {
  const place = state.suggested.findIndex((one) => one.item.item_id === itemId);
  if (place < 0) return undefined;
  const next = state.suggested[place + 1] ?? state.suggested[place - 1];
  return next ? `add-${next.item.item_id}` : null;
}

function focusOn(name, otherwise = "suggestions-title") {
  if (name === undefined) return;
  const element = name && document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
  (element ?? $(otherwise)).focus();
}

function basketChanged(spoken) {
  views.showBasket(state.lines, currency(), act);
  if (spoken) say(spoken);
  ask();
}

function choose(shopper) {
  state.shopper = shopper;
  state.consent = shopper.consent.personalization === true;
  state.lines = shopper.cart.map((item) => ({ item, quantity: 1 }));
  learn([...shopper.cart, ...shopper.bought_too]);
  state.suggested = [];
  views.showPlaceholders();
  privacyChanged();
  measure.tell("begin_checkout", state.lines);
  basketChanged("");
}

function privacyChanged() {
  // What the browser's own control would do by itself, the page's switch does by withdrawing.
  const agreed = state.gpc ? {} : { ...state.shopper.consent, personalization: state.consent };
  measure.shopper(state.shopper, agreed);
  views.showPrivacy({ consent: state.consent, gpc: state.gpc, browserGpc });
}

// --- what the gateway answers ----------------------------------------------------------------------

function request() {
  const { shopper } = state;
  return {
    visitor_id: shopper.visitor_id,
    session_id: shopper.session_id,
    cart: {
      cart_id: shopper.session_id,
      currency: currency(),
      items: state.lines.map(({ item, quantity }) => ({ item_id: item.item_id, quantity, price: item.price })),
    },
    consent: { ...shopper.consent, personalization: state.consent },
    gpc: state.gpc,
    filter: state.filter,
    placements: ["recommendations"],
  };
}

const decide = latest(async (signal) => {
  if (!state.met) await meetShoppers(signal);
  const began = performance.now();
  const answer = await api.decide(request(), signal);
  const roundTripMs = performance.now() - began;
  const unknown = answer.recommendations.map((one) => one.item_id).filter((id) => !known.has(id));
  if (unknown.length > 0) learn(await api.named(unknown, signal));
  return { answer, roundTripMs };
}, QUIET_MS);

// The page may have been opened before the gateway could say who shops here.
async function meetShoppers(signal) {
  const { shoppers, filter } = await api.shoppers(signal);
  state.filter = filter; // what this shop keeps out of its checkout
  state.met = true;
  const begun = state.lines.length > 0; // with the gateway away: nobody's basket is taken away
  state.shoppers = begun || shoppers.length === 0 ? [nobody, ...shoppers] : shoppers;
  views.showShoppers(state.shoppers, 0);
  if (state.shoppers[0] === nobody) return;
  const [first] = shoppers;
  Object.assign(state, {
    shopper: first,
    consent: first.consent.personalization === true,
    lines: first.cart.map((item) => ({ item, quantity: 1 })),
  });
  learn([...first.cart, ...first.bought_too]);
  privacyChanged();
  measure.tell("begin_checkout", state.lines);
  views.showBasket(state.lines, currency(), act);
}

function ask(options) {
  clearTimeout(retry);
  views.showBusy(true);
  decide(answered, failed, options);
}

function answered({ answer, roundTripMs }) {
  const recovered = state.failures > 0;
  state.failures = 0;
  views.showBusy(false);
  views.showTrouble(null);
  const inCart = cartIds();
  state.suggested = answer.recommendations
    .filter((one) => !inCart.has(one.item_id))
    .map((one) => ({ item: known.get(one.item_id) ?? unnamed(one.item_id), reasons: one.reasons }));
  keepingFocus(paintSuggestions);
  measure.tell("view_item_list", state.suggested);
  views.showDecision(answer, roundTripMs);
  say(`${recovered ? "Suggestions are back. " : ""}${count(state.suggested.length, "suggestion", "suggestions")} for this basket.`);
}

function unnamed(itemId) {
  return { item_id: itemId, title: "", brand: "", category_path: [], price: null, currency: currency() };
}

function paintSuggestions() {
  const bought = new Set(state.shopper.bought_too.map((item) => item.item_id));
  views.showSuggestions(state.suggested, bought, act);
  views.showHeldOut(state.shopper.bought_too, new Set(state.suggested.map((one) => one.item.item_id)), cartIds());
}

// New suggestions replace old ones; whoever was on one of them is not thrown to the page's top.
function keepingFocus(paint) {
  const focused = document.activeElement?.dataset?.focus;
  paint();
  if (focused?.startsWith("add-")) focusOn(focused);
}

function failed(error) {
  if (!(error instanceof GatewayError)) console.error(error);
  state.suggested = [];
  views.showBusy(false);
  views.showTrouble(error instanceof GatewayError ? error.message : "Suggestions are not available right now.");
  retry = setTimeout(() => ask({ now: true }), RETRY_MS[Math.min(state.failures, RETRY_MS.length - 1)]);
  state.failures += 1;
}

// --- the page --------------------------------------------------------------------------------------

function pay() {
  const pieces = state.lines.reduce((sum, line) => sum + line.quantity, 0);
  const total = state.lines.reduce((sum, line) => sum + (line.item.price ?? 0) * line.quantity, 0);
  measure.tell("add_payment_info", state.lines);
  $("paid-text").textContent = `${count(pieces, "item", "items")} for ${money(total, currency())}.`;
  $("paid").showModal();
}

function open() {
  openSearch((item, words) => {
    measure.tell("search", [], { search_term: words });
    measure.tell("select_item", [{ item }]);
    act.add(item);
  });
  $("shopper").addEventListener("change", (event) => choose(state.shoppers[Number(event.target.value)]));
  $("consent").addEventListener("change", (event) => {
    state.consent = event.target.checked;
    privacyChanged();
    ask({ now: true });
  });
  $("gpc").addEventListener("change", (event) => {
    state.gpc = event.target.checked;
    privacyChanged();
    ask({ now: true });
  });
  $("retry").addEventListener("click", () => ask({ now: true }));
  $("product-close").addEventListener("click", () => $("product").close());
  $("product-add").addEventListener("click", () => {
    $("product").close();
    act.add(state.looked);
  });
  // The name that led there may have been painted anew meanwhile.
  $("product").addEventListener("close", () => focusOn(`look-${state.looked.item_id}`));
  $("pay").addEventListener("click", pay);
  $("again").addEventListener("click", () => $("paid").close());
  $("paid").addEventListener("close", () => choose(state.shopper));
  views.showPlaceholders();
  privacyChanged();
  views.showBasket([], currency(), act);
  ask({ now: true });
}

open();
