// Review items: what changed, where, since when, and what went live before; acknowledged and closed here.

import { element } from "./charts.js";
import { figure, moment } from "./figures.js";
import { ask } from "./gateway.js";

const SOURCES = { kpi: "Key figure", drift: "Drift", fairness: "Fairness", guard: "Release" };
const DEEDS = {
  opened: "opened", ended: "the alarm ended", returned: "the alarm returned", reopened: "opened again",
  acknowledged: "acknowledged", closed: "closed",
};
const BEFORE = {
  release: "Release", canary: "Canary", rollback: "Rolled back", rules: "Rules", offers: "Offers",
  experiments: "Experiments", catalogue: "Catalogue",
};
const MOST_SLICES = 5;
const MOST_CLOSED = 10;
let busy = false; // while somebody writes a note the list is left as it is

// Fill `place`, which is hidden while there is nothing to review.
export const showReviews = async (place, figures) => {
  if (busy || place.querySelector("form:focus-within, form[data-touched]")) return;
  const { reviews, open } = await ask("/reviews", { limit: 100 });
  const waiting = reviews.filter((one) => one.state !== "closed");
  const closed = reviews.filter((one) => one.state === "closed").slice(0, MOST_CLOSED);
  place.hidden = !reviews.length;
  place.classList.add("card", "reviews");
  place.setAttribute("aria-labelledby", "reviews-title");
  const again = () => showReviews(place, figures);
  const shown = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.name));
  const item = (review) => card(review, figures, again, shown);
  place.replaceChildren(
    element("div", { class: "card-head" },
      element("h2", { id: "reviews-title" }, "To review"),
      element("p", { class: `state ${open ? "waiting" : ""}` }, open ? `${open} open` : "nothing open")),
    waiting.length ? element("ul", { class: "review-list" }, ...waiting.map(item))
      : element("p", { class: "quiet" }, "Nothing waits for anybody."),
    ...(closed.length ? [folded("closed", `Closed lately (${closed.length})`, shown, element("ul", { class: "review-list" }, ...closed.map(item)))] : []),
  );
};

const folded = (name, words, shown, ...inside) =>
  element("details", { class: "as-table", "data-name": name, open: shown.has(name) }, element("summary", {}, words), ...inside);

const card = (review, figures, again, shown) => {
  const { finding } = review;
  const metric = figures.metrics.find((one) => one.name === finding.metric);
  const say = (value) => (metric ? figure(value, metric.unit, figures.currency) : value === null ? "–" : Number(value.toPrecision(3)).toString());
  const ended = review.ended_at === null ? null : element("span", { class: "state" }, `ended ${moment(new Date(review.ended_at))}`);
  const told = [
    [finding.source === "drift" ? "Seen (PSI)" : "Seen", finding.seen === null ? null : `${say(finding.seen)}${finding.expected === null ? "" : `, expected ${say(finding.expected)}`}${range(finding, say)}`],
    ["Since", `${moment(new Date(finding.since))} UTC`],
    ["Where", where(finding, say)],
    ["Before it", before(finding)],
    ["Columns", columns(finding)],
    ["Also off", Array.isArray(finding.detail.also) && finding.detail.also.length ? finding.detail.also.map(series).join(", ") : null],
  ];
  return element("li", { class: `review ${review.state}`, "data-review": review.review_id },
    element("header", {},
      element("h3", { class: "title" }, finding.title),
      element("p", {}, element("span", { class: `state ${review.state === "open" ? "waiting" : ""}` }, review.state), " ", ended)),
    element("p", { class: "quiet" }, `${SOURCES[finding.source]}${review.reopened ? `, opened again${review.reopened > 1 ? ` ${review.reopened} times` : ""}` : ""}`),
    element("dl", {}, ...told.filter(([, value]) => value !== null).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    folded(`steps-${review.review_id}`, "What was done", shown, element("ul", { class: "steps" }, ...review.steps.map(step))),
    review.state === "closed" ? null : answer(review, again));
};

const range = ({ low, high }, say) => (low === null || high === null ? "" : ` (${say(low)} to ${say(high)})`);
const series = (key) => key.replace("/", ", ").replace("=", " ").replaceAll("_", " ");

const where = (finding, say) => {
  const own = Object.entries(finding.slices).map(([cut, value]) => `${cut} ${value}`);
  const parts = finding.contributions.slice(0, MOST_SLICES).map((one) => {
    const both = one.seen === null || one.expected === null ? "" : `: ${say(one.seen)} for ${say(one.expected)}`;
    return element("li", {}, `${one.dimension} ${one.value}, ${Math.round(one.share * 100)} % of it${both}`);
  });
  if (!own.length && !parts.length) return null;
  return element("div", {}, own.length ? own.join(", ") : null, parts.length ? element("ul", {}, ...parts) : null);
};

const before = ({ before: found }) => (found.length === 0 ? "nothing went live in the day before" : element("ul", {}, ...found.map((one) =>
  element("li", {}, `${BEFORE[one.kind]} ${one.name}, ${moment(new Date(one.at))}${one.by ? `, by ${one.by}` : ""}${one.note ? `: ${one.note}` : ""}`))));

const columns = ({ detail }) => (Array.isArray(detail.columns)
  ? detail.columns.map((one) => `${one.name} (PSI ${one.psi.toFixed(2)}, KS ${one.ks.toFixed(2)})`).join(", ") : null);

const step = (one) => element("li", {}, element("time", { datetime: one.at }, moment(new Date(one.at))),
  ` ${DEEDS[one.deed]} by ${one.who || one.by}${one.note ? `: ${one.note}` : ""}`);

const answer = (review, again) => {
  const note = element("input", { name: "note", maxlength: 500, "aria-label": `Note on: ${review.finding.title}`, placeholder: "Note", autocomplete: "off" });
  const who = element("input", { name: "who", maxlength: 100, "aria-label": "Your name", placeholder: "Your name", autocomplete: "name" });
  const wrong = element("p", { class: "problem", role: "alert", hidden: true });
  const button = (words, to) => element("button", { type: "submit", class: "plain", value: to }, words);
  const form = element("form", { class: "answer" }, note, who,
    review.state === "open" ? button("Acknowledge", "acknowledge") : null, button("Close", "close"), wrong);
  form.addEventListener("input", () => form.setAttribute("data-touched", ""));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    busy = true;
    try {
      await ask(`/reviews/${review.review_id}/${event.submitter?.value ?? "acknowledge"}`, {},
        { method: "POST", body: { note: note.value, who: who.value } });
      form.removeAttribute("data-touched");
      document.activeElement?.blur();
      busy = false;
      await again();
    } catch (error) {
      wrong.hidden = false;
      wrong.textContent = error.message;
    } finally {
      busy = false;
    }
  });
  return form;
};
