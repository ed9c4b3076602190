// The page's state, changed by the shopper and by what the gateway answers, and what follows from it.

export const browserGpc = navigator.globalPrivacyControl === true;
// Away from localhost, a page without TLS is given no random ids.
const randomId = () => crypto.randomUUID?.() ?? "somebody-new";
export const stranger = (label) => ({ visitor_id: randomId(), session_id: randomId(), label, consent: {}, cart: [], bought_too: [] });
export const nobody = stranger("Somebody new");
export const state = {
  shoppers: [nobody],
  shopper: nobody,
  filter: {},
  lines: [], // { item, quantity }, in the order in which they were put in
  consent: false,
  targeting: false, // whether offers may be chosen by it as well
  word: null, // the last that was said of both
  gpc: browserGpc,
  refused: [], // ids of what was said not to be for them, on this page
  looked: null, // the item that was looked at since the last answer
  standing: null, // consent on record and segments, as the gateway says
  suggested: [], // { item, reasons }
  options: { payment_methods: [], shipping_options: [] }, // the shop's own, in its own order
  decided: null, // the last answer, with the rules that it followed
  clock: Date.now, // the gateway's, from the last answer on
  payment: null, // what the shopper chose
  shipping: null,
  failures: 0,
  met: false, // whether the gateway has said who shops here
};
export const known = new Map(); // every item the page has seen, by id

export const learn = (items) => items.forEach((item) => known.set(item.item_id, item));
export const cartIds = () => new Set(state.lines.map((line) => line.item.item_id));
export const currency = () => state.lines[0]?.item.currency ?? [...known.values()][0]?.currency ?? "USD";

export const purposes = () => ({ personalization: state.consent, analytics: state.consent, offers: state.consent && state.targeting });

// The word on file of whoever shops now.
export function agreedBy({ consent }) {
  state.consent = consent.personalization === true;
  state.targeting = consent.offers === true;
}

// What is asked of the shop's server, as things stand.
export function request() {
  const { shopper } = state;
  return {
    visitor_id: shopper.visitor_id,
    session_id: shopper.session_id,
    cart: {
      cart_id: shopper.session_id,
      currency: currency(),
      items: state.lines.map(({ item, quantity }) => ({ item_id: item.item_id, quantity, price: item.price })),
    },
    consent: purposes(),
    gpc: state.gpc,
    filter: { ...state.filter, exclude_items: [...(state.filter.exclude_items ?? []), ...state.refused] },
    payment_methods: state.options.payment_methods.map((one) => one.id),
    shipping_options: state.options.shipping_options.map(({ id, price, days }) => ({ id, price, days })),
  };
}

// Of an item that the page has not been told of.
export function unnamed(itemId) {
  return { item_id: itemId, title: "", brand: "", category_path: [], price: null, currency: currency() };
}
