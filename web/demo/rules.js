// Rules and offers as text: read, tried on the demo's shoppers, saved. The key for it lies on the
// shop's server; what was wrong is said in the gateway's own words.

import { api } from "./gateway.js";
import { count, make, plain } from "./format.js";

const $ = (id) => document.getElementById(id);
const EXAMPLE = `rules:
- id: invoice-for-regulars
  title: Regulars are offered to pay by invoice first
  condition: shopper.orders >= 3
  priority: 10
  actions:
  - kind: order_payments
    first: [invoice]
`;
const PARTS = [
  ["items", "Products"],
  ["offers", "Offers"],
  ["payment_method_order", "Payment"],
  ["shipping_option_order", "Delivery"],
  ["rejected", "Not offered"],
  ["chances", "How likely"],
  ["held_out", "Held out by chance"],
  ["applied_rules", "Rules followed"],
];
const held = { rules: 0, offers: 0 }; // the versions that the texts were read from
const titles = new Map(); // of offers, ways to pay and to be delivered, items

function told(name, kind, text) {
  for (const one of ["wrong", "done"]) {
    const hidden = one !== kind;
    $(`${name}-${one}`).textContent = hidden ? "" : text;
    $(`${name}-${one}`).hidden = hidden;
  }
}

// What is named and this shop does not have: it is saved all the same, and does nothing.
function careful(name, warnings = []) {
  const told = warnings.length > 0 ? ["Perhaps misspelt:", ...warnings] : [];
  $(`${name}-careful`).hidden = told.length === 0;
  $(`${name}-careful`).replaceChildren(...told.map((text) => make("p", {}, text)));
}

// One thing at a time: what is under way can not be begun again.
async function during(name, button, work) {
  told(name, null);
  careful(name);
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (error) {
    told(name, "wrong", error.message);
  }
  button.removeAttribute("aria-disabled");
}

function act(id, name, work) {
  const button = $(id);
  button.addEventListener("click", () => button.ariaDisabled !== "true" && during(name, button, work));
}

async function read(name) {
  const book = await api.written(name);
  $(`${name}-text`).value = book.text;
  $(`${name}-text`).disabled = false;
  show(name, book);
}

function show(name, book) {
  held[name] = book.version;
  $(`${name}-version`).textContent = book.version === 0 ? "Nothing is written yet" : [`Version ${book.version}`, book.note].filter(Boolean).join(": ");
  if (name === "rules") offerExample();
  else showOffers(book.offers);
}

function offerExample() {
  $("rules-example").hidden = $("rules-text").value.trim() !== "";
}

function facts(offer) {
  const to = offer.unconditional ? "for whoever qualifies" : "where it is worth its price";
  return [offer.offer_id, plain(offer.discount.kind), to, !offer.active && "not active"];
}

function showOffers(offers) {
  for (const one of offers) titles.set(one.offer_id, one.title);
  $("offer-list").replaceChildren(
    ...offers.map((one) =>
      make(
        "li",
        { "data-offer": one.offer_id },
        make("p", { class: "name" }, one.title),
        make("p", { class: "quiet" }, facts(one).filter(Boolean).join(", ")),
      ),
    ),
  );
}

async function save(name) {
  const written = { text: $(`${name}-text`).value, version: held[name], note: $(`${name}-note`).value };
  const book = await api.save(name, written);
  show(name, book);
  $(`${name}-note`).value = "";
  careful(name, book.warnings);
  told(name, "done", `Saved as version ${book.version}. It counts for the next decision.`);
}

// Of offers a dry run says what is offered and why the others are not; as the rules' own it is told
// part by part, before and after.
const PLAIN = {
  rules: (side) => side,
  offers: ({ offers, rejected_offers, chances, held_out, applied_rules }) => ({
    offers: offers.map((one) => one.offer_id),
    rejected: rejected_offers.map((one) => `${titles.get(one.offer_id) || one.offer_id} (${one.rejection_reason})`),
    chances: Object.entries(chances).filter(([, chance]) => chance > 0).map(([id, chance]) => `${titles.get(id) || id} ${Math.round(chance * 100)} %`),
    held_out: held_out ? ["yes"] : [],
    applied_rules,
  }),
};

async function dryRun(name) {
  $("dry").setAttribute("aria-busy", "true");
  try {
    const answer = await api.dryRun(name, $(`${name}-text`).value);
    if (name === "rules") await learn(answer.samples);
    for (const one of answer.samples) for (const side of ["before", "after"]) one[side] = PLAIN[name](one[side]);
    careful(name, answer.warnings);
    $("dry-empty").hidden = true;
    $("dry-summary").textContent = `${answer.changed} of ${count(answer.samples.length, "checkout changes", "checkouts change")}`;
    $("samples").replaceChildren(...answer.samples.map(sample));
    $("dry-title").focus();
  } catch (error) {
    $("dry-empty").hidden = false;
    $("dry-summary").textContent = "";
    $("samples").replaceChildren();
    throw error;
  } finally {
    $("dry").setAttribute("aria-busy", "false");
  }
}

// The names of what the samples show; where they can not be told, ids must do.
async function learn(samples) {
  const ids = new Set(samples.flatMap((one) => [...one.before.items, ...one.after.items]));
  const unknown = [...ids].filter((id) => !titles.has(id)).slice(0, 100);
  if (unknown.length === 0) return;
  const items = await api.named(unknown).catch(() => []);
  for (const item of items) titles.set(item.item_id, item.title);
}

function sample({ name, before, after, changed, notes = [], failed = [] }) {
  const shown = PARTS.filter(([part]) => part in before && before[part].join("\n") !== after[part].join("\n"));
  return make(
    "li",
    { class: changed ? "changes" : null, "data-sample": name },
    make("p", { class: "name" }, name),
    shown.length === 0 && make("p", { class: "quiet" }, "Nothing changes."),
    make(
      "dl",
      {},
      ...shown.flatMap(([part, title]) => [
        make("dt", {}, title),
        make("dd", { "data-part": part }, make("span", { class: "now" }, `Now: ${list(before[part])}`), make("span", { class: "then" }, `Then: ${list(after[part])}`)),
      ]),
      ...notes.flatMap((note) => [make("dt", {}, `Note on ${note.rule_id}`), make("dd", {}, note.text)]),
      failed.length > 0 && make("dt", { class: "careful" }, "Could not be evaluated, so did not hold"),
      failed.length > 0 && make("dd", {}, failed.join(", ")),
    ),
  );
}

const list = (ids) => ids.map((id) => titles.get(id) || id).join(", ") || "none";

async function open() {
  act("dry-run", "rules", () => dryRun("rules"));
  act("offers-dry-run", "offers", () => dryRun("offers"));
  for (const name of ["rules", "offers"]) {
    act(`${name}-save`, name, () => save(name));
    act(`${name}-read`, name, () => read(name));
    during(name, $(`${name}-read`), () => read(name));
  }
  $("rules-text").addEventListener("input", offerExample);
  $("rules-example").addEventListener("click", () => {
    $("rules-text").value = EXAMPLE;
    offerExample();
    $("rules-text").focus();
  });
  const { options } = await api.shoppers().catch(() => ({ options: { payment_methods: [], shipping_options: [] } }));
  for (const one of [...options.payment_methods, ...options.shipping_options]) titles.set(one.id, one.label);
}

open();
