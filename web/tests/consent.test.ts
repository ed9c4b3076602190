import assert from "node:assert/strict";
import { test } from "node:test";
import { google } from "../src/consent/google.ts";
import { type TcData, type TcfApi, tcf } from "../src/consent/tcf.ts";
import type { Purposes } from "../src/tillwise";

const NOTHING = { analytics: false, personalization: false, offers: false };

/** A data layer, and gtag as Google's own snippet defines it. */
function tagged() {
  const layer: unknown[] = [];
  function gtag(..._: unknown[]): void {
    // biome-ignore lint: Google's own form
    layer.push(arguments);
  }
  return { layer, gtag };
}

test("the shop's own setting is no word of the shopper", () => {
  const { layer, gtag } = tagged();
  const heard: Purposes[] = [];
  gtag("consent", "default", { analytics_storage: "granted", personalization_storage: "granted" });
  google(layer).follow((said) => heard.push(said));
  gtag("consent", "default", { ad_personalization: "granted" });
  gtag("event", "page_view", {});
  layer.push({ event: "gtm.js" }, null, "text");
  assert.deepEqual(heard, []);
  gtag("consent", "update", { analytics_storage: "granted" });
  assert.deepEqual(heard, [{ ...NOTHING, analytics: true }]);
});

test("of the words before only the last is told, and each later one", () => {
  const { layer, gtag } = tagged();
  const heard: Purposes[] = [];
  gtag("consent", "update", { analytics_storage: "granted", personalization_storage: "granted" });
  gtag("consent", "update", { personalization_storage: "denied" });
  google(layer).follow((said) => heard.push(said));
  assert.deepEqual(heard, [{ ...NOTHING, analytics: true }]);
  gtag("consent", "update", { personalization_storage: "granted", ad_personalization: "granted" });
  assert.deepEqual(heard.at(-1), { analytics: true, personalization: true, offers: true });
  gtag("consent", "update", {
    analytics_storage: "denied",
    personalization_storage: "denied",
    ad_personalization: "denied",
  });
  assert.deepEqual(heard.at(-1), NOTHING);
  assert.equal(layer.length, 4);
});

/** A banner of the framework, whose listeners hear what `say` tells them. */
function banner() {
  let told: Parameters<TcfApi>[2] = () => assert.fail("nobody listens");
  const api: TcfApi = (command, version, callback) => {
    assert.deepEqual([command, version], ["addEventListener", 2]);
    told = callback;
  };
  const heard: Purposes[] = [];
  tcf(api).follow((said) => heard.push(said));
  const consents = (...numbers: number[]) => Object.fromEntries(numbers.map((one) => [one, true]));
  const say = (data: TcData | null, success = true): void => told(data, success);
  return { heard, consents, say };
}

test("a banner that is still shown, or fails, or applies to nobody has said nothing", () => {
  const { heard, consents, say } = banner();
  const all = { consents: consents(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) };
  say({ eventStatus: "cmpuishown", gdprApplies: true, purpose: all });
  say({ eventStatus: "tcloaded", gdprApplies: false, purpose: all });
  say({ eventStatus: "tcloaded", purpose: all });
  say({ eventStatus: "tcloaded", gdprApplies: true, purpose: all }, false);
  say(null);
  assert.deepEqual(heard, []);
});

test("a purpose needs everything that it is made of", () => {
  const { heard, consents, say } = banner();
  const ask = (...numbers: number[]) => {
    say({ eventStatus: "useractioncomplete", gdprApplies: true, purpose: { consents: consents(...numbers) } });
    return heard.at(-1);
  };
  assert.deepEqual(ask(1, 8), { ...NOTHING, analytics: true });
  assert.deepEqual(ask(8), NOTHING);
  assert.deepEqual(ask(1, 5, 6), { ...NOTHING, personalization: true });
  assert.deepEqual(ask(1, 5), NOTHING);
  assert.deepEqual(ask(1, 3, 4, 5, 6, 8), { analytics: true, personalization: true, offers: true });
  assert.deepEqual(ask(), NOTHING);
  say({ eventStatus: "tcloaded", gdprApplies: true });
  assert.deepEqual(heard.at(-1), NOTHING);
});
