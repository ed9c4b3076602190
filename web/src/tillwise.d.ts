// The types of the snippet, for shops that use TypeScript: reference this file, and
// `window.tillwise` is known. The snippet itself is written against the same types.

/** What the shopper agreed to; what is left out was not agreed to. */
export interface Purposes {
  personalization?: boolean;
  analytics?: boolean;
  offers?: boolean;
}

/** Whoever asks the shopper for consent, as `/sdk/consent.js` needs it. */
export interface ConsentPlatform {
  /** Calls `hear` with the shopper's word once there is one, and with every later one; never before. */
  follow(hear: (purposes: Required<Purposes>) => void): void;
}

/** One line of an event as GA4 has it: prices in major units (12.99). */
export interface Ga4Item {
  item_id: string | number;
  quantity?: number | string | undefined;
  price?: number | string | undefined;
  index?: number | string | undefined;
  currency?: string | undefined;
  [more: string]: unknown;
}

/** The parameters of an event as GA4 has them; amounts in major units (12.99). */
export interface Ga4Parameters {
  items?: Ga4Item[] | undefined;
  currency?: string | undefined;
  value?: number | string | undefined;
  coupon?: string;
  payment_type?: string;
  shipping_tier?: string;
  search_term?: string;
  engagement_ms?: number;
  /** How much of the page was seen, 0 to 100. */
  percent_scrolled?: number;
  /** What the shopper says of the items of an event `feedback`. */
  feedback?: "not_for_me" | "hidden";
  [more: string]: unknown;
}

/** What a page may send. A purchase is not among them: the shop's server sends it. */
export type EventName =
  | "view_item_list"
  | "view_item"
  | "select_item"
  | "search"
  | "add_to_cart"
  | "remove_from_cart"
  | "view_cart"
  | "begin_checkout"
  | "add_shipping_info"
  | "add_payment_info"
  | "view_promotion"
  | "select_promotion"
  | "page_view"
  | "click"
  | "hover"
  | "scroll"
  | "page_dwell"
  | "feedback";

/** Who the shopper is to the gateway; never a user id, which a page may not claim. */
export interface Ids {
  visitor_id: string;
  session_id: string;
}

export interface Settings {
  /** A `collect` key; it may be public. */
  key?: string;
  /** The gateway, https://... ; by default where the snippet came from. */
  url?: string;
  /** ISO 4217, for pages whose events name no currency. */
  currency?: string | undefined;
  /** Where `decide` asks: an address of the shop's own server. By default the gateway, with a token. */
  decide?: string;
  /** The name of the data layer, when it is not `dataLayer`; "" reads none. */
  layer?: string;
  country?: string;
  region?: string;
}

/** A line of the cart, as `POST /v1/checkout/decide` has it: the price in minor units (1299). */
export interface CartLine {
  item_id: string;
  quantity: number;
  price?: number | null;
}

/** The body of `POST /v1/checkout/decide`; ids, consent and gpc are filled in. */
export interface DecideRequest {
  cart: { cart_id: string; currency: string; items: CartLine[] };
  user_id?: string;
  [more: string]: unknown;
}

export interface DecideOptions {
  /** A page token, signed by the shop's server. */
  token?: string;
  /** How long to wait at most; 2000. */
  timeout_ms?: number;
}

export interface Decision {
  decision_id: string;
  attribution_token: string;
  recommendations: { item_id: string; score: number; reasons: { code: string; text: string }[] }[];
  rung: "full" | "no_ranker" | "session_knn" | "popular" | "empty";
  degraded: string[];
  [more: string]: unknown;
}

export interface Tillwise {
  /** Settings that the script element does not carry in its data attributes. */
  init(settings: Settings): void;
  /** The shopper's word. Nothing at all happens before it; without a purpose, everything is erased, but a no until it is answered. */
  consent(purposes: Purposes): void;
  /** The shop's own ids instead of the snippet's random ones; they are not stored here. */
  visitor(ids: Partial<Ids>): void;
  /** What happened, in GA4's words. */
  event(name: EventName, parameters?: Ga4Parameters): void;
  /** A decision, or null when there was none in time; never rejects. */
  decide(request: DecideRequest, options?: DecideOptions): Promise<Decision | null>;
  /** The ids in use, for the shop's server; null without consent. */
  ids(): Ids | null;
  /** Runs commands, as the queue before the snippet does. */
  push(...commands: Command[]): number;
}

/** What the queue before the snippet holds: ["consent", {...}], or a function of the snippet. */
export type Command =
  | ["init", Settings]
  | ["consent", Purposes]
  | ["visitor", Partial<Ids>]
  | ["event", EventName, Ga4Parameters?]
  | ((tillwise: Tillwise) => void);

declare global {
  interface Window {
    tillwise?: Tillwise | Command[];
    /** Consent platforms of the shop's own, for `/sdk/consent.js`, which may come later. */
    tillwiseConsent?: ConsentPlatform[] | { push(...platforms: ConsentPlatform[]): number };
  }
}
