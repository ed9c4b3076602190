"""What the ranker learns from exploration: at a place that was drawn by chance, which of all that
could have been shown there is bought. Each purchase counts by the inverse of the chance of what was
shown (`DrawnPlaces.weight`), so their sum is, in the mean, that of a shop which shows everything of
the pool alike, whatever its policy likes to show."""

import numpy as np

from contract.encoding import FIRST_ITEM, Situation, Vocabulary
from training.data.baskets import Timelines
from training.data.drawn_places import DrawnPlaces
from training.data.logged_checkouts import LABEL_WINDOW_US
from training.data.ranking_examples import DrawnQuestion


def drawn_questions(
    drawn: DrawnPlaces,
    timelines: Timelines,
    vocabulary: Vocabulary,
    between_us: tuple[int, int],
    counts: float,
) -> list[DrawnQuestion]:
    """Of the decisions made `between_us`, histories up to its start. A purchase counts as `counts`
    cases in the mean of all that was drawn. Items that the vocabulary lacks are left out."""
    start_us, end_us = between_us
    weight = drawn.weight * counts
    chosen = (drawn.bought > 0) & (drawn.occurred_us >= start_us) & (drawn.occurred_us < end_us)
    found = []
    for row in np.flatnonzero(chosen).tolist():
        shown, pool = (
            vocabulary.indices(ids) for ids in ([drawn.item_id[row]], drawn.could_be[row])
        )
        pool = np.unique(pool[pool >= FIRST_ITEM])
        if shown[0] < FIRST_ITEM or len(pool) < 2:
            continue  # there was no choice
        now_us = int(drawn.occurred_us[row])
        situation = Situation(
            timelines.view(drawn.subject[row], start_us, now_us),
            drawn.cart[row],
            now_us,
            drawn.context[row],
            rules=timelines.rules,
        )
        known_us = max(now_us + LABEL_WINDOW_US, int(drawn.bought_us[row]))
        found.append(DrawnQuestion(situation, pool, int(shown[0]), float(weight[row]), known_us))
    return found
