import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { openQueue, type QueuedEvent } from "../src/queue.ts";

interface Posted {
  url: string;
  init: RequestInit;
  ids: string[];
}

const kept = new Map<string, string>();
let posted: Posted[] = [];
let beacons: string[] = [];
let answer: (ids: string[]) => Response | Promise<Response> = () => new Response("{}", { status: 202 });
let agreed = true;

mock.timers.enable({ apis: ["setTimeout", "Date"] });
Object.assign(globalThis, {
  localStorage: {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => void kept.set(name, value),
    removeItem: (name: string) => void kept.delete(name),
  },
  fetch: async (url: string, init: RequestInit) => {
    const ids = idsIn(init.body as string);
    posted.push({ url, init, ids });
    return answer(ids);
  },
});
Object.defineProperty(globalThis, "navigator", {
  value: { sendBeacon: (url: string, body: string) => !!beacons.push(`${url} ${idsIn(body).join()}`) },
});

const idsIn = (body: string): string[] => JSON.parse(body).events.map((one: QueuedEvent) => one.event_id);
const inStorage = (): string[] =>
  JSON.parse(kept.get("tillwise.queue") ?? "[]").map((one: QueuedEvent) => one.event_id);
const opened = () => openQueue({ url: "https://gateway.example", key: "tw_collect_x" }, () => agreed);
const event = (id: number | string): QueuedEvent => ({
  event_id: `e${id}`,
  event_name: "page_view",
  occurred_at: "2026-11-20T12:00:00.000Z",
  visitor_id: "v",
  session_id: "s",
  consent: { personalization: true, analytics: true, offers: false },
});
const no = (id: number | string): QueuedEvent => ({
  ...event(id),
  consent: { personalization: false, analytics: false, offers: false },
});
const ids = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, n) => `e${from + n}`);

async function pass(ms: number): Promise<void> {
  mock.timers.tick(ms);
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

beforeEach(() => {
  kept.clear();
  posted = [];
  beacons = [];
  agreed = true;
  answer = () => new Response("{}", { status: 202 });
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
});

test("a few events wait for one another, many do not", async () => {
  const queue = opened();
  queue.add(event(1));
  await pass(300);
  queue.add(event(2));
  assert.equal(posted.length, 0);
  await pass(200);
  assert.deepEqual(posted.map((one) => one.ids), [["e1", "e2"]]);
  const { url, init } = posted[0] as Posted;
  assert.equal(url, "https://gateway.example/v1/events");
  assert.equal((init.headers as Record<string, string>).Authorization, "Bearer tw_collect_x");
  assert.equal(init.credentials, "omit");
  for (let n = 10; n < 30; n++) queue.add(event(n));
  await pass(0);
  assert.deepEqual(posted[1]?.ids, ids(10, 30));
  await pass(60_000);
  assert.equal(posted.length, 2);
  assert.equal(kept.size, 0);
});

test("what the gateway refuses for good is not sent again", async () => {
  const queue = opened();
  for (const status of [401, 403, 404]) {
    answer = () => new Response("{}", { status });
    queue.add(event(status));
    await pass(600_000);
  }
  assert.deepEqual(posted.map((one) => one.ids), [["e401"], ["e403"], ["e404"]]);
});

test("without an answer it waits longer each time, keeps at most 200, and loses none of them", async () => {
  const queue = opened();
  answer = () => Promise.reject(new TypeError("no network"));
  const at: number[] = [];
  queue.add(event(0));
  for (let s = 0; s < 120; s++) {
    const before = posted.length;
    await pass(1_000);
    if (posted.length > before) at.push(s);
  }
  const pauses = at.slice(1).map((one, n) => one - (at[n] as number));
  assert.ok(at.length >= 4 && at.length <= 8, `tried at ${at.join()}`);
  assert.ok((pauses.at(-1) as number) >= 2 * (pauses[0] as number), `pauses ${pauses.join()}`);
  for (let n = 1; n < 300; n++) queue.add(event(n));
  await pass(300_000);
  assert.deepEqual(inStorage(), ids(100, 300));
  answer = () => new Response("{}", { status: 202 });
  posted = [];
  queue.goOn();
  for (let turn = 0; turn < 10; turn++) await pass(2_000);
  assert.deepEqual(posted.flatMap((one) => one.ids), ids(100, 300));
  assert.ok(posted.every((one) => one.ids.length <= 50));
  assert.equal(kept.size, 0);
});

test("Retry-After is kept to, whatever happens to the page", async () => {
  const queue = opened();
  answer = () => new Response("", { status: 429, headers: { "Retry-After": "120" } });
  queue.add(event(1));
  await pass(2_000);
  assert.equal(posted.length, 1);
  queue.goOn();
  queue.onHidden();
  queue.leave();
  for (let n = 2; n < 40; n++) queue.add(event(n));
  await pass(119_000);
  assert.equal(posted.length, 1);
  assert.deepEqual(beacons, []);
  answer = () => new Response("{}", { status: 202 });
  await pass(2_000);
  assert.deepEqual(posted[1]?.ids, ids(1, 40));
});

test("Retry-After may be a date", async () => {
  const queue = opened();
  const until = new Date(1e12 + 62_000).toUTCString();
  answer = () => new Response("", { status: 503, headers: { "Retry-After": until } });
  queue.add(event(1));
  await pass(2_000);
  await pass(58_000);
  assert.equal(posted.length, 1);
  await pass(3_000);
  assert.equal(posted.length, 2);
});

test("one event that spoils its batch is found and given up, the others arrive", async () => {
  const queue = opened();
  const arrived: string[] = [];
  answer = (sent) => {
    if (sent.includes("e7")) return new Response("{}", { status: 400 });
    arrived.push(...sent);
    return new Response("{}", { status: 202 });
  };
  for (let n = 0; n < 20; n++) queue.add(event(n));
  for (let turn = 0; turn < 20; turn++) await pass(2_000);
  assert.deepEqual(arrived.sort(), ids(0, 20).filter((one) => one !== "e7").sort());
  assert.ok(posted.length <= 20);
});

test("a page that goes sends what waits, and the next page sends it again with the same ids", async () => {
  const first = opened();
  for (let n = 0; n < 5; n++) first.add(event(n));
  first.leave();
  assert.deepEqual(beacons, [`https://gateway.example/v1/events?key=tw_collect_x ${ids(0, 5).join()}`]);
  assert.deepEqual(inStorage(), ids(0, 5));
  const next = opened();
  next.takeUp();
  await pass(2_000);
  assert.deepEqual(posted.at(-1)?.ids, ids(0, 5));
  assert.equal(kept.size, 0);
});

test("an answer takes its own events out of what is kept, not another tab's", async () => {
  const [one, other] = [opened(), opened()];
  one.add(event("a"));
  other.add(event("b"));
  one.leave();
  other.leave();
  assert.deepEqual(inStorage(), ["ea", "eb"]);
  one.goOn();
  await pass(0);
  assert.deepEqual(inStorage(), ["eb"]);
});

test("withdrawing empties everything, ends the request under way, and nothing follows", async () => {
  const queue = opened();
  let ended = false;
  answer = () =>
    new Promise((_, fail) => {
      const { signal } = (posted.at(-1) as Posted).init;
      signal?.addEventListener("abort", () => {
        ended = true;
        fail(new DOMException("", "AbortError"));
      });
    });
  queue.add(event(1));
  queue.onHidden();
  await pass(0);
  assert.equal(posted.length, 1);
  agreed = false;
  queue.narrow();
  await pass(600_000);
  assert.ok(ended);
  assert.equal(posted.length, 1);
  assert.equal(kept.size, 0);
});

test("a no is kept and sent until it is answered, over pages, and nothing else is", async () => {
  const queue = opened();
  queue.add(event(1));
  queue.onHidden();
  queue.add(no(2));
  agreed = false;
  queue.narrow();
  posted = [];
  answer = () => new Response("", { status: 503 });
  queue.leave();
  assert.deepEqual(beacons, ["https://gateway.example/v1/events?key=tw_collect_x e2"]);
  assert.deepEqual(inStorage(), ["e2"]);
  await pass(500);
  queue.narrow(); // the same again, as banners do
  await pass(5_000);
  assert.ok(posted.length > 1);
  const next = opened();
  next.takeUp();
  next.narrow();
  answer = () => new Response("{}", { status: 202 });
  await pass(500);
  assert.ok(posted.every((one) => one.ids.join() === "e2"));
  assert.equal(kept.size, 0);
  await pass(600_000);
  assert.equal(kept.size, 0);
});

test("before consent a page sends a no alone; what else is kept waits for a yes", async () => {
  kept.set("tillwise.queue", JSON.stringify([event(1), no(2), event(3)]));
  agreed = false;
  const queue = opened();
  queue.takeUp();
  await pass(60_000);
  assert.deepEqual(posted.map((one) => one.ids), [["e2"]]);
  assert.deepEqual(inStorage(), ["e1", "e3"]);
  agreed = true;
  queue.add(event(4));
  await pass(500);
  assert.deepEqual(posted[1]?.ids, ["e1", "e3", "e4"]);
});

test("a yes takes the place of a no that was not answered", async () => {
  const queue = opened();
  agreed = false;
  queue.add(no(1));
  queue.leave();
  agreed = true;
  queue.narrow({ personalization: true, analytics: true, offers: true });
  assert.equal(kept.size, 0);
  queue.add(event(2));
  await pass(2_000);
  assert.deepEqual(posted.map((one) => one.ids), [["e2"]]);
});

test("less consent holds for what waits, too; more does not", async () => {
  const queue = opened();
  queue.add(event(1));
  queue.onHidden();
  queue.narrow({ personalization: false, analytics: true, offers: true });
  await pass(0);
  queue.add(event(2));
  await pass(5_000);
  const consents = posted.flatMap((one) => JSON.parse(one.init.body as string).events).map((one) => one.consent);
  assert.deepEqual(consents.at(-1), { personalization: true, analytics: true, offers: false });
  const late = opened();
  late.add(event(3));
  late.narrow({ personalization: false, analytics: true, offers: true });
  await pass(2_000);
  const { events } = JSON.parse(posted.at(-1)?.init.body as string);
  // Nor is its no told any more: it would undo the yes.
  assert.deepEqual(events[0].consent, { personalization: false, analytics: true });
  late.add(event(4));
  late.narrow({ personalization: false, analytics: false, offers: true });
  await pass(5_000);
  assert.ok(!posted.some((one) => one.ids.includes("e4")));
});

test("what other scripts wrote into the store harms nothing", async () => {
  for (const held of ["{", "7", '"x"', '[null, 1, {"event_id": "x"}]', '{"a": 1}']) {
    kept.set("tillwise.queue", held);
    const queue = opened();
    queue.takeUp();
    queue.add(event(1));
    await pass(2_000);
    assert.deepEqual(posted.at(-1)?.ids, ["e1"], held);
  }
});
