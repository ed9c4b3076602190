// What the shop makes of the shopper: segments with why and since when, the word on file; and the way
// out, an erasure with its receipt.

import { count, make, money } from "./format.js";
import { currency } from "./state.js";

const $ = (id) => document.getElementById(id);
const KINDS = { rule: "Rule", contextual: "Context", learned: "Learned" };
// The gateway's clock, which stands in UTC where its data do.
const moments = new Intl.DateTimeFormat("en-US", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
const moment = (text) => moments.format(new Date(text));

// `standing`: as the shop's server says it, null where it could not. `fresh`: names that are new.
export function showSegments(standing, personal, fresh) {
  const told = standing?.segments;
  const segments = personal ? (told?.segments ?? []) : [];
  $("segments").replaceChildren(...segments.map((one) => segment(one, fresh.has(one.name))));
  $("segments-empty").hidden = segments.length > 0;
  $("segments-empty").textContent =
    standing === null
      ? "The segments can not be told right now."
      : personal
        ? "None yet: nothing is known."
        : "None. Without consent nothing is looked at.";
  $("as-of").textContent = told ? `As of ${moment(told.as_of)}` : "";
}

function segment({ name, title, kind, since, since_exact, why }, fresh) {
  const began = since === null ? null : `since ${since_exact ? "" : "before "}${moment(since)}`;
  return make(
    "li",
    { "data-segment": name, class: fresh ? "fresh" : null },
    make(
      "p",
      { class: "segment-head" },
      make("strong", {}, title[0].toUpperCase() + title.slice(1)),
      fresh && make("span", { class: "new" }, "New"),
    ),
    make("p", { class: "brand" }, [KINDS[kind], began].filter(Boolean).join(", ")),
    make("ul", { class: "why" }, ...why.map((one) => make("li", {}, told(one, kind)))),
  );
}

// The gateway says money in minor units of the catalogue's currency.
function told({ figure, value, threshold, text }, kind) {
  if (figure !== "spend_per_order") return text;
  const [own, held] = [value, threshold].map((one) => money(Math.round(one), currency()));
  return `${own} per order on average (${kind === "learned" ? "this segment" : "at least"} ${held})`;
}

// The proof of the word: when and under which wording.
export function wordOnFile(standing) {
  const held = standing?.consent;
  if (!held?.recorded_at) return "Nothing is recorded.";
  const word = held.purposes.offers ? "Agreed to both" : held.purposes.personalization ? "Agreed" : "Refused";
  const wording = held.wording_version ? `, wording ${held.wording_version}` : "";
  return `On record: ${word.toLowerCase()} on ${moment(held.recorded_at)} (${held.source}${wording}).`;
}

// `erase()` gives the signed receipt and the gateway's state folder, or throws what to say.
export function openErasing(erase) {
  const dialog = $("erasing");
  let address = null;

  function say(title, text, { asks = false, done = false } = {}) {
    $("erasing-title").textContent = title;
    $("erasing-text").textContent = text;
    $("erasing-do").hidden = !asks;
    $("erasing-close").textContent = asks ? "Keep it" : "Close";
    $("erasing-tick").hidden = $("receipt").hidden = !done;
  }

  async function act() {
    $("erasing-do").disabled = true;
    try {
      const { signed, state } = await erase();
      const { receipt } = signed;
      const file = `receipt-${receipt.receipt_id}.json`;
      const text = JSON.stringify(signed, null, 2);
      address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      $("receipt-download").href = address;
      $("receipt-download").download = file;
      $("receipt-text").textContent = text;
      $("receipt-check").textContent = `.venv/bin/tillwise-serve receipt verify ${file} --state ${state}`;
      const keys = count(receipt.keys_destroyed, "key", "keys");
      const events = count(receipt.events_removed, "event", "events");
      say("Erased", `${keys} destroyed and ${events} removed. The shop does not know you any more.`, { done: true });
    } catch (error) {
      say("Not erased", error.message);
    }
    $("erasing-do").disabled = false;
    $("erasing-title").focus();
  }

  $("erasing-do").addEventListener("click", act);
  $("erasing-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (address) URL.revokeObjectURL(address);
    address = null;
  });
  return (label) => {
    say(
      "Erase everything?",
      `All that this gateway holds about ${label}: what was looked at and bought, consent, ids. It can not be undone.`,
      { asks: true },
    );
    dialog.showModal();
  };
}
