"""Books of rules that benchmarks decide under: of the kinds that shops write, and harder ones."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from contract.rules import RuleBook
from contract.segments import SEGMENTS


@dataclass(frozen=True)
class Names:
    """What rules name."""

    items: Sequence[str]
    categories: Sequence[str]


Condition = Callable[[np.random.Generator, Names], str]


def _one_of(some: Sequence[str], draw: np.random.Generator) -> str:
    return some[int(draw.integers(len(some)))]


def _text(name: str) -> str:
    """`name` as a condition writes it."""
    return json.dumps(name, ensure_ascii=False)


def _targeted(draw: np.random.Generator, names: Names) -> tuple[str, ...]:
    item = _text(_one_of(names.items, draw))
    category = _text(_one_of(names.categories, draw))
    segment = SEGMENTS[draw.integers(len(SEGMENTS))]
    amount = int(draw.integers(10, 500)) * 100
    return (
        f"'{segment}' in segments && cart.total >= {amount} && {category} in cart.categories",
        f"{item} in cart.items",
        f"{category} in cart.categories && context.country == 'DE'",
        f"context.region == 'R{draw.integers(50)}' && cart.total > {amount}",
        f"context.device == 'tablet' && '{segment}' in segments",
        f"{category} in decision.categories",
        f"!('{segment}' in segments) && {item} in cart.items",
        f"'{segment}' in segments && shopper.orders >= {draw.integers(5, 60)}",
    )


def _usual(draw: np.random.Generator, names: Names) -> str:
    kinds = _targeted(draw, names)
    return kinds[draw.integers(len(kinds))]


def _many_hold(draw: np.random.Generator, names: Names) -> str:
    amount = int(draw.integers(10, 500)) * 100
    segment = SEGMENTS[draw.integers(len(SEGMENTS))]
    kinds = (
        *_targeted(draw, names),
        f"'{segment}' in segments && cart.total >= {amount}",
        f"shopper.orders >= {draw.integers(1, 20)} && context.hour >= {draw.integers(24)}",
        f"cart.total >= {amount} && cart.quantity > {draw.integers(1, 12)}",
    )
    return kinds[draw.integers(len(kinds))]


def _amounts(draw: np.random.Generator, names: Names) -> str:
    return f"cart.total >= {int(draw.integers(0, 60_000))}"


def _all_hold(draw: np.random.Generator, names: Names) -> str:
    return f"cart.total >= 0 && cart.quantity < {int(draw.integers(10_000, 10**9))}"


USUAL: Final = "usual"
MANY_HOLD: Final = "many-hold"
CONDITIONS: Final[Mapping[str, Condition]] = {
    USUAL: _usual,
    MANY_HOLD: _many_hold,
    "amounts": _amounts,
    "all-hold": _all_hold,
}


def book(kind: str, rules: int, names: Names, seed: int = 0) -> RuleBook:
    """`rules` rules over `names`, with conditions of the `kind` of CONDITIONS."""
    draw, condition = np.random.default_rng(seed), CONDITIONS[kind]
    made: list[dict[str, Any]] = []
    for number in range(rules):
        item = _one_of(names.items, draw)
        category = _one_of(names.categories, draw)
        actions: tuple[dict[str, Any], ...] = (
            {"kind": "pin", "items": [item], "position": 1 + number % 5},
            {"kind": "exclude", "categories": [category]},
            {"kind": "boost", "categories": [category]},
            {"kind": "boost", "items": [item], "places": 5},
            {"kind": "force_offer", "offer_id": f"o{number % 20}"},
            {"kind": "order_payments", "first": ["invoice"]},
        )
        schedule = {"weekdays": ["monday", "friday"]} if number % 7 == 0 else {}
        made.append(
            {
                "id": f"rule-{number:04}",
                "condition": condition(draw, names),
                "priority": int(draw.integers(-5, 5)),
                "schedule": schedule,
                "actions": [actions[number % len(actions)]],
            }
        )
    return RuleBook.model_validate({"rules": made})
