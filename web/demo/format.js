// Words, prices and small pieces of the page. Text only ever enters the page as text.

const formats = new Map();

// A price in minor units of `currency`; what is not priced says so.
export function money(minor, currency) {
  if (minor === null || minor === undefined) return "Not priced";
  return formatOf(currency).format(minor / 10 ** digits(currency));
}

function formatOf(currency) {
  if (!formats.has(currency)) {
    const locale = document.documentElement.lang;
    formats.set(currency, new Intl.NumberFormat(locale, { style: "currency", currency }));
  }
  return formats.get(currency);
}

// How many digits a currency has after the point.
export const digits = (currency) => formatOf(currency).resolvedOptions().maximumFractionDigits;

export function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

export const milliseconds = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toString());
export const plain = (name) => name.replaceAll("_", " ");

// How the data write a kind of goods, in small letters.
export const sentence = (name) => name.charAt(0) + name.slice(1).toLowerCase();

export const nameOf = (item) => item.title || `Item ${item.item_id}`;

// An element with attributes and children: make("p", { class: "name" }, "Milk").
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== false));
  return element;
}

// The first that fits any level of an item's categories.
const ICONS = [
  [/BEER|WINE|SPIRIT|MILK|SOFT DRINK|JUICE|WATER/, "bottle"],
  [/BREAD|BAKERY|PASTRY|BAKED|CAKE|COOKIE|CRACKER/, "loaf"],
  [/CHEESE|EGGS|DAIRY|YOGURT|DELI|MARGARINE|BUTTER/, "wedge"],
  [/PRODUCE|SALAD|GARDEN|FRUIT|VEGETABLE/, "leaf"],
  [/COFFEE|TEA\b|COCOA/, "cup"],
  [/SEAFOOD|FISH|TUNA/, "fish"],
  [/MEAT|BEEF|PORK|CHICKEN|SAUSAGE/, "meat"],
  [/FLORAL/, "flower"],
  [/NUTRITION|VITAMIN|REMED/, "pill"],
  [/DRUG|COSMETIC|SOAP|CLEANER|DETERGENT|TISSUE|TOWEL|HAIR/, "care"],
  [/GROCERY/, "jar"],
];

// The sign of the part of the shop that an item comes from.
export function tile(item) {
  const path = (item.category_path ?? []).join(" ").toUpperCase();
  const found = ICONS.find(([pattern]) => pattern.test(path));
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  svg.setAttribute("class", "icon");
  use.setAttribute("href", `#icon-${found ? found[1] : "basket"}`);
  svg.append(use);
  return make("span", { class: "tile", "aria-hidden": "true" }, svg);
}

// `look(item)` shows the item itself, where the name leads to it.
export function label(item, look) {
  const name = nameOf(item);
  const open = (event) => {
    event.preventDefault();
    look(item);
  };
  const link = look && make("a", { href: `#${item.item_id}`, "data-focus": `look-${item.item_id}`, click: open }, name);
  return make(
    "div",
    {},
    make("p", { class: "name" }, link || name),
    make("p", { class: "brand" }, [item.brand, aisle(item)].filter(Boolean).join(", ")),
  );
}

function aisle(item) {
  return sentence(item.category_path?.[1] ?? item.category_path?.[0] ?? "");
}
