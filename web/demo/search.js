// The catalogue search: a combobox with a list, used alike by keyboard, pointer and screen reader.

import { api, latest } from "./gateway.js";
import { make, money } from "./format.js";

const SHOWN = 8;

// `choose(item, words)` is called with the item that was picked and what was searched.
export function openSearch(choose) {
  const input = document.getElementById("search");
  const panel = document.getElementById("found-panel");
  const list = document.getElementById("found");
  const note = document.getElementById("found-note");
  const find = latest((signal) => api.search(input.value.trim(), signal), 150);
  let items = [];
  let active = -1;

  function close() {
    panel.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  }

  function open(found, message) {
    items = found;
    note.textContent = message;
    list.replaceChildren(...items.map(option));
    list.hidden = items.length === 0;
    panel.hidden = false;
    input.setAttribute("aria-expanded", String(items.length > 0));
    mark(items.length > 0 ? 0 : -1);
  }

  function option(item, place) {
    return make(
      "li",
      {
        role: "option",
        id: `found-${place}`,
        "data-tillwise-item": item.item_id,
        // The input keeps the focus, or the list would close before the click arrives.
        pointerdown: (event) => event.preventDefault(),
        click: () => pick(place),
      },
      make("span", { class: "name" }, item.title || `Item ${item.item_id}`),
      make("span", { class: "price" }, money(item.price, item.currency)),
      make("span", { class: "brand" }, item.brand),
    );
  }

  function mark(place) {
    active = place;
    [...list.children].forEach((entry, number) => entry.setAttribute("aria-selected", String(number === place)));
    if (place < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", `found-${place}`);
      list.children[place].scrollIntoView({ block: "nearest" });
    }
  }

  function pick(place) {
    const item = items[place];
    if (!item) return;
    const words = input.value.trim();
    input.value = "";
    close();
    choose(item, words);
  }

  input.addEventListener("input", () => {
    if (!input.value.trim()) {
      find(close, close, { now: true });
      close();
      return;
    }
    find(
      (found) => {
        if (!input.value.trim()) return close();
        open(found.slice(0, SHOWN), found.length === 0 ? "Nothing in the catalogue has these words." : "");
      },
      () => open([], "The catalogue can not be searched right now."),
    );
  });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") close();
    else if (event.key === "Enter" && !panel.hidden) pick(active);
    else if (step && !panel.hidden && items.length > 0) mark((active + step + items.length) % items.length);
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
}
