// Experiments with what they have shown: each metric with the interval that holds whenever one looks.

import { element, intervalPlot } from "./charts.js";
import { figure, moment, signed } from "./figures.js";
import { ask, Refused } from "./gateway.js";

const WORDS = {
  conversion: "Conversion", order_value: "Average order", revenue: "Revenue per person",
  margin: "Margin per person", abandonment: "Cart abandonment", take_rate: "Take rate",
};
const UNITS = { conversion: "share", abandonment: "share", take_rate: "share" };
const LESS_IS_BETTER = new Set(["abandonment"]);
const CUTS = { device: "device", country: "country", bought_before: "whether they had bought before" };
const LEAST_REACH = 0.05;
const MOST_REACH = 0.6;
const LEVEL = 0.05; // of what is shown in cuts at most this share is chance

// Asked for only where it is known to be there, so that a young one is no failure.
const reportOf = async (experiment) => {
  try {
    return await ask(`/experiments/${encodeURIComponent(experiment.key)}/report`);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
};

// All that run or have ended, with their reports.
export const readExperiments = async () => {
  const { experiments } = await ask("/experiments");
  const shown = experiments.filter((one) => one.status !== "draft");
  const order = (one) => (one.status === "running" ? 0 : 1);
  shown.sort((a, b) => order(a) - order(b));
  return { drafts: experiments.length - shown.length, shown: await Promise.all(shown.map(async (one) => [one, await reportOf(one)])) };
};

export const showExperiments = (place, { drafts, shown }, currency, now) => {
  // What is unfolded, and where the keyboard is, outlasts the next figures.
  const opened = new Set([...place.querySelectorAll(".cuts[open]")].map(keyOf));
  const focused = [...place.querySelectorAll(".cuts:focus-within")].map(keyOf);
  if (!shown.length) {
    const words = drafts ? `No experiment runs; ${drafts} ready to be started with PUT /v1/experiments/{key}.` : "No experiment runs.";
    place.replaceChildren(element("p", { class: "card quiet" }, words));
    return;
  }
  place.replaceChildren(...shown.map(([experiment, report]) => card(experiment, report, currency, now, opened)));
  [...place.querySelectorAll(".cuts")].find((one) => focused.includes(keyOf(one)))?.firstElementChild.focus();
};

const keyOf = (inside) => inside.closest("article").dataset.key;

// "running" is what its status asks for; its times may say otherwise.
const stateOf = ({ status, starts_at: starts, ends_at: ends }, now) => {
  if (status !== "running") return status;
  if (ends && Date.parse(ends) <= now) return "ended";
  return starts && Date.parse(starts) > now ? "not begun" : status;
};

const card = (experiment, report, currency, now, opened) => {
  const state = stateOf(experiment, now);
  const made = element("article", { class: "card experiment", "data-key": experiment.key },
    element("header", {},
      element("h3", {}, experiment.title || experiment.key),
      element("span", { class: `state ${state}` }, state)));
  made.querySelector("h3").className = "title";
  if (report === null) {
    made.append(element("p", { class: "quiet" }, "No report yet: the worker makes one every minute."));
    return made;
  }
  for (const line of report.summary) made.append(element("p", {}, line));
  made.append(element("p", { class: "arms" }, ...report.variants.map((one) =>
    element("span", {}, `${one.variant}: ${figure(one.units, "count")} people, ${figure(one.orders, "count")} orders`))));
  const treated = report.variants.filter((one) => one.metrics.length);
  for (const variant of treated) {
    if (treated.length > 1) made.append(element("h3", {}, variant.variant));
    made.append(effects(variant, report.variants[0].variant, currency));
  }
  if (treated.some((one) => one.cuts.length)) made.append(cuts(treated, experiment.primary_metric, opened.has(experiment.key)));
  const notes = [`As of ${moment(new Date(report.as_of))}.`];
  notes.push(report.sample_ratio.ok ? "Shares are as asked for." : "Shares are NOT as asked for.");
  if (report.mixed) notes.push(`${report.mixed} met several variants and are left out.`);
  if (report.orders_without_cost) notes.push("Margin is not known: some items have no cost.");
  if (treated.length) notes.push("Lines are intervals that hold whenever one looks.");
  made.append(element("p", { class: "quiet" }, notes.join(" ")));
  return made;
};

// How far an axis goes that all of these fit on.
const reachOf = (told) => Math.max(LEAST_REACH, ...told.map((one) =>
  Math.min(Math.max(Math.abs(one.always.low), Math.abs(one.always.high)), MOST_REACH)));

const spanOf = ({ low, high }) => `${signed(low * 100, 1)} to ${signed(high * 100, 1)} %`;

const kindOf = (told, known, metric) => {
  if (!known) return "open";
  return (told.lift > 0) !== LESS_IS_BETTER.has(metric) ? "good" : "bad";
};

const effectOf = (name, title, told, kind, reach, words) =>
  element("div", { class: "effect" },
    name,
    intervalPlot(told.always.low, told.always.high, told.lift, reach, kind, `${title}: ${signed(told.lift * 100, 1)} %, ${spanOf(told.always)}`),
    element("span", { class: `lift change ${kind}` }, `${signed(told.lift * 100, 1)} %`),
    element("small", {}, words));

const effects = (variant, control, currency) => {
  const reach = reachOf(variant.metrics);
  return element("div", { class: "effects" }, ...variant.metrics.map((one) => {
    const known = one.always.low > 0 || one.always.high < 0;
    const unit = UNITS[one.metric] ?? "money";
    const values = `${control} ${figure(one.control, unit, currency)}, ${variant.variant} ${figure(one.treatment, unit, currency)}; ${spanOf(one.always)}${known ? "" : ", no difference shown yet"}`;
    const name = element("span", { class: one.primary ? "primary-metric" : "" }, WORDS[one.metric]);
    return effectOf(name, WORDS[one.metric], one, kindOf(one, known, one.metric), reach, values);
  }));
};

// The main metric among some of the people only. What is shown there is judged by the p that is
// corrected for how many cuts were looked at, so an interval may miss zero and show nothing yet.
const cuts = (treated, metric, open) => {
  const shown = treated.flatMap((one) => one.cuts).filter((one) => one.always_p < LEVEL).length;
  const made = element("details", { class: "as-table cuts", open },
    element("summary", {}, `By kind of shopper (${shown ? `${shown} ${shown > 1 ? "differences" : "difference"} shown` : "no difference shown yet"})`));
  for (const variant of treated.filter((one) => one.cuts.length)) {
    const reach = reachOf(variant.cuts);
    if (treated.length > 1) made.append(element("h3", {}, variant.variant));
    for (const cut of new Set(variant.cuts.map((one) => one.cut))) {
      const title = CUTS[cut] ?? cut;
      made.append(element("h4", {}, `${WORDS[metric]} by ${title}`));
      made.append(element("div", { class: "effects" }, ...variant.cuts.filter((one) => one.cut === cut).map((one) => {
        const known = one.always_p < LEVEL;
        const words = `${figure(one.units, "count")} people; ${spanOf(one.always)}; corrected p ${probability(one.always_p)}${known ? "" : ", no difference shown yet"}`;
        return effectOf(element("span", {}, one.value), `${WORDS[metric]}, ${title}: ${one.value}`, one, kindOf(one, known, metric), reach, words);
      })));
    }
  }
  const all = treated.reduce((sum, one) => sum + one.cuts.length, 0);
  made.append(element("p", {}, `Of ${all} cuts some look better or worse by chance alone. The corrected p takes that into account: of the differences that are called shown here at most ${LEVEL * 100} % are chance.`));
  return made;
};

const probability = (p) => (p < 0.001 ? "below .001" : p.toFixed(p < 0.1 ? 3 : 2).replace(/^0/, ""));
