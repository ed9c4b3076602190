// The list of suggestions, and where the focus goes when it changes.

import { count } from "./format.js";
import { cartIds, state } from "./state.js";
import * as views from "./views.js";

export function paintSuggestions(act) {
  const bought = new Set(state.shopper.bought_too.map((item) => item.item_id));
  const moved = views.showSuggestions(state.suggested, bought, act);
  views.showHeldOut(state.shopper.bought_too, new Set(state.suggested.map((one) => one.item.item_id)), cartIds());
  return moved;
}

// New suggestions replace old ones; whoever was on one of them is not thrown to the page's top.
export function keepingFocus(paint) {
  const focused = document.activeElement?.dataset?.focus;
  const painted = paint();
  if (/^(add|refuse)-/.test(focused)) focusOn(focused);
  return painted;
}

// The button that takes the focus when the suggestion with this id has gone.
export function afterSuggestion(itemId, button = "add") {
  const place = state.suggested.findIndex((one) => one.item.item_id === itemId);
  if (place < 0) return undefined;
  const next = state.suggested[place + 1] ?? state.suggested[place - 1];
  return next ? `${button}-${next.item.item_id}` : null;
}

export function focusOn(name, otherwise = "suggestions-title") {
  if (name === undefined) return;
  const element = name && document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
  (element ?? views.$(otherwise)).focus();
}

// In words, after the shopper has looked at something; `joined`: segments that are new.
export function whatMoved(joined, { newOnes, movedUp }) {
  const parts = [
    joined.length > 0 && `Now in ${joined.join(" and ")}`,
    newOnes > 0 && count(newOnes, "new suggestion", "new suggestions"),
    movedUp > 0 && `${movedUp} moved up`,
  ].filter(Boolean);
  return parts.length > 0 ? `${parts.join(", ")}: you looked at ${state.looked.title || "an item"}.` : "";
}
