"""What to call a segment: what sets its centroid apart, in words."""

from collections.abc import Sequence

import numpy as np

from contract.behaviour import BEHAVIOUR
from training.segments.clustering import Vectors

# Figures that say much the same stand in one group: a name takes one of it. (high, low)
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "frequency": {
        "orders": ("many orders", "few orders"),
        "gap_days": ("few orders", "many orders"),
    },
    "size": {
        "items_per_order": ("large baskets", "small baskets"),
        "spend_per_order": ("high spend", "low spend"),
    },
    "recency": {"days_since_order": ("long absent", "bought lately")},
    "promotion": {
        "coupon_share": ("promo-driven", "without coupons"),
        "promotions": ("promo-driven", "past promotions"),
    },
    "looking": {
        "items_viewed": ("looks at much", "looks at little"),
        "categories_viewed": ("looks around widely", "looks at little"),
    },
    "habit": {"repeat_share": ("buys the same again", "tries new things")},
}
_TRAITS, _NOTICEABLE = 2, 0.35  # in a name; standard deviations from the mean
_CLEARLY = 1.25  # how much stronger a later figure of a group must be to speak for it
_ORDINARY = "ordinary shoppers"


def named(centroids: Vectors) -> tuple[str, ...]:
    """A name for each of the standardised `centroids` [k, B], no two alike: where two would be,
    they are told apart by further traits, and by a number in the end."""
    traits = [_traits(centroid) for centroid in centroids]
    length = [_TRAITS] * len(traits)
    while True:
        names = [_joined(own[:upto]) for own, upto in zip(traits, length, strict=True)]
        longer = [
            place
            for place, name in enumerate(names)
            if names.count(name) > 1 and length[place] < len(traits[place])
        ]
        if not longer:
            return tuple(
                name if names.count(name) == 1 else f"{name} ({1 + names[:place].count(name)})"
                for place, name in enumerate(names)
            )
        for place in longer:
            length[place] += 1


def _traits(centroid: Vectors) -> list[tuple[str, str]]:
    """(group, words) of what sets the centroid apart, the strongest first."""
    strength: list[tuple[float, str, str]] = []
    for group, figures in GROUPS.items():
        values = {name: float(centroid[BEHAVIOUR.index(name)]) for name in figures}
        figure = next(iter(values))
        for other, value in values.items():
            if abs(value) > _CLEARLY * abs(values[figure]):
                figure = other
        if abs(values[figure]) >= _NOTICEABLE:
            high, low = figures[figure]
            strength.append((abs(values[figure]), group, high if values[figure] > 0 else low))
    return [(group, words) for _, group, words in sorted(strength, key=lambda one: -one[0])]


def _joined(traits: Sequence[tuple[str, str]]) -> str:
    """`many orders` and `small baskets` are many small baskets."""
    words = dict(traits)
    amount, size = words.get("frequency"), words.get("size")
    if amount and size and size.endswith("baskets"):
        both = f"{amount.split()[0]} {size}"
        place = min(
            place for place, (group, _) in enumerate(traits) if group in {"frequency", "size"}
        )
        rest = [told for group, told in traits if group not in {"frequency", "size"}]
        return ", ".join([*rest[:place], both, *rest[place:]])
    return ", ".join(told for _, told in traits) or _ORDINARY


def largest_first(labels: np.ndarray[tuple[int], np.dtype[np.int64]], k: int) -> list[int]:
    """The clusters by their size, equal ones by their number."""
    sizes = np.bincount(labels, minlength=k)
    return sorted(range(k), key=lambda cluster: (-sizes[cluster], cluster))
