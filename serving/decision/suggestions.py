"""The suggestions as they are written: the shown items with their scores and reasons, for the
answer and for the record."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.events import unchecked
from contract.items import Floats
from serving.decision import reasons, rules
from serving.decision.checkout import Checkout
from serving.decision.messages import Reason, Recommendation
from serving.decision.outcome import Shown
from serving.decision.reason_texts import Texts

# The ranker is asked a few hundred times over for it: about half a millisecond.
_TO_ATTRIBUTE_MS = 2.0


@dataclass(frozen=True)
class Suggestions:
    """What is answered, and the same as it is recorded."""

    told: tuple[Recommendation, ...] = ()
    shown: tuple[Shown, ...] = ()


def suggestions(
    checkout: Checkout,
    done: rules.Overridden,
    chances: Mapping[int, float],
    delicate: tuple[str, ...],
    texts: Texts,
) -> Suggestions:
    """The best items that `done` leaves, as many as were asked for; `chances` of standing there, by
    index, of those that were drawn; `delicate` and `texts` as of `reasons.explain`."""
    answer = done.answer.cut(checkout.request.num_results)
    found, ranked = answer.candidates, answer.ranked
    if found is None or ranked is None:
        return Suggestions()
    places, release = ranked.places, checkout.release
    index, pairs = found.listed.index[places], found.pairs[places]
    owed = None if answer.owed is None else answer.owed.of(places)
    if owed is None and answer.rung == "full":
        owed = _owed(checkout, pairs)
    moved, rows, scores = _rows(owed, len(index)), pairs.tolist(), ranked.scores.tolist()
    nothing: list[tuple[Reason, ...]] = [()] * len(index)
    why = checkout.deadline.inline(
        "reasons",
        lambda: reasons.explain(
            *(release, found.evidence, index, pairs, owed),
            personal=checkout.subject.personal,
            chosen=done.by.keys(),
            delicate=delicate,
            texts=texts,
        ),
        nothing,
    )
    told, shown = [], []
    falling = _falling(scores)
    for place, item in enumerate(index.tolist()):
        item_id, said = release.vocabulary.item_id(item), why[place]
        made = {"item_id": item_id, "score": falling[place], "reasons": said}
        told.append(unchecked(Recommendation, made))
        codes, chance = tuple([one.code for one in said]), chances.get(item, 1.0)
        recorded = (item_id, scores[place], codes, rows[place], moved[place])
        shown.append(Shown(*recorded, done.by.get(item), chance))
    return Suggestions(tuple(told), tuple(shown))


def _rows(owed: Floats | None, size: int) -> list[list[float]] | list[None]:
    return [None] * size if owed is None else owed.tolist()


def _owed(checkout: Checkout, shown: Floats) -> Floats | None:
    """What the ranker's scores owe to which evidence, as long as there is time to ask."""
    if checkout.release.explainer is None:
        return None
    if checkout.deadline.remaining_ms() < _TO_ATTRIBUTE_MS:
        checkout.deadline.degrade("attributions")
        return None
    return checkout.deadline.inline(
        "attributions", lambda: reasons.owed(checkout.release, shown), None
    )


def _falling(scores: list[float]) -> list[float]:
    """Scores in the order of what is shown: who sorts by them must not undo the rules."""
    falling, most = scores[:], float("-inf")
    for place in range(len(scores) - 1, -1, -1):
        most = falling[place] = max(most, scores[place])
    return falling
