"""`contract.policy.choose` with numpy: what its compiled loops are held against."""

import numpy as np

from contract.policy import NO_OFFER, PRICE_SPREAD, Allowed, Choice, Floats

AS_DEAR = 1e-9


def plain_choice(
    gain: Floats,
    cost: Floats,
    allowed: Allowed,
    price: float,
    draw: float,
    *,
    holdout_share: float,
    explore_share: float,
) -> Choice:
    open_arms = np.flatnonzero(allowed)
    if not len(open_arms) or open_arms[0] != NO_OFFER:
        open_arms = np.concatenate([[NO_OFFER], open_arms[open_arms != NO_OFFER]])
    net, spent = gain[open_arms], cost[open_arms]
    net[0] = spent[0] = 0.0
    greedy, by_policy = _best_by_price(net, spent, price), 1.0 - holdout_share - explore_share
    chances = np.zeros(len(gain))
    chances[open_arms] += explore_share / len(open_arms)
    chances[NO_OFFER] += holdout_share
    for place, share in greedy:
        chances[open_arms[place]] += by_policy * share
    propensities = tuple(chances.tolist())
    if draw < holdout_share:
        return Choice(NO_OFFER, "holdout", propensities)
    if draw < holdout_share + explore_share:
        place = int((draw - holdout_share) / explore_share * len(open_arms))
        return Choice(int(open_arms[min(place, len(open_arms) - 1)]), "explore", propensities)
    rest = (draw - holdout_share - explore_share) / by_policy
    return Choice(int(open_arms[_drawn(greedy, rest)]), "policy", propensities)


def _best_by_price(gain: Floats, cost: Floats, price: float) -> list[tuple[int, float]]:
    low, high = price * (1.0 - PRICE_SPREAD), price * (1.0 + PRICE_SPREAD)
    best, at = int((gain - low * cost).argmax()), low
    found: list[tuple[int, float]] = []
    while at < high:
        cheaper = np.flatnonzero(cost < cost[best] - AS_DEAR)
        if not len(cheaper):
            break
        meets = (gain[best] - gain[cheaper]) / (cost[best] - cost[cheaper])
        until = max(float(meets.min()), at)
        if until >= high:
            break
        if until > at:
            found.append((best, (until - at) / (high - low)))
        level = cheaper[meets <= until]
        best, at = int(level[int(cost[level].argmin())]), until
    return [*found, (best, 1.0 - sum(share for _, share in found))]


def _drawn(shares: list[tuple[int, float]], draw: float) -> int:
    for place, share in shares:
        if draw < share:
            return place
        draw -= share
    return shares[-1][0]
