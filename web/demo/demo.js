// The shop: one state, changed by the shopper, painted at once; what the gateway makes of it follows
// when it can.

import * as checkout from "./checkout.js";
import { paintCheckout, paintDue, whenOver } from "./due.js";
import { count } from "./format.js";
import { api, GatewayError } from "./gateway.js";
import * as measure from "./measure.js";
import { pay } from "./paying.js";
import { asking } from "./question.js";
import { openSearch } from "./search.js";
import { openShelf } from "./shelf.js";
import { openErasing, showSegments, wordOnFile } from "./standing.js";
import { agreedBy, browserGpc, cartIds, currency, known, learn, nobody, purposes, state, stranger, unnamed } from "./state.js";
import { afterSuggestion, focusOn, keepingFocus, paintSuggestions, whatMoved } from "./suggestions.js";
import * as views from "./views.js";

const RETRY_MS = [2000, 4000, 8000, 15000];
const { $, say } = views;

let retry = 0;

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
    paintSuggestions(act);
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
    paintSuggestions(act);
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

function basketChanged(spoken) {
  views.showBasket(state.lines, currency(), act);
  paintDue();
  if (spoken) say(spoken);
  ask();
}

function choose(shopper) {
  state.shopper = shopper;
  agreedBy(shopper);
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

function privacyChanged() {
  // What the browser's own control would do by itself, the page's switch does by withdrawing.
  measure.shopper(state.shopper, state.gpc ? {} : purposes());
  views.showPrivacy({ purposes: purposes(), gpc: state.gpc, browserGpc, word: wordOnFile(state.standing) });
}

// The shopper's word. A no is in effect before the gateway has heard of it, a yes only once it has.
async function agree(agreed, offers) {
  const { shopper, consent } = state;
  const word = (state.word = { consent: agreed, targeting: offers });
  const more = offers || (agreed && !consent);
  if (!more) {
    Object.assign(state, word);
    privacyChanged();
  }
  views.showBusy(true);
  let heard = false;
  try {
    await api.consent({ visitor_id: shopper.visitor_id, agreed, offers });
    shopper.consent = { personalization: agreed, offers };
    heard = true;
  } catch {
    say(more ? "The consent could not be recorded, so it does not count." : "The refusal counts here, but could not be recorded yet.");
  }
  if (state.shopper !== shopper) return;
  if (more && heard && state.word === word) Object.assign(state, word); // and not taken back meanwhile
  privacyChanged();
  ask({ now: true });
}

// Nothing may follow under the old name: the snippet and the questions end first.
async function erase() {
  const { shopper } = state;
  Object.assign(state, { consent: false, word: null }); // a yes that is still on its way comes too late
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
  agreedBy(first);
  Object.assign(state, { shopper: first, lines: first.cart.map((item) => ({ item, quantity: 1 })) });
  learn([...first.cart, ...first.bought_too]);
  privacyChanged();
  measure.tell("begin_checkout", state.lines);
  views.showBasket(state.lines, currency(), act);
  paintCheckout(null);
}

const decide = asking(meetShoppers);

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
  const moved = keepingFocus(() => paintSuggestions(act));
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
  views.showPrivacy({ purposes: purposes(), gpc: state.gpc, browserGpc, word: wordOnFile(standing) });
  return joined.map((one) => one.title);
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

function open() {
  openSearch((item, words) => {
    measure.tell("search", [], { search_term: words });
    measure.tell("select_item", [{ item }]);
    act.add(item);
  });
  $("shopper").addEventListener("change", (event) => choose(state.shoppers[Number(event.target.value)]));
  $("consent").addEventListener("change", (event) => agree(event.target.checked, false));
  $("targeting").addEventListener("change", (event) => agree(true, event.target.checked));
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
  whenOver(() => ask({ now: true }));
  views.showPlaceholders();
  privacyChanged();
  views.showBasket([], currency(), act);
  paintCheckout(null);
  shelf.load();
  ask({ now: true });
}

open();
