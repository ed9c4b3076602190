// How figures and times are written. Money comes in minor units, shares as fractions; times are UTC.

const locale = "en-US";
const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 });

const digitsOf = (currency) =>
  new Intl.NumberFormat(locale, { style: "currency", currency }).resolvedOptions().maximumFractionDigits;

const money = (value, currency, short) => {
  const digits = digitsOf(currency);
  const amount = value / 10 ** digits;
  const large = Math.abs(amount) >= (short ? 1_000 : 100_000);
  return new Intl.NumberFormat(locale, {
    style: "currency", currency, currencyDisplay: "narrowSymbol",
    notation: large ? "compact" : "standard",
    minimumFractionDigits: large || (short && amount % 1 === 0) ? 0 : digits, maximumFractionDigits: large ? 1 : digits,
  }).format(amount);
};

const share = (value, short) => {
  const percent = value * 100;
  const digits = short && Math.abs(percent) >= 10 ? 0 : Math.abs(percent) >= 1 || percent === 0 ? 1 : 2;
  return `${percent.toFixed(digits)} %`;
};

const count = (value) => (Math.abs(value) >= 100_000 ? compact : whole).format(value);
const ms = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

// A figure in its unit; `short` for axes. null is "-".
export const figure = (value, unit, currency, short = false) => {
  if (value === null || value === undefined) return "–";
  if (unit === "money") return money(value, currency, short);
  if (unit === "share") return share(value, short);
  return unit === "ms" ? ms(value) : count(value);
};

// "+3.2 %" of a figure against the one before; in points for shares. null where there is none.
export const change = (value, before, unit) => {
  if (value === null || before === null) return null;
  if (unit === "share") return { size: value - before, text: `${signed((value - before) * 100, 1)} pts` };
  if (before === 0) return null;
  return { size: value - before, text: `${signed((value / before - 1) * 100, 1)} %` };
};

export const signed = (value, digits) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(digits)}`;

const format = (options) => new Intl.DateTimeFormat(locale, { timeZone: "UTC", ...options });
const clock = format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = format({ month: "short", day: "numeric" });
const both = format({ weekday: "short", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const named = format({ weekday: "short", month: "short", day: "numeric" });

export const moment = (time) => both.format(time);
// A bucket, named by its beginning.
export const bucketName = (time, bucket) => (bucket === "day" ? named.format(time) : both.format(time));
export const tickName = (time, spanMs) => (spanMs <= 2 * 86_400_000 ? clock.format(time) : day.format(time));

// A length of time, roughly: "25 minutes", "3 hours", "2 days".
export const length = (ms) => {
  const minutes = Math.round(ms / 60_000);
  if (minutes < 120) return `${minutes} minutes`;
  return minutes < 2_880 ? `${Math.round(minutes / 60)} hours` : `${Math.round(minutes / 1_440)} days`;
};
