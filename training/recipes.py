"""Frozen configurations as functions, named by the shape of what they train, not by a data set."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from contract.errors import UserError

Settings = TypeVar("Settings", bound="Any")

_MAY_BE_ZERO = frozenset(
    {
        "seed",
        "dropout",
        "id_dropout",
        "search_share",
        "content_weight",
        "synthetic_share",
        "explored_weight",
        "explored_loss",
        "ranker_dropout",
        "unknown_share",
        "empty_share",
        "weight_decay",
        "tower_patience",
        "ranker_patience",
    }
)

_SHARES = (
    "dropout",
    "id_dropout",
    "search_share",
    "synthetic_share",
    "ranker_dropout",
    "unknown_share",
    "empty_share",
    "explored_loss",
)


@dataclass(frozen=True)
class Recipe:
    """Every setting of a fit. Counts are items, epochs or examples; times are days."""

    name: str
    seed: int = 0
    min_item_baskets: int = 5
    # The space and the towers.
    dimension: int = 64
    blocks: int = 1
    heads: int = 2
    dropout: float = 0.1
    id_dropout: float = 0.1
    search_share: float = 0.15
    content_weight: float = 0.5
    # Made-up baskets of sparse kinds of shoppers, as a share of the real examples.
    synthetic_share: float = 0.0
    negatives: int = 1_024
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    tower_examples: int = 12_000
    tower_epochs: int = 3
    tower_patience: int = 1
    refit_epochs: int = 1
    # The ranker.
    ranker_days: int = 42
    # Stretches of that many days, each with everything frozen at its own start; examples of each.
    ranker_windows: int = 1
    ranker_examples: int = 9_000
    ranker_hidden: int = 64
    ranker_dropout: float = 0.0
    ranker_learning_rate: float = 5e-3
    ranker_batch_size: int = 128
    ranker_epochs: int = 12
    ranker_patience: int = 6
    unknown_share: float = 0.25
    empty_share: float = 0.3
    validation_examples: int = 2_000
    # As how many an item counts, among those that were not bought, that its shopper refused.
    refused_weight: float = 4.0
    # As how many baskets a place counts that was drawn by chance and whose item was bought, before
    # the inverse of its chance; 0 learns nothing of them. All of it, .3 or .1, whichever completes
    # the validation's baskets best, if that costs no more than `explored_loss` of their NDCG; 1:
    # all of it, whatever it costs.
    explored_weight: float = 1.0
    explored_loss: float = 0.01

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _MAY_BE_ZERO or field.name == "name":
                continue
            if not value > 0:
                raise UserError(f"{field.name} must be more than zero, not {value}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        if self.dimension % self.heads:
            raise UserError(f"dimension {self.dimension} does not divide into {self.heads} heads")


def demo() -> Recipe:
    """Small enough for a laptop: minutes on two cores."""
    return Recipe("demo", ranker_windows=2, ranker_epochs=5)


def base() -> Recipe:
    """The same shape with more of everything; for a night on a machine or minutes on a GPU."""
    return Recipe(
        "base",
        dimension=128,
        blocks=2,
        heads=4,
        negatives=4_096,
        batch_size=512,
        tower_examples=120_000,
        tower_epochs=20,
        tower_patience=3,
        refit_epochs=8,
        ranker_windows=2,
        ranker_examples=30_000,
        ranker_hidden=128,
        ranker_epochs=20,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"demo": demo, "base": base}


def recipe(name: str, settings: list[str] | None = None) -> Recipe:
    """The recipe `name` with `key=value` settings; UserError naming what is wrong."""
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    return with_settings(RECIPES[name](), settings)


def with_settings(chosen: Settings, settings: list[str] | None) -> Settings:
    """`chosen` changed by `key=value` texts; UserError naming what is wrong."""
    changed: dict[str, Any] = dict(_setting(chosen, text) for text in settings or [])
    return replace(chosen, **changed)


def _setting(chosen: Any, text: str) -> tuple[str, int | float | str]:
    key, separator, value = text.partition("=")
    known = {field.name for field in fields(chosen)} - {"name"}
    if not separator or key not in known:
        raise UserError(
            f"--set {text}: expected key=value with a key of {', '.join(sorted(known))}"
        )
    kind = type(getattr(chosen, key))
    if kind is str:
        return key, value
    try:
        number = kind(value)
    except ValueError:
        raise UserError(f"--set {text}: {value!r} is not a {kind.__name__}") from None
    if not (number >= 0 and number < float("inf")):
        raise UserError(f"--set {text}: must be a finite number, zero or more")
    return key, number
