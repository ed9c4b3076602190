// Asking about the basket: one question at a time, with what the page needs to show the answer.

import { api, latest } from "./gateway.js";
import { known, learn, request, state } from "./state.js";

const QUIET_MS = 120; // how long the basket must rest before it is asked about

// `meet` finds out who shops here, before the first question.
export const asking = (meet) =>
  latest(async (signal) => {
    if (!state.met) await meet(signal);
    const began = performance.now();
    const about = { visitor_id: state.shopper.visitor_id, gpc: state.gpc };
    const standing = api.standing(about, signal).catch(() => null);
    const answer = await api.decide(request(), signal);
    const arrived = performance.now();
    const roundTripMs = arrived - began;
    const clock = () => answer.toldAt + performance.now() - arrived;
    const books = bookTitles(answer, signal);
    const unknown = answer.recommendations.map((one) => one.item_id).filter((id) => !known.has(id));
    if (unknown.length > 0) learn(await api.named(unknown, signal));
    return { answer: { ...answer, ...(await books) }, roundTripMs, clock, standing: await standing };
  }, QUIET_MS);

// What the shop calls its own rules and offers; where that can not be told, their ids must do.
async function bookTitles({ applied_rules, rejected_offers }, signal) {
  const [rules, offers] = await Promise.all([
    applied_rules.length > 0 ? api.written("rules", signal).then((held) => held.rules).catch(() => []) : [],
    rejected_offers.length > 0 ? api.written("offers", signal).then((held) => held.offers).catch(() => []) : [],
  ]);
  const followed = applied_rules.map((id) => rules.find((rule) => rule.id === id)).filter(Boolean);
  return { rules: followed, titles: new Map(offers.map((one) => [one.offer_id, one.title])) };
}
