// The shop: one state, changed by the shopper, painted at once; what the gateway makes of it follows
// when it can.

import * as checkout from "./checkout.js";
import { api, GatewayError, latest } from "./gateway.js";
import { count, money } from "./format.js";
import * as measure from "./measure.js";
import { openSearch } from "./search.js";
import { openShelf } from "./shelf.js";
import { openErasing, showSegments, wordOnFile } from "./standing.js";
import * as views from "./views.js";

const QUIET_MS = 120; // how long the basket must rest before it is asked about
const RETRY_MS = [2000, 4000, 8000, 15000];
const $ = views.$;

const browserGpc = navigator.globalPrivacyControl === true;
// Away from localhost, a page without TLS is given no random ids.
const randomId = () => crypto.randomUUID?.() ?? "somebody-new";
const stranger = (label) => ({ visitor_id: randomId(), session_id: randomId(), label, consent: {}, cart: [], bought_too: [] });
const nobody = stranger("Somebody new");
const state = {
  shoppers: [nobody],
  shopper: nobody,
  filter: {},
  lines: [], // { item, quantity }, in the order in which they were put in
  consent: false,
  gpc: browserGpc,
  refused: [], // ids of what was said not to be for them, on this page
  looked: null, // the item that was looked at since the last answer
  standing: null, // consent on record and segments, as the gateway says
  suggested: [], // { item, reasons }
  options: { payment_methods: [], shipping_options: [] }, // the shop's own, in its own order
  decided: null, // the last answer, with the rules that it followed
  clock: Date.now, // the gateway's, from the last answer on
  payment: null, // what the shopper chose
  shipping: null,
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
  // What was looked at counts for the next suggestions, once the gateway has heard of it.
  look(item) {
    measure.tell("view_item", [{ item }]);
    shelf.present(item);
    if (!state.consent || state.gpc) return;
    measure.whenHeard(() => {
      state.looked = item;
      ask({ now: true });
    });
  },
  // With consent the gateway remembers it; the page itself does until it is left.
  refuse(item) {
    measure.tell("feedback", [{ item }], { feedback: "not_for_me" });
    state.refused.push(item.item_id);
    const next = afterSuggestion(item.item_id, "refuse");
    state.suggested = state.suggested.filter((one) => one.item.item_id !== item.item_id);
    paintSuggestions();
    focusOn(next);
    const remembered = state.consent && !state.gpc;
    say(`${item.title} is not suggested again${remembered ? "" : " on this page"}.`);
    if (remembered) measure.whenHeard(() => ask({ now: true }));
    else ask({ now: true });
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
function afterSuggestion(itemId, button = "add") {
  const place = state.suggested.findIndex((one) => one.item.item_id === itemId);
  if (place < 0) return undefined;
  const next = state.suggested[place + 1] ?? state.suggested[place - 1];
  return next ? `${button}-${next.item.item_id}` : null;
}

function focusOn(name, otherwise = "suggestions-title") {
  if (name === undefined) return;
  const element = name && document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
  (element ?? $(otherwise)).focus();
}

function basketChanged(spoken) {
  views.showBasket(state.lines, currency(), act);
  paintDue();
  if (spoken) say(spoken);
  ask();
}

function choose(shopper) {
  state.shopper = shopper;
  state.consent = shopper.consent.personalization === true;
  state.lines = shopper.cart.map((item) => ({ item, quantity: 1 }));
  learn([...shopper.cart, ...shopper.bought_too]);
  state.suggested = [];
  state.standing = null;
  state.looked = null;
  state.refused = [];
  state.payment = state.shipping = null;
  paintCheckout(null);
  shelf.reset();
  views.showPlaceholders();
  views.showChanged("");
  privacyChanged();
  measure.tell("begin_checkout", state.lines);
  basketChanged("");
}

const purposes = () => ({ personalization: state.consent, analytics: state.consent, offers: false });

function privacyChanged() {
  // What the browser's own control would do by itself, the page's switch does by withdrawing.
  measure.shopper(state.shopper, state.gpc ? {} : purposes());
  views.showPrivacy({ consent: state.consent, gpc: state.gpc, browserGpc, word: wordOnFile(state.standing) });
}

// The shopper's word. A no is in effect before the gateway has heard of it, a yes only once it has.
async function agree(agreed) {
  const { shopper } = state;
  state.consent = agreed;
  if (!agreed) privacyChanged();
  views.showBusy(true);
  try {
    await api.consent({ visitor_id: shopper.visitor_id, agreed });
    shopper.consent = { personalization: agreed };
  } catch {
    if (state.shopper === shopper) state.consent = false;
    say(agreed ? "The consent could not be recorded, so it does not count." : "The refusal counts here, but could not be recorded yet.");
  }
  if (state.shopper !== shopper) return;
  privacyChanged();
  ask({ now: true });
}

// Nothing may follow under the old name: the snippet and the questions end first.
async function erase() {
  const { shopper } = state;
  state.consent = false;
  measure.shopper(shopper, {});
  let signed;
  try {
    signed = await api.erase({ visitor_id: shopper.visitor_id });
  } catch (error) {
    privacyChanged();
    ask({ now: true });
    throw error;
  }
  const lines = state.lines;
  const unknown = stranger("Nobody the shop knows");
  state.shoppers = [unknown, ...state.shoppers.filter((one) => one !== shopper)];
  views.showShoppers(state.shoppers);
  choose(unknown);
  state.lines = lines; // the basket is the shopper's own
  basketChanged("Everything is erased.");
  return signed;
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
    consent: purposes(),
    gpc: state.gpc,
    filter: { ...state.filter, exclude_items: [...(state.filter.exclude_items ?? []), ...state.refused] },
    payment_methods: state.options.payment_methods.map((one) => one.id),
    shipping_options: state.options.shipping_options.map(({ id, price, days }) => ({ id, price, days })),
  };
}

const decide = latest(async (signal) => {
  if (!state.met) await meetShoppers(signal);
  const began = performance.now();
  const about = { visitor_id: state.shopper.visitor_id, gpc: state.gpc };
  const standing = api.standing(about, signal).catch(() => null);
  const answer = await api.decide(request(), signal);
  const arrived = performance.now();
  const roundTripMs = arrived - began;
  const clock = () => answer.toldAt + performance.now() - arrived;
  const books = bookTitles(answer, signal);
  const unknown = answer.recommendations.map((one) => one.item_id).filter((id) => !known.has(id));
  if (unknown.length > 0) learn(await api.named(unknown, signal));
  return { answer: { ...answer, ...(await books) }, roundTripMs, clock, standing: await standing };
}, QUIET_MS);

// What the shop calls its own rules and offers; where that can not be told, their ids must do.
async function bookTitles({ applied_rules, rejected_offers }, signal) {
  const [rules, offers] = await Promise.all([
    applied_rules.length > 0 ? api.written("rules", signal).then((held) => held.rules).catch(() => []) : [],
    rejected_offers.length > 0 ? api.written("offers", signal).then((held) => held.offers).catch(() => []) : [],
  ]);
  const followed = applied_rules.map((id) => rules.find((rule) => rule.id === id)).filter(Boolean);
  return { rules: followed, titles: new Map(offers.map((one) => [one.offer_id, one.title])) };
}

// --- what is due -----------------------------------------------------------------------------------

// Offers, ways to pay and to be delivered; without a decision the shop's own.
function paintCheckout(decided) {
  state.decided = decided;
  checkout.showOffers(decided?.offers ?? [], state.clock, offerEnded);
  const choose = (name) => (id) => {
    state[name] = id;
    paintDue();
  };
  const rules = decided?.rules ?? [];
  const of = (name, options, order) =>
    checkout.showChoices({ name, options, order, chosen: state[name], rules, currency: currency(), choose: choose(name) });
  of("payment", state.options.payment_methods, decided?.payment_method_order ?? []);
  of("shipping", state.options.shipping_options, decided?.shipping_option_order ?? []);
  paintDue();
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value ?? null;

function paintDue() {
  const delivery = state.options.shipping_options.find((one) => one.id === chosen("shipping"));
  const taken = delivery ?? { id: "", price: 0 };
  const { off, offDelivery } = checkout.reductions(state.decided?.offers ?? [], state.clock, views.worth(state.lines), taken);
  return views.showDue(state.lines, currency(), { delivery: taken.price - offDelivery, off });
}

function offerEnded() {
  say("An offer has ended.");
  paintDue();
  ask({ now: true });
}

// The page may have been opened before the gateway could say who shops here.
async function meetShoppers(signal) {
  const { shoppers, filter, options } = await api.shoppers(signal);
  state.filter = filter; // what this shop keeps out of its checkout
  state.options = options;
  state.met = true;
  const begun = state.lines.length > 0; // with the gateway away: nobody's basket is taken away
  state.shoppers = begun || shoppers.length === 0 ? [nobody, ...shoppers] : shoppers;
  views.showShoppers(state.shoppers);
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
  paintCheckout(null);
}

function ask(options) {
  clearTimeout(retry);
  views.showBusy(true);
  decide(answered, failed, options);
}

function answered({ answer, roundTripMs, clock, standing }) {
  const recovered = state.failures > 0;
  state.failures = 0;
  views.showBusy(false);
  views.showTrouble(null);
  shelf.load();
  const inCart = cartIds();
  state.suggested = answer.recommendations
    .filter((one) => !inCart.has(one.item_id))
    .map((one) => ({ item: known.get(one.item_id) ?? unnamed(one.item_id), reasons: one.reasons }));
  const joined = standingChanged(standing);
  const moved = keepingFocus(paintSuggestions);
  views.showChanged(state.looked ? whatMoved(joined, moved) : "");
  state.looked = null;
  measure.tell("view_item_list", state.suggested);
  views.showDecision(answer, roundTripMs);
  const offered = state.decided?.offers.map((one) => one.offer_id) ?? [];
  state.clock = clock;
  paintCheckout(answer);
  checkout.showOverrides({ applied: answer.applied_rules, known: answer.rules, rejected: answer.rejected_offers, titles: answer.titles });
  const fresh = answer.offers.filter((one) => !offered.includes(one.offer_id)).map((one) => `An offer for you: ${one.title}. `);
  const now = joined.length > 0 ? `You are now in ${joined.join(" and ")}. ` : "";
  say(`${recovered ? "Suggestions are back. " : ""}${now}${fresh.join("")}${count(state.suggested.length, "suggestion", "suggestions")} for this basket.`);
}

// Paints where the shopper stands; gives the titles of the segments that were not there before.
function standingChanged(standing) {
  const before = state.standing?.segments;
  const names = new Set(before?.segments.map((one) => one.name));
  state.standing = standing;
  const personal = state.consent && !state.gpc;
  const joined = before && personal ? (standing?.segments?.segments ?? []).filter((one) => !names.has(one.name)) : [];
  showSegments(standing, personal, new Set(joined.map((one) => one.name)));
  views.showPrivacy({ consent: state.consent, gpc: state.gpc, browserGpc, word: wordOnFile(standing) });
  return joined.map((one) => one.title);
}

function whatMoved(joined, { newOnes, movedUp }) {
  const parts = [
    joined.length > 0 && `Now in ${joined.join(" and ")}`,
    newOnes > 0 && count(newOnes, "new suggestion", "new suggestions"),
    movedUp > 0 && `${movedUp} moved up`,
  ].filter(Boolean);
  return parts.length > 0 ? `${parts.join(", ")}: you looked at ${state.looked.title || "an item"}.` : "";
}

function unnamed(itemId) {
  return { item_id: itemId, title: "", brand: "", category_path: [], price: null, currency: currency() };
}

function paintSuggestions() {
  const bought = new Set(state.shopper.bought_too.map((item) => item.item_id));
  const moved = views.showSuggestions(state.suggested, bought, act);
  views.showHeldOut(state.shopper.bought_too, new Set(state.suggested.map((one) => one.item.item_id)), cartIds());
  return moved;
}

// New suggestions replace old ones; whoever was on one of them is not thrown to the page's top.
function keepingFocus(paint) {
  const focused = document.activeElement?.dataset?.focus;
  const painted = paint();
  if (/^(add|refuse)-/.test(focused)) focusOn(focused);
  return painted;
}

function failed(error) {
  if (!(error instanceof GatewayError)) console.error(error);
  state.suggested = [];
  paintCheckout(null);
  views.showBusy(false);
  views.showTrouble(error instanceof GatewayError ? error.message : "Suggestions are not available right now.");
  retry = setTimeout(() => ask({ now: true }), RETRY_MS[Math.min(state.failures, RETRY_MS.length - 1)]);
  state.failures += 1;
}

const shelf = openShelf({
  look: act.look,
  add: act.add,
  shown(items) {
    learn(items);
    measure.tell("view_item_list", items.map((item) => ({ item })));
  },
});

// --- the page --------------------------------------------------------------------------------------

// The offers are redeemed by the shop's server with the basket as it is now. Where that fails nothing
// is paid: the offer goes, and the button says what is due without it.
async function redeemed(total) {
  const offers = (state.decided?.offers ?? []).filter((one) => !checkout.isOver(one, state.clock));
  if (offers.length === 0) return true;
  const { visitor_id, cart } = request();
  const delivery = state.options.shipping_options.find((one) => one.id === chosen("shipping"));
  const order = {
    visitor_id,
    order_id: crypto.randomUUID(),
    cart,
    total,
    shipping: delivery ? { id: delivery.id, price: delivery.price } : null,
    offers: offers.map(({ offer_id, offer_token }) => ({ offer_id, offer_token })),
  };
  $("pay").disabled = true;
  try {
    await api.pay(order).catch(() => api.pay(order)); // the same order: an answer may have been lost
    return true;
  } catch (error) {
    state.decided = { ...state.decided, offers: [] };
    checkout.showOffers([], state.clock, offerEnded);
    paintDue();
    views.showTrouble(`The offer was not redeemed: ${error.message} What is due is without it.`);
    return false;
  } finally {
    $("pay").disabled = false;
  }
}

async function pay() {
  const pieces = state.lines.reduce((sum, line) => sum + line.quantity, 0);
  const total = paintDue();
  if (!(await redeemed(total))) return;
  measure.tell("add_payment_info", state.lines, { payment_type: chosen("payment"), shipping_tier: chosen("shipping") });
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
  $("consent").addEventListener("change", (event) => agree(event.target.checked));
  $("gpc").addEventListener("change", (event) => {
    state.gpc = event.target.checked;
    privacyChanged();
    ask({ now: true });
  });
  $("retry").addEventListener("click", () => ask({ now: true }));
  const askToErase = openErasing(erase);
  $("erase").addEventListener("click", () => askToErase(state.shopper.label));
  $("pay").addEventListener("click", pay);
  $("again").addEventListener("click", () => $("paid").close());
  $("paid").addEventListener("close", () => choose(state.shopper));
  views.showPlaceholders();
  privacyChanged();
  views.showBasket([], currency(), act);
  paintCheckout(null);
  shelf.load();
  ask({ now: true });
}

open();
