// Paying: the offers are redeemed first.

import * as checkout from "./checkout.js";
import { chosen, delivery, paintDue, withoutOffers } from "./due.js";
import { count, money } from "./format.js";
import { api } from "./gateway.js";
import * as measure from "./measure.js";
import { currency, request, state } from "./state.js";
import * as views from "./views.js";

const $ = views.$;

// The offers are redeemed by the shop's server with the basket as it is now. Where that fails nothing
// is paid: the offer goes, and the button says what is due without it.
async function redeemed(total) {
  const offers = (state.decided?.offers ?? []).filter((one) => !checkout.isOver(one, state.clock));
  if (offers.length === 0) return true;
  const { visitor_id, cart } = request();
  const taken = delivery();
  const order = {
    visitor_id,
    order_id: crypto.randomUUID(),
    cart,
    total,
    shipping: taken ? { id: taken.id, price: taken.price } : null,
    offers: offers.map(({ offer_id, offer_token }) => ({ offer_id, offer_token })),
  };
  $("pay").disabled = true;
  try {
    await api.pay(order).catch(() => api.pay(order)); // the same order: an answer may have been lost
    return true;
  } catch (error) {
    withoutOffers();
    views.showTrouble(`The offer was not redeemed: ${error.message} What is due is without it.`);
    return false;
  } finally {
    $("pay").disabled = false;
  }
}

export async function pay() {
  const pieces = state.lines.reduce((sum, line) => sum + line.quantity, 0);
  const total = paintDue();
  if (!(await redeemed(total))) return;
  measure.tell("add_payment_info", state.lines, { payment_type: chosen("payment"), shipping_tier: chosen("shipping") });
  $("paid-text").textContent = `${count(pieces, "item", "items")} for ${money(total, currency())}.`;
  $("paid").showModal();
}
