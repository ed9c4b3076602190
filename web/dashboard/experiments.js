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
const LEAST_REACH = 0.05;

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
  if (!shown.length) {
    const words = drafts ? `No experiment runs; ${drafts} ready to be started with PUT /v1/experiments/{key}.` : "No experiment runs.";
    place.replaceChildren(element("p", { class: "card quiet" }, words));
    return;
  }
  place.replaceChildren(...shown.map(([experiment, report]) => card(experiment, report, currency, now)));
};

// "running" is what its status asks for; its times may say otherwise.
const stateOf = ({ status, starts_at: starts, ends_at: ends }, now) => {
  if (status !== "running") return status;
  if (ends && Date.parse(ends) <= now) return "ended";
  return starts && Date.parse(starts) > now ? "not begun" : status;
};

const card = (experiment, report, currency, now) => {
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
  const notes = [`As of ${moment(new Date(report.as_of))}.`];
  notes.push(report.sample_ratio.ok ? "Shares are as asked for." : "Shares are NOT as asked for.");
  if (report.mixed) notes.push(`${report.mixed} met several variants and are left out.`);
  if (report.orders_without_cost) notes.push("Margin is not known: some items have no cost.");
  if (treated.length) notes.push("Lines are intervals that hold whenever one looks.");
  made.append(element("p", { class: "quiet" }, notes.join(" ")));
  return made;
};

const effects = (variant, control, currency) => {
  const reach = Math.max(LEAST_REACH, ...variant.metrics.map((one) => Math.min(Math.max(Math.abs(one.always.low), Math.abs(one.always.high)), 0.6)));
  return element("div", { class: "effects" }, ...variant.metrics.map((one) => {
    const known = one.always.low > 0 || one.always.high < 0;
    const good = (one.lift > 0) !== LESS_IS_BETTER.has(one.metric);
    const kind = known ? (good ? "good" : "bad") : "open";
    const span = `${signed(one.always.low * 100, 1)} to ${signed(one.always.high * 100, 1)} %`;
    const unit = UNITS[one.metric] ?? "money";
    const values = `${control} ${figure(one.control, unit, currency)}, ${variant.variant} ${figure(one.treatment, unit, currency)}; ${span}${known ? "" : ", no difference shown yet"}`;
    const plot = intervalPlot(one.always.low, one.always.high, one.lift, reach, kind, `${WORDS[one.metric]}: ${signed(one.lift * 100, 1)} %, ${span}`);
    return element("div", { class: "effect" },
      element("span", { class: one.primary ? "primary-metric" : "" }, WORDS[one.metric]),
      plot,
      element("span", { class: `lift change ${kind}` }, `${signed(one.lift * 100, 1)} %`),
      element("small", {}, values));
  }));
};
