"""What rules make of the offers of a decision. Of two words about the same offer that of the
stronger rule holds; an offer that the checkout may not have is never given."""

from collections.abc import Sequence

from contract.rule_draft import Log, Shop
from contract.rules import BlockOffer, ForceOffer, ReplaceOffer, Rule

Claim = tuple[Rule, ForceOffer | BlockOffer | ReplaceOffer]


class Offers:
    """The offers of one decision under the claims of rules. After `given`, `by` names the rule that
    gave an offer and `blocked` the one that took it away."""

    def __init__(self, claims: Sequence[Claim], shop: Shop, log: Log) -> None:
        self._claims, self._shop, self._log = claims, shop, log
        self._blocks = [
            (place, rule, one)
            for place, (rule, one) in enumerate(claims)
            if isinstance(one, BlockOffer)
        ]
        self._swaps = [
            (place, rule, one)
            for place, (rule, one) in enumerate(claims)
            if isinstance(one, ReplaceOffer)
        ]
        self.by: dict[str, str] = {}
        self.blocked: dict[str, str] = {}

    def given(self, chosen: Sequence[str]) -> tuple[str, ...]:
        """What is forced, then of what the models chose as much as may be and goes with it."""
        given: list[str] = []
        for place, (rule, action) in enumerate(self._claims):
            if isinstance(action, ForceOffer):
                self._give_or_other(place, rule, action.offer_id, given)
        for offer_id in chosen:
            if offer_id not in given:
                kept = self._chosen(offer_id, given)
                if kept is not None and self._shop.go_together((*given, kept)):
                    given.append(kept)
        for _, rule, block in self._blocks:
            self._note_spared(rule, block, given)
        return tuple(given)

    def _give(self, place: int, rule: Rule, offer_id: str, given: list[str]) -> bool:
        """Give the offer by the word of the claim at `place`, if nothing speaks against it."""
        if offer_id in given:
            self._log.follow(rule)
        elif (against := self._blocking(offer_id, place)) is not None:
            self._log.note(rule, f"{offer_id}: blocked by {against}")
        elif not self._shop.may_give(offer_id):
            self._log.note(rule, f"{offer_id}: not valid for this checkout")
        elif not self._shop.go_together((*given, offer_id)):
            self._log.note(rule, f"{offer_id}: does not go together with {', '.join(given)}")
        else:
            given.append(offer_id)
            self.by[offer_id] = rule.id
            self._log.follow(rule)
        return offer_id in given

    def _give_or_other(self, place: int, rule: Rule, offer_id: str, given: list[str]) -> bool:
        """`_give`, or what a claim before `place` has given for that offer, and so on from there;
        whether either was."""
        for stronger, other, action in self._swaps:
            if (
                stronger < place
                and action.offer_id == offer_id
                and self._give_or_other(stronger, other, action.by, given)
            ):
                self._log.note(rule, f"{offer_id}: replaced by {other.id}")
                return True
        return self._give(place, rule, offer_id, given)

    def _note_spared(self, rule: Rule, action: BlockOffer, given: Sequence[str]) -> None:
        spared = [one for one in given if _blocks(action, one)]
        for one in spared:
            self._log.note(rule, f"{one}: given by {self.by[one]}")
        if not spared or set(action.offer_ids) - set(spared):
            self._log.follow(rule)

    def _chosen(self, offer_id: str, given: list[str]) -> str | None:
        """The offer that a model chose, unless a rule blocks it or has given another one for it."""
        for place, (rule, action) in enumerate(self._claims):
            if isinstance(action, BlockOffer) and _blocks(action, offer_id):
                self.blocked[offer_id] = rule.id
                return None
            if (
                isinstance(action, ReplaceOffer)
                and action.offer_id == offer_id
                and self._give_or_other(place, rule, action.by, given)
            ):
                if offer_id not in given:  # a stronger rule may have given just this one
                    self.blocked[offer_id] = rule.id
                return None
        return offer_id

    def _blocking(self, offer_id: str, place: int) -> str | None:
        """The rule that blocks the offer by a claim before `place`."""
        blocks = (
            rule.id for at, rule, one in self._blocks if at < place and _blocks(one, offer_id)
        )
        return next(blocks, None)


def _blocks(action: BlockOffer, offer_id: str) -> bool:
    return not action.offer_ids or offer_id in action.offer_ids
