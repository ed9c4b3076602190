// Events on their way: sent in batches, tried again until the gateway has answered, and kept over
// pages and outages, at most MOST of them. The gateway knows an event by its id, so what was sent
// twice counts once: nothing is given up while it may not have arrived. A no is an event, too: the
// only one that is kept and sent without consent.

import type { EventBody } from "./events.ts";
import { post } from "./page.ts";
import { QUEUE, read, write } from "./storage.ts";
import type { Ids, Purposes, Settings } from "./tillwise";

export interface QueuedEvent extends EventBody, Ids {
  schema_version?: 2 | 3; // none in what an earlier snippet has left
  event_id: string;
  occurred_at: string;
  consent: { [purpose in keyof Purposes]: boolean | undefined };
}

const MOST = 200;
const BATCH = 50;
const FULL = 20; // this many do not wait for more
const QUIET_MS = 500; // soon, because what was done counts for the next decision
const TIMEOUT_MS = 1e4;
const LONGEST_PAUSE_MS = 3e5;
const LONGEST_REFUSAL_MS = 36e5;
const MOST_BEHIND = 2e4; // browsers send 64 KiB behind a page, and a character may take 3 bytes

/** `agreed` says whether consent is in effect; it calls `narrow` when it is not any more. */
export function openQueue(settings: Settings, agreed: () => boolean) {
  let waiting: QueuedEvent[] = []; // the oldest first
  let timer: ReturnType<typeof setTimeout> | 0 = 0;
  let running: AbortController | undefined;
  let failures = 0;
  let pausedUntil = 0; // after a failure
  let refusedUntil = 0; // the gateway's own word
  let most = BATCH;

  function schedule(ms = waiting.length < FULL ? QUIET_MS : 0): void {
    clearTimeout(timer);
    timer =
      waiting.length && !running
        ? setTimeout(flush, Math.max(ms, pausedUntil - Date.now(), refusedUntil - Date.now()))
        : 0;
  }

  async function flush(): Promise<void> {
    timer = 0;
    const batch = ready().slice(0, most);
    if (running || !batch.length) return;
    const mine = (running = new AbortController());
    const answer = await post(
      `${settings.url}/v1/events`,
      { events: batch },
      settings.key,
      TIMEOUT_MS,
      mine,
      {
        credentials: "omit",
        keepalive: JSON.stringify(batch).length < MOST_BEHIND,
        referrerPolicy: "no-referrer",
      },
    );
    if (running !== mine) return; // consent was withdrawn meanwhile
    running = undefined;
    settle(batch, answer?.[0]);
    schedule();
  }

  function settle(batch: QueuedEvent[], answer: Response | undefined): void {
    const status = `${answer?.status ?? 0}`;
    if (/^(0|408|429|5)/.test(status)) {
      pausedUntil = Date.now() + Math.min(500 * 2 ** ++failures, LONGEST_PAUSE_MS) * (1 + Math.random());
      const said = answer?.headers.get("Retry-After") as string; // or none, which is no number
      // Seconds, or a date.
      const ms = Number(said) * 1000 || Date.parse(said) - Date.now() || 0;
      refusedUntil = Date.now() + Math.min(ms, LONGEST_REFUSAL_MS);
      keep();
      return;
    }
    failures = pausedUntil = 0;
    if (/4(00|13|22)/.test(status) && batch.length > 1) {
      most = batch.length >> 1; // one of them spoils it, or it is too large
      return;
    }
    // Answered: accepted, known already, or refused for good. None of them is tried again.
    most = BATCH;
    waiting = without(waiting, batch);
    store(without(stored(), batch));
  }

  const ready = (): QueuedEvent[] => (settings.key ? withWord(waiting, agreed()) : []);
  // Other tabs keep theirs in the same place.
  const all = (): QueuedEvent[] => [...without(stored(), waiting), ...waiting].slice(-MOST);
  const keep = (): void => store(all());

  return {
    add(event: QueuedEvent): void {
      waiting = [...waiting, event].slice(-MOST);
      if (!timer || waiting.length >= FULL) schedule();
    },

    /** What earlier pages could not be sure to have sent. Without consent only a no of it leaves. */
    takeUp(): void {
      waiting = all();
      schedule();
    },

    /** The page is hidden and may never come back: now, and kept until it is known to have arrived. */
    onHidden(): void {
      keep();
      if (Date.now() >= refusedUntil) void flush();
    },

    /** The page goes: nobody will read an answer any more. */
    leave(): void {
      keep();
      for (const going = ready(); going.length && Date.now() >= refusedUntil; ) {
        // As text, which needs no preflight that the page would not live to see answered.
        navigator.sendBeacon(
          `${settings.url}/v1/events?key=${settings.key}`,
          JSON.stringify({ events: going.splice(0, FULL) }),
        );
      }
    },

    /** The network is back, or the page. */
    goOn(): void {
      pausedUntil = 0;
      schedule(0);
    },

    /** What is agreed to now, or nothing. Less than before holds for what still waits, too. More does
     * not, but a no that waits is not told any more: it would arrive after the yes, and undo it. */
    narrow(left?: Required<Purposes>): void {
      const narrowed = (events: QueuedEvent[]): QueuedEvent[] => {
        for (const { consent } of events) {
          for (const purpose in left) {
            const name = purpose as keyof Purposes;
            consent[name] = left[name] ? consent[name] || undefined : consent[name] && false;
          }
        }
        return withWord(events, !!left);
      };
      waiting = narrowed(waiting);
      store(narrowed(stored()));
      if (left) return;
      running?.abort();
      running = undefined;
      failures = pausedUntil = 0;
      schedule();
    },
  };
}

function stored(): QueuedEvent[] {
  const held = read(QUEUE);
  // The page's other scripts can write there, too.
  return Array.isArray(held) ? held.filter((one) => one?.event_id && one.consent) : [];
}

const store = (events: QueuedEvent[]): void => write(QUEUE, events.length ? events : null);

const without = (events: QueuedEvent[], others: QueuedEvent[]): QueuedEvent[] =>
  events.filter((one) => !others.some((other) => other.event_id === one.event_id));

/** Those of `events` that were done under consent, or those that say a no. */
const withWord = (events: QueuedEvent[], yes: boolean): QueuedEvent[] =>
  events.filter(({ consent }) => yes === (consent.personalization || consent.analytics));
