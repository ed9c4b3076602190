// The page's side of the shop's server. Every call may fail: the checkout goes on without it.

const TIMEOUT_MS = 4000;

export class GatewayError extends Error {}

export const api = {
  shoppers: (signal) => call("api/shoppers", { signal }),
  search: (words, signal) =>
    call(`api/items?q=${encodeURIComponent(words)}`, { signal }).then((found) => found.items),
  named: (ids, signal) =>
    call(`api/items?ids=${ids.map(encodeURIComponent).join(",")}`, { signal }).then((found) => found.items),
  aisles: () => call("api/aisles", {}),
  aisle: ({ department, aisle }, from) => call(`api/items?${new URLSearchParams({ department, aisle, from })}`, {}),
  decide: (request, signal) => post("api/decide", request, signal, toldWhen),
  standing: (about, signal) => post("api/standing", about, signal),
  consent: (said) => post("api/consent", said),
  erase: (about) => post("api/erase", about),
  written: (name, signal) => call(`api/written/${name}`, { signal }),
  save: (name, written) => send("PUT", `api/written/${name}`, written),
  dryRun: (name, text) => send("POST", `api/dry-run/${name}`, { text }, { limitMs: 30_000 }),
  pay: (order) => post("api/pay", order),
};

const send = (method, path, body, rest) =>
  call(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...rest });
const post = (path, body, signal, read) => send("POST", path, body, { signal, read });

// The answer, and the gateway's own time when it gave it, in milliseconds.
const toldWhen = async (answer) => ({
  ...(await answer.json()),
  toldAt: Date.parse(answer.headers.get("Gateway-Time")),
});

async function call(path, { signal, limitMs = TIMEOUT_MS, read = (answer) => answer.json(), ...rest }) {
  const limit = AbortSignal.timeout(limitMs);
  const either = signal ? AbortSignal.any([signal, limit]) : limit;
  let answer;
  try {
    answer = await fetch(path, { ...rest, signal: either, credentials: "same-origin" });
    if (answer.ok) return await read(answer);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new GatewayError("The recommendation service can not be reached.");
  }
  throw new GatewayError(await explain(answer));
}

// What a problem response (RFC 9457) says for people.
async function explain(answer) {
  if (answer.status === 429) return "The recommendation service is busy.";
  try {
    const problem = await answer.json();
    return problem.detail || problem.title || `The service answered ${answer.status}.`;
  } catch {
    return `The service answered ${answer.status}.`;
  }
}

// Runs the newest of many calls: it waits until things are quiet for a moment, ends the call before
// it, and hands on no answer but the newest one's.
export function latest(work, waitMs) {
  let timer = 0;
  let running = null;
  let number = 0;
  return (done, failed, { now = false } = {}) => {
    const mine = ++number;
    clearTimeout(timer);
    running?.abort();
    const start = async () => {
      running = new AbortController();
      try {
        const answer = await work(running.signal);
        if (mine === number) done(answer);
      } catch (error) {
        if (mine === number) failed(error);
      }
    };
    timer = setTimeout(start, now ? 0 : waitMs);
  };
}
