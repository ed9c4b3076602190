// What the snippet keeps in the shop's own localStorage, only between consent and its withdrawal; a no
// until the gateway has answered it.
// Where a browser refuses storage, everything lives as long as the page.

import { attempt } from "./page.ts";

export const IDS = "tillwise";
export const QUEUE = "tillwise.queue";

export const read = (name: string): unknown =>
  attempt(() => JSON.parse(localStorage.getItem(name) as string));

/** Keeps `value`, or erases what is kept under the name when it is null. */
export const write = (name: string, value: unknown): void =>
  void attempt(() =>
    value === null ? localStorage.removeItem(name) : localStorage.setItem(name, JSON.stringify(value)),
  );
