// The page's side of Tillwise. Nothing at all happens before the shopper's consent, or under Global
// Privacy Control: no request, no storage, no id, no listener; but a no is told until it is answered.
// Nothing here can fail the page.

import { capture, type Page } from "./capture.ts";
import { follow } from "./data_layer.ts";
import { bodyOf, type EventBody } from "./events.ts";
import { currentIds, forget, isKnown, useOwn } from "./identity.ts";
import { attempt, on as listen, post } from "./page.ts";
import { openQueue } from "./queue.ts";
import { IDS } from "./storage.ts";
import type { Command, Decision, Ga4Parameters, Purposes, Settings, Tillwise } from "./tillwise";

// What is on the screen, as opposed to what was done.
const SCREENS = /view|search|begin/;
const TIMEOUT_MS = 2000;
const NOTHING = { personalization: false, analytics: false, offers: false };

const element = document.currentScript as HTMLScriptElement | null;
const settings: Settings = {
  url: element?.src ? new URL(element.src).origin : "",
  ...element?.dataset,
};
const shown = new Map<string, string>(); // suggested here: item to attribution token
let agreed: Required<Purposes> | undefined;
let life: AbortController | undefined;
let page: Page | undefined;
let lastSearch: string | undefined;

const gpc = (): boolean =>
  !!(navigator as Navigator & { globalPrivacyControl?: boolean }).globalPrivacyControl;

/** Whether consent is in effect at this moment; what is left of it is undone when it is not. */
function mayAct(): boolean {
  if (agreed && gpc()) withdraw();
  return !!agreed;
}

const queue = openQueue(settings, mayAct);

function record(name: string, parameters: Ga4Parameters = {}): void {
  const body = mayAct() && bodyOf(name, parameters, settings.currency);
  if (!body) return;
  const { event_name, items, search_term } = body;
  if (event_name === "page_view") lastSearch = undefined;
  if (event_name === "search") {
    // The address and the data layer may both say it.
    if (search_term === lastSearch) return;
    lastSearch = search_term;
  }
  if (event_name === "view_item") page?.about(parameters.items);
  send(agreed as Required<Purposes>, {
    ...body,
    context: context(),
    attribution_token: shown.get(items?.[0]?.item_id as string),
  });
}

const send = (consent: Required<Purposes>, body: EventBody): void =>
  queue.add({
    schema_version: 3,
    event_id: crypto.randomUUID(),
    occurred_at: new Date().toISOString(),
    ...currentIds(),
    ...body,
    consent,
  });

const context = () => ({
  device: !matchMedia("(pointer:coarse)").matches
    ? "desktop"
    : Math.min(screen.width, screen.height) < 600
      ? "mobile"
      : "tablet",
  timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
  country: settings.country,
  region: settings.region,
});

function start(): void {
  const { signal } = (life = new AbortController());
  // What was done on this page before its shopper agreed is not sent; what is on the screen is.
  const agreedBefore = isKnown() || navigator.userActivation?.hasBeenActive === false;
  currentIds();
  page = capture(record, signal);
  page.turned();
  follow(
    settings.layer || "dataLayer",
    (name) => agreedBefore || SCREENS.test(name),
    (name, parameters) => (name === "page_view" ? page?.turned() : record(name, parameters)),
  );
  let left = false;
  const on = (target: EventTarget, name: string, act: (event: Event) => void): void =>
    listen(target, name, act, signal);
  on(document, "visibilitychange", () => {
    if (left) return;
    page?.seen(!document.hidden);
    if (document.hidden) queue.onHidden();
    else queue.goOn();
  });
  on(window, "pagehide", () => {
    if (!document.hidden) page?.seen(false);
    left = true;
    queue.leave();
  });
  on(window, "pageshow", () => {
    if (!left) return; // the first time; from here on, the page has been away and is back
    left = false;
    page?.seen(true);
    queue.goOn();
  });
  on(window, "online", queue.goOn);
  // Withdrawn in another tab.
  on(window, "storage", (event) => {
    const { key, newValue } = event as StorageEvent;
    if (!key || (key === IDS && !newValue)) withdraw();
  });
}

function hear({ personalization, analytics, offers }: Purposes): void {
  if (gpc() || !(personalization || analytics)) {
    // A no is told to the gateway, which takes back what is on record; what is not said is no no.
    if (personalization === false && (agreed || isKnown())) send(NOTHING, { event_name: "page_view" });
    withdraw();
    return queue.leave(); // at once, for the page may go; it is kept, and sent again until answered
  }
  const running = agreed;
  agreed = { personalization: !!personalization, analytics: !!analytics, offers: !!offers };
  queue.narrow(agreed);
  if (!running) start();
}

function withdraw(): void {
  agreed = undefined;
  life?.abort();
  page = undefined;
  shown.clear();
  queue.narrow();
  forget();
}

const tillwise: Tillwise = {
  init(more) {
    Object.assign(settings, more);
    queue.goOn(); // what found no key before
  },
  consent: (said) => void attempt(() => hear(said)),
  visitor: (ids) => useOwn({ ...ids }),
  event: (name, parameters) => void attempt(() => record(name, parameters)),
  async decide(request, { token, timeout_ms = TIMEOUT_MS } = {}) {
    // Without consent nobody asks: ids for this one question, kept nowhere.
    const nobody = { visitor_id: crypto.randomUUID(), session_id: crypto.randomUUID() };
    const body = {
      ...request,
      ...(mayAct() ? currentIds() : nobody),
      consent: agreed ?? NOTHING,
      gpc: gpc(),
    };
    const limit = new AbortController();
    const url = settings.decide || `${settings.url}/v1/checkout/decide`;
    const answer = await post(url, body, token, timeout_ms, limit);
    const decision =
      answer?.[0].ok && attempt(() => JSON.parse(answer[1]) as Decision);
    if (!decision) return null;
    if (mayAct()) {
      for (const { item_id } of decision.recommendations ?? []) {
        shown.set(item_id, decision.attribution_token);
      }
    }
    return decision;
  },
  ids: () => (mayAct() ? currentIds() : null),
  push(...commands) {
    for (const command of commands) attempt(() => run(command));
    return commands.length;
  },
};

function run(command: Command): void {
  if (typeof command === "function") return command(tillwise);
  const [name, ...given] = command;
  (tillwise[name] as (...given: unknown[]) => void)(...given);
}

const before = window.tillwise;
// Loaded twice, the first stays.
if (!before || Array.isArray(before)) {
  window.tillwise = tillwise;
  queue.takeUp();
  tillwise.push(...(before ?? []));
}
