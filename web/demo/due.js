// What is due: offers, ways to pay and to be delivered, and the sum.

import * as checkout from "./checkout.js";
import { currency, state } from "./state.js";
import * as views from "./views.js";

let ended = () => {};

// `act` is done when the time of an offer is over.
export const whenOver = (act) => {
  ended = act;
};

// Offers, ways to pay and to be delivered; without a decision the shop's own.
export function paintCheckout(decided) {
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

export const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value ?? null;

// The option to be delivered by that was chosen; undefined where the shop has none.
export const delivery = () => state.options.shipping_options.find((one) => one.id === chosen("shipping"));

// The sum, which it shows.
export function paintDue() {
  const taken = delivery() ?? { id: "", price: 0 };
  const { off, offDelivery } = checkout.reductions(state.decided?.offers ?? [], state.clock, views.worth(state.lines), taken);
  return views.showDue(state.lines, currency(), { delivery: taken.price - offDelivery, off });
}

// The offers were not redeemed: they are shown no longer, and nothing is taken off.
export function withoutOffers() {
  state.decided = { ...state.decided, offers: [] };
  checkout.showOffers([], state.clock, offerEnded);
  paintDue();
}

function offerEnded() {
  views.say("An offer has ended.");
  paintDue();
  ended();
}
