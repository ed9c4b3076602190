// Pages that already speak GA4 through Google Tag Manager: what they push is read, in both forms,
// `dataLayer.push({ event, ecommerce })` and `gtag("event", name, parameters)`.

import { attempt } from "./page.ts";
import type { Ga4Parameters } from "./tillwise";

/** Event and parameters of an entry, or undefined when it is none. */
export function eventIn(entry: unknown): [string, Ga4Parameters] | undefined {
  const called = entry as ArrayLike<unknown>; // gtag pushes its arguments as they are
  if (called[0] === "event") return [String(called[1]), { ...(called[2] as Ga4Parameters) }];
  const { event, ecommerce, ...rest } = entry as Record<string, unknown>;
  return event ? [String(event), { ...rest, ...(ecommerce as object) }] : undefined;
}

let followed = false;

/** Reads what was pushed so far (as far as `wanted`) and whatever will be; once in a page. */
export function follow(
  name: string,
  wanted: (name: string) => boolean,
  take: (name: string, parameters: Ga4Parameters) => void,
): void {
  if (followed) return;
  followed = true;
  const layers = window as unknown as Record<string, unknown[]>;
  const layer = (layers[name] ||= []);
  const { push } = layer;
  const takeAll = (entries: unknown[], all: boolean): void =>
    entries.forEach((entry) =>
      attempt(() => {
        const found = eventIn(entry);
        if (found && (all || wanted(found[0]))) take(...found);
      }),
    );
  layer.push = (...entries) => {
    const length = push.apply(layer, entries);
    takeAll(entries, true);
    return length;
  };
  takeAll([...layer], false);
}
