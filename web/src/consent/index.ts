// From whoever asks the shopper to the snippet. `data-platform` names one that is known here; any other
// is an object with `follow`, pushed to `tillwiseConsent`. It stores nothing and asks nobody.

import { attempt } from "../page.ts";
import type { ConsentPlatform, Purposes } from "../tillwise";
import { google } from "./google.ts";
import { type TcfApi, tcf } from "./tcf.ts";

const { platform, layer = "dataLayer" } =
  (document.currentScript as HTMLScriptElement | null)?.dataset ?? {};
const globals = window as unknown as Record<string, unknown>;

const tell = (purposes: Required<Purposes>): void =>
  void (window.tillwise ||= []).push(["consent", purposes]);

const plug = (one: ConsentPlatform): void => void attempt(() => one.follow(tell));

const before = window.tillwiseConsent;
// Loaded twice, the first stays.
if (!before || Array.isArray(before)) {
  window.tillwiseConsent = {
    push(...platforms) {
      platforms.forEach(plug);
      return platforms.length;
    },
  };
  if (platform === "google") plug(google((globals[layer] ||= []) as unknown[]));
  if (platform === "tcf") plug(tcf(globals.__tcfapi as TcfApi)); // the banner's stub comes first
  (before ?? []).forEach(plug);
}
