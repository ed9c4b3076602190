// How the snippet touches the page: whatever goes wrong there or here, the page does not hear of it.

/** What `act` gives, or undefined when it fails. */
export function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}

/** Calls `act` until `signal` says that it is over. */
export const on = (
  target: EventTarget,
  name: string,
  act: (event: Event) => void,
  signal: AbortSignal,
  capture = false,
): void =>
  target.addEventListener(name, (event) => attempt(() => act(event)), {
    capture,
    passive: true,
    signal,
  });

/** Answer and text, or undefined when there is none: no network, too late, or `limit` ended it. */
export async function post(
  url: string,
  body: unknown,
  bearer: string | undefined,
  timeoutMs: number,
  limit: AbortController,
  more?: RequestInit,
): Promise<[Response, string] | undefined> {
  const timer = setTimeout(() => limit.abort(), timeoutMs);
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        ...(bearer && { Authorization: `Bearer ${bearer}` }),
      },
      body: JSON.stringify(body),
      signal: limit.signal,
      ...more,
    });
    return [answer, await answer.text()];
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
