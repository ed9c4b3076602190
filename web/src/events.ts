// From GA4's words to the gateway's: the same names, amounts in minor units, and only what the gateway
// takes. What can not be said rightly is left out rather than guessed.

import { withoutCards } from "./cards.ts";
import type { EventName, Ga4Parameters } from "./tillwise";

export interface EventItem {
  item_id: string;
  quantity: number;
  price: number | undefined;
  index: number | undefined;
}

/** What is undefined is not sent. */
export interface EventBody {
  event_name: EventName;
  items?: EventItem[] | undefined;
  search_term?: string | undefined;
  [more: string]: unknown;
}

// Neither purchase nor refund: a page's key may not send them.
const NAMES =
  /^((view|select)_(item|promotion)|view_(item_list|cart)|search|(add_to|remove_from)_cart|begin_checkout|add_(shipping|payment)_info|page_(view|dwell)|click|hover|scroll|feedback)$/;
const NEED_ITEMS = /_item$|_(to|from)_|hover|feed/; // of those names
const MOST_ITEMS = 50;
const MOST_MINOR = 1e12;
const LONGEST = 200;
const LONGEST_ID = 128;
const DAY_MS = 864e5;

/** The body of an event, or undefined when the gateway would not take it from a page. */
export function bodyOf(
  said: string,
  parameters: Ga4Parameters,
  usual?: string,
): EventBody | undefined {
  const name = said === "view_search_results" ? "search" : said;
  const lines = Array.isArray(parameters.items) ? parameters.items : [];
  const currency = parameters.currency || lines[0]?.currency || usual;
  const exponent = exponentOf(currency);
  const items = lines
    .slice(0, MOST_ITEMS)
    .map((line) => ({
      item_id: clipped(line?.item_id, LONGEST_ID),
      quantity: whole(line?.quantity, 1, 1e6) || 1,
      price: minor(line?.price, exponent),
      index: whole(line?.index, 0, 1e5),
    }))
    .filter((item) => item.item_id);
  const text = (field: string): string | undefined =>
    clipped(withoutCards(clipped(parameters[field])).trim(), LONGEST) || undefined;
  const search_term = text("search_term");
  if (
    !NAMES.test(name) ||
    (NEED_ITEMS.test(name) && !items.length) ||
    (name === "search" && !search_term)
  ) {
    return undefined;
  }
  return {
    event_name: name as EventName,
    items: items.length ? items : undefined,
    value: minor(parameters.value, exponent),
    currency: exponent === undefined ? undefined : currency,
    coupon: text("coupon"),
    payment_type: text("payment_type"),
    shipping_tier: text("shipping_tier"),
    search_term,
    engagement_ms: whole(parameters.engagement_ms, 0, DAY_MS),
    percent_scrolled: whole(parameters.percent_scrolled, 0, 100),
    feedback: name === "feedback" ? text(name) : undefined, // the gateway knows the words
  };
}

/** How many digits a currency has after the point; undefined when it is none. */
const exponentOf = (currency: unknown): number | undefined =>
  /^[A-Z]{3}$/.test(currency as string)
    ? new Intl.NumberFormat("en", {
        style: "currency",
        currency: currency as string,
      }).resolvedOptions().maximumFractionDigits
    : undefined;

/** 19.99 or "19.99" as 1999; as decimal text, because 1.005 * 100 is not 100.5. */
export const minor = (amount: unknown, exponent: number | undefined): number | undefined =>
  /^\d+(\.\d+)?$/.test(amount as string) ? whole(+`${amount}e${exponent}`, 0, MOST_MINOR) : undefined;

function whole(number: unknown, least: number, most: number): number | undefined {
  const rounded = Math.round(parseFloat(number as string));
  return rounded >= least && rounded <= most ? rounded : undefined;
}

// Halves of characters go: the gateway would refuse a whole batch for one.
const clipped = (text: unknown, most?: number): string =>
  /str|num/.test(typeof text)
    ? [...String(text).replace(/[\ud800-\udfff]/gu, "")].slice(0, most).join("")
    : "";
