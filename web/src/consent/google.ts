// Google's consent mode: what a banner tells with gtag("consent", "update", {...}). A "default" is the
// shop's own setting and no shopper's word, so it is not listened to.

import { attempt } from "../page.ts";
import type { ConsentPlatform } from "../tillwise";

/** Listens to `layer`, the data layer of the page. */
export const google = (layer: unknown[]): ConsentPlatform => ({
  follow(hear) {
    const said: Record<string, unknown> = {};
    const note = (entry: unknown): boolean => {
      // gtag pushes its arguments as they are.
      const [command, kind, word] = Array.from(entry as ArrayLike<unknown>);
      const told = command === "consent" && kind === "update";
      if (told) Object.assign(said, word);
      return told;
    };
    const take = (entries: unknown[]): void => {
      if (!entries.map((entry) => attempt(() => note(entry))).includes(true)) return;
      const granted = (name: string): boolean => said[name] === "granted";
      hear({
        analytics: granted("analytics_storage"),
        personalization: granted("personalization_storage"),
        offers: granted("ad_personalization"),
      });
    };
    const { push } = layer;
    layer.push = (...entries) => {
      const length = push.apply(layer, entries);
      attempt(() => take(entries));
      return length;
    };
    take([...layer]); // of several words the last is the shopper's
  },
});
