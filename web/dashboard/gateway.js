// What the page asks of the gateway. The key stands in this tab's session alone and goes with it; in the
// demo the shop's own server asks, and no key is here.

const said = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
export const API = said("tillwise-api");
export const OPEN = API !== "/v1"; // the demo
const KEY = "tillwise-admin-key";

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

// JSON of `API + path`. Raises Refused with what the gateway said.
export const ask = async (path, query = {}, { method = "GET", body } = {}) => {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  const headers = OPEN ? {} : { Authorization: `Bearer ${key.get()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const text = asked.size ? `?${asked}` : "";
  let answer;
  try {
    answer = await fetch(`${API}${path}${text}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, "The gateway can not be reached.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, told.detail ?? `The gateway answered ${answer.status}.`);
  return told;
};
