// The dashboard: asks the gateway for key figures of a range, draws them, and asks again every half minute.

import { element, lineChart, merged, partedBar, sparkline } from "./charts.js";
import { readExperiments, showExperiments } from "./experiments.js";
import { bucketName, change, figure, length, moment } from "./figures.js";
import { OPEN, ask, key } from "./gateway.js";
import { showReviews } from "./reviews.js";

const AGAIN_MS = 30_000;
const STALE_MS = 600_000;
const HOUR = 3_600_000;
const RANGES = {
  "6h": { span: 6 * HOUR, bucket: "5m", words: "the 6 hours before" },
  "24h": { span: 24 * HOUR, bucket: "hour", words: "the day before" },
  "7d": { span: 168 * HOUR, bucket: "hour", words: "the week before" },
  "30d": { span: 720 * HOUR, bucket: "day", words: "the 30 days before" },
  "90d": { span: 2160 * HOUR, bucket: "day", words: "the 90 days before" },
};
const WIDTH = { "5m": 300_000, hour: HOUR, day: 24 * HOUR };
const TILES = [
  "revenue", "conversion", "order_value", "abandonment", "take_rate", "revenue_per_decision",
  "margin_per_decision", "offer_cost", "latency_p99_ms", "rung_full", "consent_rate", "visits",
];
const COLUMNS = ["visits", "conversion", "order_value", "abandonment", "take_rate", "revenue_per_decision", "margin_per_decision", "latency_p99_ms"];
const RUNGS = [["rung_full", "full"], ["rung_no_ranker", "no ranker"], ["rung_session_knn", "session kNN"], ["rung_popular", "popular"], ["rung_empty", "empty"]];
const TOTALS = new Set(["revenue", "offer_cost"]); // money that is a sum, no ratio
const AGREED = [["consent_rate", "Personalization"], ["analytics_rate", "Analytics"], ["offers_rate", "Offers"]];
const MOST_LINES = 5;
const ENOUGH = 25; // visits, decisions or orders that a point of a share should stand on
const FACTORS = [1, 2, 3, 4, 6, 12, 24];
const SPARKS = 28; // points of a tile's line

const $ = (id) => document.getElementById(id);
const state = { range: "7d", metric: "conversion", apart: "all", cut: "experiment", latest: null, figures: null, turn: 0 };
const metricOf = (name) => state.figures.metrics.find((one) => one.name === name);
const say = (value, name, short) => figure(value, metricOf(name).unit, state.figures.currency, short);

// --- asking -------------------------------------------------------------------------------------------

const span = () => {
  const { span: length, bucket } = RANGES[state.range];
  const width = WIDTH[bucket];
  // The bucket that is under way belongs to it.
  const end = Math.floor(state.latest / width) * width + width;
  return { start: new Date(end - length).toISOString(), end: new Date(end).toISOString(), bucket };
};

const load = async () => {
  const turn = ++state.turn;
  try {
    if (state.latest === null) {
      const told = await ask("/kpis", { series: false, metrics: "visits" });
      state.latest = Date.parse(told.as_of ?? new Date().toISOString());
    }
    const asked = span();
    const [figures, apart, breakdown, experiments] = await Promise.all([
      ask("/kpis", asked),
      state.apart === "all" ? null : ask("/kpis", { ...asked, group_by: state.apart, metrics: state.metric }),
      ask("/kpis", { ...asked, group_by: state.cut, series: false, metrics: COLUMNS.join() }),
      readExperiments(),
    ]);
    if (turn !== state.turn) return;
    state.figures = figures;
    state.latest = Math.max(state.latest, Date.parse(figures.as_of ?? 0));
    draw(apart, breakdown, experiments);
    await showReviews($("reviews"), figures);
    problem(null);
  } catch (error) {
    if (turn !== state.turn) return;
    if (error.status === 401 || error.status === 403) { signOut(error.message); return; }
    problem(error.message ?? String(error));
  } finally {
    document.body.setAttribute("data-loaded", String(turn));
  }
};

const tell = (place, words) => {
  if (place.textContent !== (words ?? "")) place.textContent = words ?? ""; // said aloud once
  place.hidden = words === null;
};
const problem = (words) => tell($("problem"), words);

// The latest event that is counted is old by the gateway's clock.
const stale = ({ as_of: latest, now }) => {
  const since = latest === null ? 0 : Date.parse(now) - Date.parse(latest);
  tell($("stale"), since < STALE_MS ? null
    : `Nothing was counted for ${length(since)}. Unless the shop is that quiet, see whether its worker (tillwise-serve worker) still runs.`);
};

// --- drawing ------------------------------------------------------------------------------------------

const draw = (apart, breakdown, experiments) => {
  const { figures } = state;
  $("as-of").textContent = figures.as_of === null ? "" : `Counted until ${moment(new Date(figures.as_of))} UTC`;
  stale(figures);
  const [whole] = figures.groups;
  const known = TILES.some((name) => whole.totals[name].before !== null && whole.totals[name].before !== 0);
  $("against").textContent = known ? `Changes are against ${RANGES[state.range].words}.` : `Of ${RANGES[state.range].words} there are no figures.`;
  drawTiles(whole);
  drawCourse(whole, apart);
  showExperiments($("experiments"), experiments, figures.currency, Date.parse(figures.now));
  drawLatency(whole);
  drawShares(whole);
  drawBreakdown(breakdown);
  drawMarks();
};

// How many buckets are taken together for a figure that is a ratio.
const factorFor = (series, metric) => {
  if (metric.unit === "count" || TOTALS.has(metric.name)) return 1;
  const some = series.denominator.filter((one) => one > 0);
  const mean = some.reduce((a, b) => a + b, 0) / Math.max(some.length, 1);
  return FACTORS.find((one) => mean * one >= ENOUGH && state.figures.starts.length / one <= 180) ?? (mean ? FACTORS.at(-1) : 1);
};
const sparks = (series, metric) => {
  const by = Math.ceil(series.value.length / SPARKS);
  const together = merged(series, by);
  // The last part of a sum is not whole yet.
  return metric.unit === "count" || TOTALS.has(metric.name) ? together.numerator.slice(0, -1) : together.value;
};

const drawTiles = (whole) => {
  const focused = document.activeElement?.dataset?.metric;
  $("tiles").replaceChildren(...TILES.map((name) => {
    const metric = metricOf(name);
    const { value, before } = whole.totals[name];
    const moved = change(value, before, metric.unit);
    const good = moved && metric.better !== "neither" && moved.size !== 0 && (moved.size > 0) === (metric.better === "more");
    const kind = !moved || metric.better === "neither" || moved.size === 0 ? "" : good ? "good" : "bad";
    const words = moved === null ? "\u00a0" : `${moved.text}${kind ? (good ? ", better" : ", worse") : ""}`;
    const tile = element("button", { type: "button", class: "tile", "data-metric": name, "aria-pressed": String(state.metric === name) },
      element("span", { class: "name" }, metric.title),
      element("span", { class: "value" }, say(value, name)),
      element("span", { class: `change ${kind}` }, words),
      sparkline(sparks(whole.series[name], metric)));
    tile.addEventListener("click", () => { state.metric = name; load(); });
    return element("li", {}, tile);
  }));
  if (focused) $("tiles").querySelector(`[data-metric="${focused}"]`)?.focus();
};

const times = () => state.figures.starts.map(Date.parse);
// "experiment:arm" as two words.
const named = (value) => (value ?? "").replace(/^([^:]+):/, "$1: ");
const liveMarks = () => state.figures.marks.map((one) => ({ at: Date.parse(one.at), label: `${one.kind}: ${one.name}` }));
const legend = (place, names) => place.replaceChildren(...(names.length < 2 ? [] : names.map((name, n) =>
  element("li", {}, element("span", { class: `key colour-${n % MOST_LINES}` }), name))));

const drawCourse = (whole, apart) => {
  const metric = metricOf(state.metric);
  $("course-title").textContent = metric.title;
  const groups = apart === null ? [whole] : apart.groups.slice(0, MOST_LINES);
  const by = groups.length ? factorFor(groups[0].series[state.metric], metric) : 1;
  const lines = groups.map((one) => ({ name: named(one.value) || metric.title, values: (by === 1 ? one.series[state.metric] : merged(one.series[state.metric], by)).value }));
  const at = times().filter((_, n) => n % by === 0);
  if (!lines.some((line) => line.values.some((one) => one !== null))) {
    empty($("course"), metric.name.includes("margin") ? "No margin is known: tell what items cost with PATCH /v1/catalogue/items." : "Nothing happened in this range.");
    legend($("course-legend"), []);
    $("course-note").textContent = "";
    $("course-table").replaceChildren();
    return;
  }
  const unripe = ["conversion", "abandonment", "take_rate"].includes(state.metric) && state.figures.unripe_from;
  lineChart($("course"), {
    lines, times: at, bucket: state.figures.bucket, marks: liveMarks(),
    says: (value) => say(value, state.metric), axis: (value) => say(value, state.metric, true),
    fromZero: metric.unit === "count" || metric.name === "revenue", unripeFrom: unripe ? Date.parse(unripe) : null,
    label: `${metric.title}, ${state.range}: ${say(whole.totals[state.metric].value, state.metric)} in all. Arrow keys read it point by point.`,
  });
  legend($("course-legend"), lines.map((one) => one.name));
  const marked = liveMarks().some((one) => one.at >= at[0]);
  $("course-note").textContent = marked ? "\u25be Something went live: see the list at the end of this page." : "";
  const head = element("tr", {}, element("th", { scope: "col" }, "From"), ...lines.map((one) => element("th", { scope: "col" }, one.name)));
  const rows = at.map((time, n) => element("tr", {}, element("th", { scope: "row" }, bucketName(time, state.figures.bucket)),
    ...lines.map((one) => element("td", {}, say(one.values[n], state.metric)))));
  $("course-table").replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.reverse())));
};

const drawLatency = (whole) => {
  const by = factorFor(whole.series.latency_p99_ms, metricOf("latency_p99_ms"));
  const at = times().filter((_, n) => n % by === 0);
  const lines = [["latency_p50_ms", "half of them within"], ["latency_p99_ms", "99 of 100 within"]].map(([name, words]) => ({ name: words, values: merged(whole.series[name], by).value }));
  if (!lines[0].values.some((one) => one !== null)) { empty($("latency"), "No decision was timed in this range."); return; }
  lineChart($("latency"), {
    lines, times: at, bucket: state.figures.bucket, fromZero: true,
    says: (value) => figure(value, "ms"), axis: (value) => `${value} ms`,
    label: `Time of a decision: half within ${say(whole.totals.latency_p50_ms.value, "latency_p50_ms")}, 99 of 100 within ${say(whole.totals.latency_p99_ms.value, "latency_p99_ms")}`,
  });
  legend($("latency-legend"), lines.map((one) => one.name));
};

const drawShares = (whole) => {
  const parts = RUNGS.map(([name, words], colour) => ({ words, colour, share: whole.totals[name].value ?? 0 }));
  const label = parts.map((one) => `${one.words} ${figure(one.share, "share")}`).join(", ");
  $("rungs").replaceChildren(partedBar(parts, label), element("ul", { class: "parts-list" }, ...parts.map((one) =>
    element("li", {}, element("span", {}, element("span", { class: `key fill-${one.colour}` }), one.words), element("strong", {}, figure(one.share, "share"))))));
  $("consent").replaceChildren(...AGREED.map(([name, words]) => {
    const value = whole.totals[name].value;
    return element("div", { class: "measure" }, element("span", {}, words),
      partedBar([{ share: value ?? 0, colour: 0 }], `${words}: ${figure(value, "share")}`), element("strong", {}, figure(value, "share")));
  }));
};

const drawBreakdown = (told) => {
  if (!told.groups.length) { empty($("breakdown"), "Nothing is told apart by this in the range."); $("breakdown-note").textContent = ""; return; }
  const head = element("tr", {}, element("th", { scope: "col" }, "\u00a0"), ...told.metrics.map((one) => element("th", { scope: "col" }, one.title)));
  const rows = told.groups.map((group) => element("tr", {}, element("th", { scope: "row" }, named(group.value)),
    ...told.metrics.map((one) => element("td", {}, figure(group.totals[one.name].value, one.unit, told.currency)))));
  $("breakdown").replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  const overlap = state.cut === "segment" ? "Segments overlap: who is in two counts in both. " : "";
  $("breakdown-note").textContent = `${overlap}${told.more ? `${told.more} smaller ones are left out.` : ""}`;
};

const drawMarks = () => {
  const rows = [...state.figures.marks].reverse().map((one) => element("li", {},
    element("time", { datetime: one.at }, moment(new Date(one.at))), element("span", {}, one.kind),
    element("span", {}, one.note ? `${one.name}: ${one.note}` : one.name)));
  $("marks").replaceChildren(...(rows.length ? rows : [element("li", { class: "quiet" }, "Nothing in this range.")]));
};

const empty = (place, words) => place.replaceChildren(element("p", { class: "empty" }, words));

// --- who looks ----------------------------------------------------------------------------------------

const signOut = (words = null) => {
  key.drop();
  state.figures = null;
  $("board").hidden = true;
  $("login").hidden = false;
  $("sign-out").hidden = true;
  $("as-of").textContent = "";
  $("login-problem").hidden = words === null;
  $("login-problem").textContent = words ?? "";
  $("key").focus();
};

const enter = async () => {
  $("login").hidden = true;
  $("board").hidden = false;
  $("sign-out").hidden = OPEN;
  await load();
};

for (const radio of document.querySelectorAll('input[name="range"]')) {
  radio.checked = radio.value === state.range;
  radio.addEventListener("change", () => { state.range = radio.value; load(); });
}
$("apart").addEventListener("change", (event) => { state.apart = event.target.value; load(); });
$("cut").value = state.cut;
$("cut").addEventListener("change", (event) => { state.cut = event.target.value; load(); });
$("sign-out").addEventListener("click", () => signOut());
$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key").value = "";
  enter();
});
let resized = 0;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { if (state.figures !== null) load(); }, 150); });
// Also while there are no figures yet: the gateway may come back, and the worker make its first file.
setInterval(() => { if (!$("board").hidden && !document.hidden) load(); }, AGAIN_MS);
$("simulated").hidden = document.querySelector('meta[name="tillwise-shop"]').content !== "demo";
if (OPEN || key.get()) enter();
else signOut();
