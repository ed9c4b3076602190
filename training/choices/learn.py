"""The choices that a release is to carry, and their file."""

from pathlib import Path

from contract.choices import Choices, ChoiceWeights
from contract.errors import UserError
from contract.manifest import CHOICES
from training.choices.examples import Kind, choices_in
from training.choices.fit import chosen, fit

_CHOOSE_ON = 0.85


def learn(folder: Path) -> Choices:
    """From the log of checkouts below `folder`. Raises UserError."""
    return Choices(payment=_weights(folder, "payment"), shipping=_weights(folder, "shipping"))


def _weights(folder: Path, kind: Kind) -> ChoiceWeights:
    choices = choices_in(folder, kind)
    first = int(_CHOOSE_ON * len(choices))
    if first == len(choices) or not first:
        raise UserError(f"{folder}: {len(choices)} choices of a {kind} are too few to learn from")
    return fit(choices, *chosen(choices[:first], choices[first:]))


def write(folder: Path, learned: Choices) -> None:
    """Raises UserError where `folder` can not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CHOICES).write_bytes(learned.as_bytes())
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None


def read(folder: Path) -> bytes:
    """The file in `folder`, as `write` wrote it. Raises UserError."""
    path = folder / CHOICES
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make it with `tillwise-train choices`") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    Choices.parse(content, str(path))
    return content
