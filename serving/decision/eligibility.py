"""Which items may be recommended at all in one checkout: one mask, applied before ranking and
checked again after it."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from contract import feedback
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.events import FEEDBACK_CODE
from contract.features import FEEDBACK, SubjectState
from contract.items import Indices
from serving.decision.messages import DecideRequest, Filter
from serving.inference.assortment import Mask
from serving.inference.release import Release, ReleaseCatalogue

_WORD: Final = {code: kind for kind, code in FEEDBACK_CODE.items()}


@dataclass(frozen=True, eq=False)
class Eligible:
    """`mask` [N] over the vocabulary; `price_ignored`: a maximum price was asked for in a currency
    that is not the catalogue's, so it could not be applied. `refused`: items that were left out
    because of what the shopper said of them, by item id."""

    mask: Mask
    count: int
    price_ignored: bool
    refused: dict[str, str] = field(default_factory=dict)

    def of(self, index: Indices) -> Indices:
        """Those of `index` that may be recommended, in their order."""
        return index[self.mask[index]]


def eligible(release: Release, request: DecideRequest) -> Eligible:
    """Available in the region, not in the cart and not filtered out."""
    shop, wanted = release.catalogue, request.filter
    on_sale = shop.now  # one moment, whatever the shop says meanwhile
    mask = on_sale.sellable(request.context.region)
    _apply_categories(mask, shop, wanted)
    price_ignored = False
    if wanted.max_price is not None:
        price_ignored = request.cart.currency != shop.currency
        if not price_ignored:  # an item without a price cannot be shown to be cheap enough
            mask &= (on_sale.price >= 0) & (on_sale.price <= wanted.max_price)
    away = (line.item_id for line in request.cart.items)
    mask[release.vocabulary.indices((*away, *wanted.exclude_items))] = False
    mask[:FIRST_ITEM] = False
    return Eligible(mask, int(np.count_nonzero(mask)), price_ignored)


def has_said(state: SubjectState) -> bool:
    """Whether a shopper ever said anything of an item; most have not."""
    return len(state.get(FEEDBACK.name, ())) > 0


def unless_refused(
    may: Eligible, known: Vocabulary, state: SubjectState, now_us: int, days: float
) -> Eligible:
    """`may` without what the shopper said in the last `days` is not for them."""
    keys, words = feedback.refused(state, now_us, days)
    index = known.of_keys(keys)
    out = may.mask[index]
    if not out.any():
        return may
    mask = may.mask.copy()
    mask[index[out]] = False
    told = zip(map(known.item_id, index[out].tolist()), words[out].tolist(), strict=True)
    refused = {item_id: _WORD[word] for item_id, word in told}
    return replace(may, mask=mask, count=may.count - len(refused), refused=refused)


def _apply_categories(mask: Mask, shop: ReleaseCatalogue, wanted: Filter) -> None:
    if wanted.include_categories:
        included = np.zeros(len(mask), bool)
        for name in wanted.include_categories:
            included[shop.in_category(name)] = True
        mask &= included
    for name in wanted.exclude_categories:
        mask[shop.in_category(name)] = False
