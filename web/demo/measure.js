// What this shop tells the snippet: who shops and what was agreed to by its own commands, what happened
// in GA4's words through the data layer, as a shop with Google Tag Manager does.

import { digits } from "./format.js";

const layer = (window.dataLayer ||= []);

export function shopper({ visitor_id, session_id }, consent) {
  (window.tillwise ||= []).push(["visitor", { visitor_id, session_id }], ["consent", consent]);
}

// `lines`: [{ item, quantity }]
export function tell(event, lines, more = {}) {
  const currency = lines[0]?.item.currency;
  const items = lines.map(({ item, quantity }, index) => ({
    item_id: item.item_id,
    item_name: item.title,
    quantity: quantity ?? 1,
    index,
    ...(item.price !== null && { price: item.price / 10 ** digits(item.currency) }),
  }));
  layer.push({ ecommerce: null }, { event, ecommerce: { currency, items, ...more } });
}
