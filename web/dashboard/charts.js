// Lines, bars and intervals as SVG, drawn at the width they have. Each says in words what it shows;
// lines are read point by point with the mouse, a finger or the arrow keys.

import { bucketName, tickName } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 5;

export const node = (name, attributes = {}, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

export const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((one) => one !== null && one !== undefined));
  return made;
};

// Four or so round numbers that span low .. high.
export const ticks = (low, high, wanted = 4) => {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * power >= raw * 0.999) * power;
  const first = Math.floor(low / step) * step;
  const found = [];
  for (let n = 0; n < 12; n += 1) {
    const at = Number((first + n * step).toPrecision(12));
    found.push(at);
    if (at >= high) break;
  }
  return found;
};

const extent = (lines, fromZero) => {
  const values = lines.flatMap((line) => line.values).filter((one) => one !== null);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const nearZero = fromZero || low < 0.5 * high;
  return [low >= 0 && nearZero ? 0 : low - (high - low || Math.abs(low)) * 0.15, high === low && high === 0 ? 1 : high];
};

// The path of a line with gaps where there is no value; a lone point is a dot.
const path = (values, x, y) => {
  let text = "";
  let pen = false;
  values.forEach((value, place) => {
    if (value === null) { pen = false; return; }
    text += `${pen ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
    if (!pen && (place + 1 === values.length || values[place + 1] === null)) text += "h.01";
    pen = true;
  });
  return text;
};

// Points with several buckets taken together, so that each stands on enough: their sums are added.
export const merged = (points, by) => {
  const found = { value: [], numerator: [], denominator: [] };
  for (let n = 0; n < points.value.length; n += by) {
    const sum = (name) => points[name].slice(n, n + by).reduce((a, b) => a + b, 0);
    const [over, under] = [sum("numerator"), sum("denominator")];
    found.numerator.push(over);
    found.denominator.push(under);
    found.value.push(under ? over / under : null);
  }
  return found;
};

// A small line without axes, for a tile.
export const sparkline = (values) => {
  const [width, height] = [120, 32];
  const svg = node("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const known = values.filter((one) => one !== null);
  if (known.length < 2) return svg;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (place) => (place / (values.length - 1)) * width;
  const y = (value) => height - 3 - ((value - low) / (high - low || 1)) * (height - 6);
  svg.append(node("path", { d: path(values, x, y), class: "spark-line" }));
  return svg;
};

// lines: [{name, values}], times: [ms], marks: [{at, label}], says: (value) => text, axis: the same, short.
export const lineChart = (place, { lines, times, bucket, says, axis, marks = [], label, fromZero = false, unripeFrom = null }) => {
  const width = Math.max(place.clientWidth, 240);
  const height = place.classList.contains("tall") ? (width < 560 ? 220 : 300) : 200;
  const [low, high] = extent(lines, fromZero);
  const steps = ticks(low, high);
  const names = steps.map(axis);
  const left = 14 + Math.max(...names.map((one) => one.length)) * 6.6;
  const [right, top, bottom] = [10, marks.length ? 22 : 10, 26];
  const last = Math.max(times.length - 1, 1);
  const x = (n) => left + (n / last) * (width - left - right);
  const floor = steps[0];
  const y = (value) => height - bottom - ((value - floor) / (steps.at(-1) - floor || 1)) * (height - top - bottom);
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });

  steps.forEach((value, n) => {
    svg.append(node("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: n ? "grid" : "grid base" }));
    svg.append(text(left - 8, y(value) + 4, names[n], "end"));
  });
  const span = times.length > 1 ? times.at(-1) - times[0] : 1;
  // Round moments: every so many hours or days.
  const hour = 3_600_000;
  const every = [hour / 2, hour, 2 * hour, 4 * hour, 12 * hour, 24 * hour, 48 * hour, 168 * hour, 336 * hour]
    .find((one) => (span / one) * 62 <= width - left - right && (span <= 48 * hour || one >= 24 * hour)) ?? 672 * hour;
  for (let time = Math.ceil(times[0] / every) * every; time <= times.at(-1); time += every) {
    const at = x(((time - times[0]) / span) * last);
    if (at > left + 4 && at < width - 22) svg.append(text(at, height - 7, tickName(time, span), "middle"));
  }
  if (unripeFrom !== null && times.length && unripeFrom < times.at(-1) && unripeFrom > times[0]) {
    const at = x(((unripeFrom - times[0]) / span) * last);
    svg.append(node("rect", { x: at, y: top, width: width - right - at, height: height - top - bottom, class: "unripe" }));
  }
  for (const mark of marks) {
    const at = x(((mark.at - times[0]) / span) * last);
    if (at < left || at > width - right) continue;
    svg.append(node("line", { x1: at, x2: at, y1: top - 8, y2: height - bottom, class: "mark-line" }, node("title", {}, mark.label)));
    svg.append(node("path", { d: `M${at - 4} ${top - 13}h8l-4 7z`, class: "mark-flag" }, node("title", {}, mark.label)));
  }
  lines.forEach((line, n) => {
    if (lines.length === 1) {
      const known = line.values.map((value, place_) => [value, place_]).filter(([value]) => value !== null);
      if (known.length > 1 && line.values.every((one) => one !== null)) {
        const area = `${path(line.values, x, y)}L${x(known.at(-1)[1])} ${y(floor)}L${x(known[0][1])} ${y(floor)}z`;
        svg.append(node("path", { d: area, class: "area" }));
      }
    }
    svg.append(node("path", { d: path(line.values, x, y), class: `line colour-${n % COLOURS}` }));
  });

  const rule = node("line", { y1: top, y2: height - bottom, class: "cursor", visibility: "hidden" });
  const dots = lines.map((_, n) => node("circle", { r: 4, class: `dot colour-${n % COLOURS}`, visibility: "hidden" }));
  svg.append(rule, ...dots);
  const tip = element("div", { class: "tip", role: "status", hidden: true });
  let current = -1;
  const show = (n) => {
    current = Math.min(Math.max(n, 0), times.length - 1);
    rule.setAttribute("x1", x(current));
    rule.setAttribute("x2", x(current));
    rule.setAttribute("visibility", "visible");
    dots.forEach((dot, number) => {
      const value = lines[number].values[current];
      dot.setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value !== null) { dot.setAttribute("cx", x(current)); dot.setAttribute("cy", y(value)); }
    });
    const rows = lines.map((line, number) => element("li", {},
      element("span", { class: `key colour-${number % COLOURS}` }), `${line.name} `,
      element("strong", {}, says(line.values[current]))));
    tip.replaceChildren(element("p", {}, bucketName(times[current], bucket)), element("ul", {}, ...rows));
    tip.hidden = false;
    const beside = x(current) + 14 + tip.offsetWidth > width;
    tip.style.insetInlineStart = `${Math.max(beside ? x(current) - tip.offsetWidth - 14 : x(current) + 14, 0)}px`;
  };
  const hide = () => {
    tip.hidden = true;
    for (const one of [rule, ...dots]) one.setAttribute("visibility", "hidden");
  };
  const nearest = (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    show(Math.round(((at - left) / (width - left - right)) * last));
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", hide);
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) { if (event.key === "Escape") hide(); return; }
    event.preventDefault();
    show(by === -Infinity ? 0 : by === Infinity ? times.length - 1 : current < 0 ? times.length - 1 : current + by);
  });
  svg.addEventListener("blur", hide);
  place.replaceChildren(svg, tip);
};

const text = (x, y, words, anchor) => node("text", { x, y, "text-anchor": anchor, class: "tick" }, words);

// One bar in parts: [{name, share, text, colour}].
export const partedBar = (parts, label) => {
  const svg = node("svg", { class: "parts", viewBox: "0 0 100 4", preserveAspectRatio: "none", role: "img", "aria-label": label });
  let at = 0;
  for (const part of parts) {
    const wide = part.share * 100;
    if (wide > 0) svg.append(node("rect", { x: at, y: 0, width: Math.max(wide - 0.3, 0.2), height: 4, class: `fill-${part.colour}` }));
    at += wide;
  }
  return svg;
};

// A dot with its interval on a scale that all rows share; 0 is no difference.
export const intervalPlot = (low, high, at, reach, kind, label) => {
  const x = (value) => 50 + (Math.max(Math.min(value / reach, 1), -1)) * 48;
  return node("svg", { class: `interval ${kind}`, viewBox: "0 0 100 12", preserveAspectRatio: "none", role: "img", "aria-label": label },
    node("line", { x1: 50, x2: 50, y1: 0, y2: 12, class: "zero" }),
    node("line", { x1: x(low), x2: x(high), y1: 6, y2: 6, class: "span" }),
    node("line", { x1: x(at), x2: x(at), y1: 2, y2: 10, class: "point" }));
};
