// What was decided besides products: offers with the time they are good for, ways to pay and to be
// delivered in the decision's order, the rules that it followed.

import { count, make, money, plain } from "./format.js";

const $ = (id) => document.getElementById(id);

// Why an offer is not shown, in the words that the decision has for it.
const REJECTED = {
  CouponNotFound: "There is no such offer any more",
  CouponStartDateInFuture: "It has not begun",
  CouponExpired: "It is over",
  CouponPartOfNotRunningCampaign: "Not at this time or in this place",
  CouponRecipientDoesNotMatch: "For other shoppers, or only with consent to offers",
  CouponRejectedByCondition: "Not for this basket",
  CouponLimitReached: "Used as often as it may be",
  ProfileLimitReached: "This shopper has used it already",
  CampaignLimitReached: "Its budget is spent",
};
const KINDS = { payment: "order_payments", shipping: "order_shipping" };

export const isOver = (offer, clock) => Date.parse(offer.expires_at) <= clock();

// What the live `offers` take off, in minor units: goods and delivery apart.
export function reductions(offers, clock, goods, delivery) {
  let [off, offDelivery] = [0, 0];
  for (const { discount, ...offer } of offers) {
    if (isOver(offer, clock)) continue;
    if (discount.kind !== "free_shipping") off += discount.amount;
    else if (discount.shipping_ids.length === 0 || discount.shipping_ids.includes(delivery.id))
      offDelivery = Math.max(offDelivery, Math.min(discount.amount, delivery.price));
  }
  return { off: Math.min(off, goods), offDelivery };
}

let ticking = 0;

// `clock()` is the gateway's own time in milliseconds: an offer ends by no other. `ended` is called
// when the first of them has.
export function showOffers(offers, clock, ended) {
  clearInterval(ticking);
  const timers = offers.map((offer) => ({ offer, place: make("span", { role: "timer", class: "left" }) }));
  $("offers").replaceChildren(...timers.map(({ offer, place }) => offerRow(offer, place)));
  $("offers").hidden = offers.length === 0;
  const tick = () => {
    for (const { offer, place } of timers) place.textContent = timeLeft(Date.parse(offer.expires_at) - clock());
    if (!offers.some((offer) => isOver(offer, clock))) return;
    clearInterval(ticking);
    ended();
  };
  if (offers.length === 0) return;
  tick();
  ticking = setInterval(tick, 250);
}

function offerRow({ offer_id, title, discount, expires_at, reasons }, place) {
  const worth = discount.kind === "free_shipping" ? "Delivery is free" : `${money(discount.amount, discount.currency)} off`;
  return make(
    "li",
    { "data-offer": offer_id, "data-ends": expires_at },
    make("div", {}, make("p", { class: "name" }, title), make("p", { class: "reasons" }, reasons.map((one) => one.text).join(" "))),
    make("div", { class: "worth" }, make("p", { class: "price" }, worth), make("p", { class: "quiet" }, "Ends in ", place)),
  );
}

function timeLeft(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] > 0 ? parts : parts.slice(1);
  return shown.map((part, place) => (place ? String(part).padStart(2, "0") : String(part))).join(":");
}

// One list of ways to choose from: `name` is `payment` or `shipping`, `order` the decision's ids (none:
// there was no decision), `options` all that the shop sent. `chosen` is what the shopper took, `rules`
// those that were followed.
export function showChoices({ name, options, order, chosen, rules, currency, choose }) {
  const ids = order.length > 0 ? order : options.map((one) => one.id);
  const byId = new Map(options.map((one) => [one.id, one]));
  const shown = ids.filter((id) => byId.has(id));
  const taken = shown.includes(chosen) ? chosen : shown[0];
  const focused = document.activeElement?.name === name;
  $(`${name}-options`).replaceChildren(
    ...shown.map((id, place) => choice({ name, option: byId.get(id), first: place === 0, taken, currency, choose })),
  );
  if (focused) $(`${name}-options`).querySelector("input:checked")?.focus();
  $(`${name}-why`).textContent = order.length === 0 ? "In the shop's own order." : whyFirst(name, shown, options, rules);
  return byId.get(taken);
}

function choice({ name, option, first, taken, currency, choose }) {
  const days = option.days === undefined ? null : option.days === 0 ? "today" : `in ${count(option.days, "day", "days")}`;
  return make(
    "li",
    { "data-option": option.id },
    make(
      "label",
      { class: "choice" },
      make("input", { type: "radio", name, value: option.id, checked: option.id === taken && "", change: () => choose(option.id) }),
      make("span", {}, option.label, first && make("span", { class: "first" }, "First")),
      option.price !== undefined && make("span", { class: "quiet" }, `${money(option.price, currency)}${option.days ? `, ${days}` : ""}`),
    ),
  );
}

function whyFirst(name, shown, options, rules) {
  const acts = rules.flatMap((rule) => rule.actions.map((action) => ({ rule, action })));
  const mine = acts.filter(({ action }) => action.kind === KINDS[name]);
  const by = mine.find(({ action }) => action.first?.includes(shown[0]));
  const left = options.filter((one) => !shown.includes(one.id)).map((one) => one.label);
  const sent = options.map((one) => one.id).filter((id) => shown.includes(id));
  const why = by
    ? `First by the shop's rule: ${by.rule.title || by.rule.id}.`
    : shown.every((id, place) => id === sent[place])
      ? "In the shop's own order: the decision moved nothing."
      : "The likeliest first, as learned from what shoppers like this one chose; no rule moved it.";
  return left.length > 0 ? `${why} Hidden by a rule: ${left.join(", ")}.` : why;
}

// The rules that were followed and what they did; the offers that were not for this checkout.
export function showOverrides({ applied, known, rejected, titles }) {
  $("applied-none").hidden = applied.length > 0;
  $("applied-rules").replaceChildren(
    ...applied.map((id) => {
      const rule = known.find((one) => one.id === id);
      const does = rule ? [...new Set(rule.actions.map((action) => plain(action.kind)))].join(", ") : "";
      return make("li", { "data-rule": id }, make("strong", {}, rule?.title || id), make("span", { class: "quiet" }, [rule?.title && id, does].filter(Boolean).join(": ")));
    }),
  );
  $("rejected").hidden = rejected.length === 0;
  $("rejected-summary").textContent = `${count(rejected.length, "offer is", "offers are")} not for this checkout`;
  $("rejected-offers").replaceChildren(
    ...rejected.map(({ offer_id, rejection_reason }) =>
      make("li", { "data-offer": offer_id }, make("span", {}, titles.get(offer_id) ?? offer_id), make("span", { title: rejection_reason }, REJECTED[rejection_reason] ?? rejection_reason)),
    ),
  );
}
