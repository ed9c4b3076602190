"""Item ids may be numbers of any kind, also such as a card could have. Only what the release does
not know is looked at, so that nobody sends a card number in the place of an id."""

from collections.abc import Iterable

from contract.encoding import OOV, Vocabulary
from contract.events import SHORTEST_CARD, looks_like_card
from serving.api.problems import ApiProblem, FieldProblem

LIKE_A_CARD = "looks like a payment card number, and the release knows no such item"


def first_like_card(item_ids: Iterable[str], vocabulary: Vocabulary) -> int | None:
    """The place of the first of `item_ids` that may be a card number."""
    for place, item_id in enumerate(item_ids):
        # Looked up first: a shop whose ids are long numbers pays for no more than that.
        unknown = len(item_id) >= SHORTEST_CARD and vocabulary.index(item_id) == OOV
        if unknown and looks_like_card(item_id):
            return place
    return None


def refuse_cards(field: str, item_ids: Iterable[str], vocabulary: Vocabulary) -> None:
    """Raises a 422 problem that names the place in `field` (with `{}` for its number)."""
    place = first_like_card(item_ids, vocabulary)
    if place is not None:
        named = field.format(place)
        problem = FieldProblem(field=named, message=LIKE_A_CARD)
        raise ApiProblem(422, f"{named}: {LIKE_A_CARD}", errors=[problem])
