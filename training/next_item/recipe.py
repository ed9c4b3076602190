"""Frozen configurations of sequence models, named by the shape of the data: `sequences` of what a
user chose over a long time, `sessions` of what was clicked in a few minutes."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from contract.errors import UserError
from training.models.blocks import BLOCKS
from training.models.next_item import READOUTS
from training.recipes import with_settings

_MAY_BE_ZERO = frozenset(
    {
        *("seed", "dropout", "weight_decay", "patience", "negatives"),
        *("cosine", "repeats", "crop", "mask", "reorder"),
    }
)
_SHARES = ("dropout", "crop", "mask", "reorder")


@dataclass(frozen=True)
class SequenceRecipe:
    """Every setting of a fit. `negatives` 0: the softmax is over all items. `members`: models of
    different seeds whose answers are averaged. `cosine` and `repeats` are 0 or 1."""

    name: str
    seed: int = 0
    members: int = 1
    # The model.
    dimension: int = 64
    block: str = "attention"
    blocks: int = 1
    heads: int = 1
    length: int = 50
    dropout: float = 0.3
    cosine: int = 0
    temperature: float = 0.07
    repeats: int = 0
    readout: str = "state"
    # The training.
    negatives: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 40
    patience: int = 4
    validation_examples: int = 6_000
    # Shares of sequences cropped and reordered, and of places masked.
    crop: float = 0.0
    mask: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            if value < 0 or (value == 0 and field.name not in _MAY_BE_ZERO):
                raise UserError(f"{field.name} must be more than zero, not {value}")
        for name in _SHARES:
            if getattr(self, name) > 1:
                raise UserError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        if self.block not in BLOCKS:
            raise UserError(f"block {self.block!r} is unknown; there are {', '.join(BLOCKS)}")
        if self.readout not in READOUTS:
            raise UserError(f"readout {self.readout!r} is unknown; there are {', '.join(READOUTS)}")
        if self.repeats and self.negatives:
            raise UserError(
                "repeats=1 needs negatives=0: sampled negatives do not learn its scores"
            )
        if self.dimension % self.heads:
            raise UserError(f"dimension {self.dimension} does not divide into {self.heads} heads")


def sequences() -> SequenceRecipe:
    """Long histories of distinct items."""
    return SequenceRecipe("sequences", members=2, block="hstu", dropout=0.4, epochs=25)


def sessions() -> SequenceRecipe:
    """Short visits in which items come back."""
    return SequenceRecipe(
        "sessions",
        dimension=128,
        block="ligr",
        heads=2,
        length=30,
        dropout=0.4,
        cosine=1,
        readout="items",
        negatives=2_048,
        batch_size=256,
        learning_rate=2e-3,
        epochs=7,
    )


SEQUENCE_RECIPES: dict[str, Callable[[], SequenceRecipe]] = {
    "sequences": sequences,
    "sessions": sessions,
}


def sequence_recipe(name: str, settings: list[str] | None = None) -> SequenceRecipe:
    """The recipe `name` with `key=value` settings; UserError naming what is wrong."""
    if name not in SEQUENCE_RECIPES:
        known = ", ".join(sorted(SEQUENCE_RECIPES))
        raise UserError(f"recipe {name!r} is not one of sequence models; there are {known}")
    return with_settings(SEQUENCE_RECIPES[name](), settings)
