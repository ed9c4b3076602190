// Who the shopper is: random ids, made and kept only under consent.

import { IDS, read, write } from "./storage.ts";
import type { Ids } from "./tillwise";

const SESSION_MS = 18e5; // half an hour without anything begins another session

interface Kept {
  visitor?: string;
  session?: string;
  seen: number;
}

let kept: Kept | undefined;
let own: Partial<Ids> = {};

/** Whether consent was in force here before. Reads storage: only to be called under consent. */
export const isKnown = (): boolean => !!read(IDS);

/** The ids of this moment. Reads and writes storage: only to be called under consent. */
export function currentIds(): Ids {
  const now = Date.now();
  kept ??= { seen: 0, ...(read(IDS) as Kept | null) };
  if (!(now - kept.seen < SESSION_MS)) kept.session = "";
  kept.seen = now;
  const ids = {
    visitor_id: own.visitor_id || (kept.visitor ||= crypto.randomUUID()),
    session_id: own.session_id || (kept.session ||= crypto.randomUUID()),
  };
  write(IDS, kept);
  return ids;
}

export const useOwn = (ids: Partial<Ids>): void => void (own = ids);

export function forget(): void {
  kept = undefined;
  write(IDS, null);
}
