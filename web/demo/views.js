// What the page shows. Every function paints one part from what it is given and keeps no state.

import { count, label, make, milliseconds, money, nameOf, plain, tile } from "./format.js";

export const $ = (id) => document.getElementById(id);

const RUNGS = {
  full: "Full answer",
  no_ranker: "No ranker",
  session_knn: "Similar baskets",
  popular: "Popular items",
  empty: "Nothing",
};
const PLACEHOLDERS = 5;

// For those who listen to the page.
export function say(text) {
  $("announcer").textContent = text;
}

export function showShoppers(shoppers, chosen = 0) {
  const select = $("shopper");
  select.replaceChildren(
    ...shoppers.map((shopper, place) => make("option", { value: place, selected: place === chosen && "" }, shopper.label)),
  );
  select.disabled = false;
}

export function showPrivacy({ purposes, gpc, browserGpc, word }) {
  const consent = purposes.personalization;
  $("consent").checked = consent;
  $("targeting").checked = purposes.offers;
  $("targeting").disabled = !consent;
  $("gpc").checked = gpc;
  $("gpc").disabled = browserGpc;
  $("gpc-hint").textContent = browserGpc ? "Sent by this browser" : "Overrides every consent";
  const effect = gpc
    ? "Global Privacy Control is on: no history is touched, only the basket on this page counts."
    : consent
      ? `What is looked at and bought counts for the next suggestions${purposes.offers ? " and offers" : ""}.`
      : "No consent: no history is touched, only the basket on this page counts.";
  $("privacy").textContent = `${effect} ${word}`;
}

export const worth = (lines) => lines.reduce((sum, line) => sum + (line.item.price ?? 0) * line.quantity, 0);

export function showBasket(lines, currency, act) {
  const pieces = lines.reduce((sum, line) => sum + line.quantity, 0);
  const unpriced = lines.filter((line) => line.item.price === null).length;
  $("basket-count").textContent = count(pieces, "item", "items");
  $("lines").replaceChildren(...lines.map((line) => basketLine(line, act)));
  $("lines-empty").hidden = lines.length > 0;
  $("subtotal").textContent = money(worth(lines), currency);
  $("unpriced").hidden = unpriced === 0;
  $("unpriced").textContent = `${count(unpriced, "item has", "items have")} no price and ${unpriced === 1 ? "is" : "are"} not in the total.`;
  $("pay").disabled = lines.length === 0;
}

// What is due: `delivery` is its price after an offer, `off` what offers take off the goods, both in
// minor units.
export function showDue(lines, currency, { delivery, off }) {
  const total = worth(lines) + (lines.length > 0 ? delivery : 0) - off;
  $("delivery").textContent = delivery === 0 ? "Free" : money(delivery, currency);
  $("off-row").hidden = off === 0;
  $("off").textContent = `\u2212${money(off, currency)}`;
  $("total").textContent = money(total, currency);
  $("pay").textContent = lines.length > 0 ? `Pay ${money(total, currency)}` : "Pay";
  return total;
}

function basketLine({ item, quantity }, act) {
  const name = nameOf(item);
  const step = (sign, word, by) =>
    make(
      "button",
      { type: "button", "aria-label": `${word} of ${name}`, "data-focus": `${word}-${item.item_id}`, click: () => act.change(item.item_id, by), disabled: quantity + by < 1 && "" },
      sign,
    );
  const price = item.price === null ? null : item.price * quantity;
  const text = label(item, act.look);
  text.append(make("button", { class: "remove", type: "button", "aria-label": `Remove ${name}`, "data-focus": `remove-${item.item_id}`, click: () => act.remove(item.item_id) }, "Remove"));
  return make(
    "li",
    { "data-item": item.item_id, "data-tillwise-item": item.item_id },
    tile(item),
    text,
    make(
      "div",
      { class: "line-end" },
      make("div", { class: "stepper" }, step("\u2212", "One less", -1), make("output", { "aria-label": `Quantity of ${name}` }, String(quantity)), step("+", "One more", 1)),
      make("span", { class: "price" }, money(price, item.currency)),
    ),
  );
}

export function showBusy(busy) {
  $("progress").classList.toggle("busy", busy);
  $("suggestions").setAttribute("aria-busy", String(busy));
}

export function showPlaceholders() {
  const row = () => make("li", { class: "skeleton", "aria-hidden": "true" }, make("span", { class: "tile" }), make("span"), make("span"));
  $("suggestions").replaceChildren(...Array.from({ length: PLACEHOLDERS }, row));
  $("suggestions-empty").hidden = true;
}

// Gives what is new and what has moved up since the last answer; nothing, where there was none.
export function showSuggestions(suggested, bought, act) {
  const ids = suggested.map((one) => one.item.item_id);
  const before = [...$("suggestions").children].map((row) => row.dataset.item).filter(Boolean);
  const kept = ids.filter((id) => before.includes(id));
  const order = before.filter((id) => kept.includes(id)); // what has gone lets nothing move up
  const newOnes = before.length > 0 ? ids.filter((id) => !before.includes(id)) : [];
  const movedUp = kept.filter((id, place) => place < order.indexOf(id));
  const mark = (id) => (newOnes.includes(id) ? "New" : movedUp.includes(id) ? "Up" : null);
  const rows = suggested.map((one) => suggestion(one, bought.has(one.item.item_id), mark(one.item.item_id), act));
  $("suggestions").replaceChildren(...rows);
  $("suggestions-empty").hidden = suggested.length > 0;
  const hits = suggested.filter((one) => bought.has(one.item.item_id)).length;
  $("hits").textContent = hits > 0 ? `${hits} of ${suggested.length} in the real basket` : "";
  return { newOnes: newOnes.length, movedUp: movedUp.length };
}

function suggestion({ item, reasons }, real, mark, act) {
  const name = nameOf(item);
  const text = label(item, act.look);
  if (mark) text.firstElementChild.append(" ", make("span", { class: "new" }, mark));
  text.append(make("p", { class: "reasons" }, reasons.map((reason) => reason.text).join(" ")));
  if (real) text.append(make("span", { class: "real" }, "Bought in this very basket"));
  return make(
    "li",
    {
      class: mark ? "fresh" : null,
      "data-item": item.item_id,
      "data-tillwise-item": item.item_id,
      "data-reasons": reasons.map((reason) => reason.code).join(" "),
    },
    tile(item),
    text,
    make(
      "div",
      { class: "offer-end" },
      make("span", { class: "price" }, money(item.price, item.currency)),
      make("button", { class: "secondary", type: "button", "aria-label": `Add ${name} to the basket`, "data-focus": `add-${item.item_id}`, click: () => act.add(item) }, "Add to cart"),
      make("button", { class: "remove", type: "button", "aria-label": `Not for me: ${name}`, "data-focus": `refuse-${item.item_id}`, click: () => act.refuse(item) }, "Not for me"),
    ),
  );
}

let fading = 0;

// What has just moved, in words; on a small screen it floats, because the rest may be out of sight.
export function showChanged(words) {
  clearTimeout(fading);
  $("changed").textContent = words;
  $("changed").hidden = !words;
  if (words) fading = setTimeout(() => showChanged(""), 8000);
}

export function showDecision(answer, roundTripMs) {
  const { total, ...stages } = answer.timings_ms;
  const lower = answer.rung !== "full";
  const steps = Object.entries(RUNGS).map(([rung, text]) => {
    const here = rung === answer.rung;
    return make("li", { class: here ? (lower ? "here lower" : "here") : null, "data-rung": rung, "aria-current": here && "step" }, text);
  });
  $("ladder").replaceChildren(...steps);
  const longest = Math.max(...Object.values(stages), 0.1);
  const late = new Set(answer.degraded);
  $("stages").replaceChildren(...Object.entries(stages).map(([name, ms]) => stage(name, ms, ms / longest, late.has(name))));
  $("elapsed").textContent = total === undefined ? "" : `${milliseconds(total)} ms`;
  $("round-trip").textContent = `${milliseconds(roundTripMs)} ms`;
  $("degraded-stages").textContent = answer.degraded.map(plain).join(", ") || "none";
  $("release").textContent = answer.release_id;
  $("decision-id").textContent = answer.decision_id;
  const simpler = lower ? `A simpler answer this time: ${RUNGS[answer.rung].toLowerCase()}. ` : "";
  const missing = answer.degraded.length > 0 ? `These stages did not do their part in time: ${answer.degraded.map(plain).join(", ")}.` : "";
  $("degraded").hidden = !simpler && !missing;
  $("degraded").textContent = simpler + missing;
  $("decision").hidden = false;
}

function stage(name, ms, share, late) {
  const fill = make("span");
  fill.style.width = `${Math.min(share, 1) * 100}%`;
  return make(
    "li",
    { class: late ? "late" : null, "data-stage": name },
    make("span", {}, plain(name)),
    make("span", { class: "bar", "aria-hidden": "true" }, fill),
    make("span", { class: "ms" }, milliseconds(ms)),
  );
}

export function showHeldOut(heldOut, suggestedIds, cartIds) {
  $("held-out").hidden = heldOut.length === 0;
  const rows = heldOut.map((item) => {
    const hit = suggestedIds.has(item.item_id);
    const state = cartIds.has(item.item_id) ? "in the basket" : hit ? "suggested" : "";
    return make("li", { class: hit ? "hit" : null }, make("span", {}, item.title), make("span", {}, state));
  });
  const hits = heldOut.filter((item) => suggestedIds.has(item.item_id)).length;
  $("held-out-summary").textContent = `What was really bought besides: ${hits} of ${count(heldOut.length, "item", "items")} suggested now`;
  $("held-out-items").replaceChildren(...rows);
}

export function showTrouble(reason) {
  $("trouble").hidden = reason === null;
  if (reason === null) return;
  // Spoken once: an alert whose words do not change stays silent.
  const words = `${reason} Your basket and the payment work as usual.`;
  if ($("trouble-text").textContent !== words) $("trouble-text").textContent = words;
  for (const id of ["degraded", "suggestions-empty", "decision"]) $(id).hidden = true;
  $("hits").textContent = "";
  $("suggestions").replaceChildren();
}
