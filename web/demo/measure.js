// What this shop tells the snippet: who shops and what was agreed to by its own commands, what happened
// in GA4's words through the data layer, as a shop with Google Tag Manager does.

import { digits } from "./format.js";

const layer = (window.dataLayer ||= []);
const LONGEST_MS = 1500; // then what was told is taken to be lost

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

let act = null;
let since = 0;
let timer = 0;

// Calls `then` once the gateway has answered to what was told before this call: the browser notes when
// each of the snippet's requests began and ended.
export function whenHeard(then) {
  act = then;
  since = performance.now();
  clearTimeout(timer);
  timer = setTimeout(heard, LONGEST_MS);
}

function heard() {
  clearTimeout(timer);
  const then = act;
  act = null;
  then?.();
}

new PerformanceObserver((seen) => {
  const sent = seen.getEntries().filter(({ name }) => new URL(name).pathname === "/v1/events");
  if (act && sent.some(({ startTime }) => startTime >= since)) heard();
}).observe({ type: "resource" });
