"""What the training window looks like to a gateway that serves this recommender: pair features and
scores of what would be shown, and the middle of the items in the cart. Live decisions are held
against it, so it is made of whole decisions, not of training rows: candidates that nobody is shown
look different.
"""

from collections.abc import Sequence

import numpy as np

from contract.drift_profile import Profile, baseline_of
from contract.encoding import Situation
from contract.items import Floats
from contract.pair_features import PAIR_FEATURES
from contract.served import CART_VECTOR, LEAD, SCORE
from training.data.ranking_examples import rank_inputs
from training.recommender import Recommender, neural_side

SHOWN = 5
MOST = 2_000


def served_profile(
    recommender: Recommender, situations: Sequence[Situation]
) -> tuple[Profile, Floats]:
    """Of at most MOST of `situations`, evenly taken; and the pair features of what is shown in
    them, [S, F]."""
    asked = situations[:: max(len(situations) // MOST, 1)][:MOST]
    neural = neural_side(recommender.towers, asked, recommender.vocabulary)
    rows = rank_inputs(asked, recommender.vocabulary, recommender.tables, neural, label="profile")
    shown: list[Floats] = []
    scores: list[Floats] = []
    leads: list[float] = []
    carts: list[Floats] = []
    for evidence, merged, features in rows:
        ((_, found),) = recommender.scores([(evidence, merged, features)])
        best = np.argsort(-found, kind="stable")[:SHOWN]
        shown.append(features[best])
        scores.append(found[best])
        if len(best) > 1:
            leads.append(float(found[best[0]] - found[best[1]]))
        if len(evidence.cart):
            carts.append(neural.item_vectors[evidence.cart].mean(axis=0))
    every = np.concatenate(shown)
    together = every.astype(np.float64)
    columns = {name: together[:, place] for place, name in enumerate(PAIR_FEATURES)}
    columns[SCORE] = np.concatenate(scores).astype(np.float64)
    columns[LEAD] = np.array(leads or [0.0])
    vectors = {CART_VECTOR: np.stack(carts).astype(np.float64)} if carts else {}
    return baseline_of(columns, len(asked), vectors), every
