// What the page sees of the shopper: views, clicks, rests of the pointer, depth, time. Elements say
// what they show with data-tillwise-item, -price, -quantity, -index, and -event for what a click means.

import { on } from "./page.ts";
import type { Ga4Item, Ga4Parameters } from "./tillwise";

type Take = (name: string, parameters?: Ga4Parameters) => void;

const ITEM = "[data-tillwise-item]";
const CLICKED = `[data-tillwise-event],${ITEM},a,button,[role=button],[type=submit]`;
const REST_MS = 300;
const LEAST_DWELL_MS = 500;
const SCROLL_MS = 200;
const TERM = /[?&](q|s|search|query|keyword)=([^&]+)/; // where GA4 looks for it

export interface Page {
  /** Another page is shown, if the address has changed. */
  turned(): void;
  /** These items are what the page is about. */
  about(items: Ga4Item[] | undefined): void;
  /** The page is not seen any more, or is again. */
  seen(visible: boolean): void;
}

export function capture(record: Take, signal: AbortSignal): Page {
  let address: string | undefined;
  let viewed: Ga4Item[] | undefined;
  let shownAt = 0;
  let visibleSince = 0;
  let percent_scrolled = 0;
  let rested: Element | null = null;
  let restedSince = 0;
  let measuring = false;

  function rest(element: Element | null): void {
    if (element === rested) return;
    const engagement_ms = Date.now() - restedSince;
    if (rested && engagement_ms > REST_MS) record("hover", { items: itemsOf(rested), engagement_ms });
    rested = element;
    restedSince = Date.now();
  }

  function seen(visible: boolean): void {
    rest(null);
    const engagement_ms = Date.now() - visibleSince;
    if (!visible && engagement_ms > LEAST_DWELL_MS) {
      record("page_dwell", { engagement_ms, items: viewed });
    }
    visibleSince = Date.now();
  }

  function turned(): void {
    const [here] = location.href.split("#");
    if (here === address || signal.aborted) return;
    if (address) seen(false);
    address = here;
    viewed = undefined;
    percent_scrolled = 0;
    shownAt = visibleSince = Date.now();
    record("page_view");
    const term = TERM.exec(location.search);
    if (term) record("search", { search_term: new URLSearchParams(`q=${term[2]}`).get("q") as string });
  }

  function measure(): void {
    measuring = false;
    const reached = (100 * (scrollY + innerHeight + 1)) / document.documentElement.scrollHeight;
    while (percent_scrolled < 100 && percent_scrolled + 25 <= reached && !signal.aborted) {
      percent_scrolled += 25;
      record("scroll", { engagement_ms: Date.now() - shownAt, percent_scrolled });
    }
  }

  const here = (name: string, act: (event: Event, item: Element | null) => void): void =>
    on(document, name, (event) => act(event, (event.target as Element).closest?.(ITEM) ?? null), signal, true);

  here("click", (event, item) => {
    const clicked = (event.target as Element).closest<HTMLElement>(CLICKED);
    if (!clicked) return;
    const { tillwiseEvent, tillwiseValue } = clicked.dataset;
    record(tillwiseEvent || "click", { items: itemsOf(item), value: tillwiseValue });
    setTimeout(turned); // a router may have gone to another page
  });
  here("pointerover", (event, item) => {
    if ((event as PointerEvent).pointerType !== "touch") rest(item);
  });
  // Out of the window; within it, another element is entered.
  here("pointerout", (event) => {
    if (!(event as PointerEvent).relatedTarget) rest(null);
  });
  here("scroll", (event) => {
    if (event.target !== document) return; // a list within the page
    if (!measuring) setTimeout(measure, SCROLL_MS);
    measuring = true;
  });
  // Only what a script handles: a real submit shows up in the next address.
  on(
    window,
    "submit",
    (event) => {
      const asked = (event.target as Element).querySelector<HTMLInputElement>("[type=search]");
      if (event.defaultPrevented && asked) record("search", { search_term: asked.value });
    },
    signal,
  );
  on(window, "popstate", turned, signal);
  const { navigation } = window as { navigation?: EventTarget };
  if (navigation) on(navigation, "navigatesuccess", turned, signal);

  return { turned, seen, about: (items) => void (viewed = items) };
}

function itemsOf(element: Element | null): Ga4Item[] {
  if (!element) return [];
  const said = (element as HTMLElement).dataset;
  return [
    {
      item_id: said.tillwiseItem as string,
      quantity: said.tillwiseQuantity,
      price: said.tillwisePrice,
      index: said.tillwiseIndex,
    },
  ];
}
