// The shelves: the real catalogue by aisle, and the one product that is looked at.

import { api } from "./gateway.js";
import { count, make, money, nameOf, sentence, tile } from "./format.js";

const PICKS = 7; // aisles that have a button of their own
const $ = (id) => document.getElementById(id);

// `look(item)` and `add(item)` are called with what the shopper chose; `shown(items)` with every shelf.
export function openShelf({ look, add, shown }) {
  const looked = new Set(); // ids of this visit
  let aisles = [];
  let current = null;
  let items = [];
  let opener = null; // what had the focus before the product that is open
  let open = null;
  let number = 0;

  async function load() {
    if (aisles.length > 0) return;
    try {
      ({ aisles } = await api.aisles());
    } catch {
      return note("The shelves can not be shown right now.");
    }
    if (aisles.length === 0) return note("The catalogue names no aisles.");
    const departments = Map.groupBy(aisles, (one) => one.department);
    $("aisle").replaceChildren(
      ...[...departments].sort(([a], [b]) => a.localeCompare(b)).map(([department, held]) =>
        make(
          "optgroup",
          { label: sentence(department) },
          ...held
            .toSorted((a, b) => a.aisle.localeCompare(b.aisle))
            .map((one) => make("option", { value: aisles.indexOf(one) }, sentence(one.aisle))),
        ),
      ),
    );
    $("aisle").disabled = false;
    await show(aisles[0]);
  }

  async function show(aisle, from = 0) {
    const mine = ++number;
    current = aisle;
    const place = aisles.indexOf(aisle);
    $("aisle").value = place;
    const picks = aisles.slice(0, PICKS).map((one, at) =>
      make(
        "button",
        { type: "button", "aria-pressed": String(at === place), "data-focus": `aisle-${at}`, click: () => show(one) },
        sentence(one.aisle),
      ),
    );
    repaint(() => $("aisle-picks").replaceChildren(...picks));
    let found;
    try {
      found = await api.aisle(aisle, from);
    } catch {
      return mine === number && note("This shelf can not be shown right now.");
    }
    if (mine !== number) return;
    items = from === 0 ? found.items : [...items, ...found.items];
    shown(found.items);
    note("");
    $("shelf-count").textContent = count(aisle.num_items, "product", "products");
    $("more").hidden = found.more === 0;
    paint();
    if (from > 0) document.querySelector(`[data-focus="shelf-${CSS.escape(found.items[0]?.item_id ?? "")}"]`)?.focus();
  }

  function note(text) {
    $("shelf-note").textContent = text;
    $("shelf-note").hidden = !text;
  }

  function paint() {
    repaint(() => $("products").replaceChildren(...items.map(card)));
  }

  function card(item) {
    const seen = looked.has(item.item_id);
    return make(
      "li",
      { "data-item": item.item_id, "data-tillwise-item": item.item_id },
      make(
        "button",
        { type: "button", class: seen ? "seen" : null, "data-focus": `shelf-${item.item_id}`, click: () => look(item) },
        tile(item),
        make("span", { class: "name" }, nameOf(item)),
        make("span", { class: "brand" }, item.brand),
        make("span", { class: "price" }, money(item.price, item.currency)),
        seen && make("span", { class: "seen-mark" }, "Looked at"),
      ),
    );
  }

  $("aisle").addEventListener("change", (event) => show(aisles[Number(event.target.value)]));
  $("more").addEventListener("click", () => show(current, items.length));
  $("product-close").addEventListener("click", close);
  $("product-add").addEventListener("click", () => add(open));
  $("product").addEventListener("keydown", (event) => event.key === "Escape" && close());

  // Whoever came from a name that has gone meanwhile is not thrown to the page's top.
  function close() {
    $("product").hidden = true;
    const back = opener && document.querySelector(`[data-focus="${CSS.escape(opener)}"]`);
    (back ?? $("shelf-title")).focus();
  }

  // The page of a product, in small.
  function present(item) {
    open = item;
    opener = document.activeElement?.dataset?.focus ?? opener;
    looked.add(item.item_id);
    paint();
    $("product-tile").replaceChildren(tile(item));
    $("product-title").textContent = nameOf(item);
    $("product-text").textContent = [item.brand, ...(item.category_path ?? []).map(sentence)].filter(Boolean).join(", ");
    $("product-price").textContent = money(item.price, item.currency);
    $("product").dataset.tillwiseItem = item.item_id;
    $("product").hidden = false;
    $("product-title").focus();
  }

  // For another shopper nothing has been looked at yet.
  function reset() {
    looked.clear();
    $("product").hidden = true;
    paint();
  }

  return { load, present, reset };
}

function repaint(paint) {
  const focused = document.activeElement?.dataset?.focus;
  paint();
  if (focused) document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}
