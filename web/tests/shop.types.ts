// How a shop's own TypeScript uses the snippet. Only its types are checked: what is marked must fail.

import type { Decision } from "../src/tillwise";

(window.tillwise ||= []).push(
  ["init", { key: "tw_collect_x", currency: "EUR" }],
  ["consent", { analytics: true }],
  ["event", "add_to_cart", { currency: "EUR", items: [{ item_id: "a", price: 1.5 }] }],
  async (tillwise) => {
    const cart = { cart_id: "c", currency: "EUR", items: [{ item_id: "a", quantity: 1, price: 150 }] };
    const decision: Decision | null = await tillwise.decide({ cart });
    const first: string | undefined = decision?.recommendations[0]?.item_id;
    return void first;
  },
);
// @ts-expect-error a page may not send purchases
(window.tillwise ||= []).push(["event", "purchase", {}]);
// @ts-expect-error there is no such purpose
(window.tillwise ||= []).push(["consent", { marketing: true }]);
// @ts-expect-error an item has an id
(window.tillwise ||= []).push(["event", "view_item", { items: [{ price: 1 }] }]);
