"""What a protocol trains on, chooses on and asks: `leave-one-out` from lines `user item item ...`,
`session` from training sessions and test instances.

Validation is always part of the training data: the item before the last, or the latest sessions.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from contract.encoding import FIRST_ITEM, Vocabulary
from contract.errors import UserError
from training.data.sequences import read_sequences
from training.data.sessions import TEST_FILE, TRAIN_FILE, read_lists
from training.next_item.sequences import (
    Questions,
    Sequences,
    every_prefix,
    sequences_of,
    vocabulary_of,
)

NextItemProtocol = Literal["leave-one-out", "session"]
VALIDATION_SHARE = 0.085  # of the training sessions, the latest


@dataclass(frozen=True)
class Split:
    """One protocol on one data set. `everything`: what is learned from once the choices are made,
    that is all but what is asked. `exclude_seen`: whether an item of the history may be
    answered; `cutoffs` are the k of the metrics, the last one is what models are chosen by."""

    protocol: NextItemProtocol
    vocabulary: Vocabulary
    train: Sequences
    held_out: Questions
    test: Questions
    everything: Sequences
    exclude_seen: bool
    cutoffs: tuple[int, ...]
    notes: list[str] = field(default_factory=list)


def leave_one_out(file: Path) -> Split:
    """The last item of every user is asked; the one before it is validated on, and learned from
    once the choices are made. UserError when the file is empty or no user has three items."""
    _, items = read_sequences(file)
    vocabulary = vocabulary_of(items)
    return leave_one_out_of(sequences_of(items, vocabulary), vocabulary, file)


def leave_one_out_of(sequences: Sequences, vocabulary: Vocabulary, source: Path) -> Split:
    """The same of sequences that are read; `source` stands in the error."""
    known = np.flatnonzero(sequences.lengths >= 3)
    if not len(known):
        raise UserError(
            f"{source}: no user has three items; leave-one-out needs one to learn from, one to "
            "choose on and one to ask"
        )
    asked = sequences.where(known)
    unasked = len(sequences) - len(known)
    test = Questions(asked.without_last(1), asked.last(0))
    again = int(asked_again(test).sum())
    short = sequences.where(np.flatnonzero(sequences.lengths < 3))
    return Split(
        "leave-one-out",
        vocabulary,
        _joined(asked.without_last(2), short),
        Questions(asked.without_last(2), asked.last(1)),
        test,
        _joined(asked.without_last(1), short),
        exclude_seen=True,
        cutoffs=(5, 10),
        notes=[
            *([f"{unasked} users of fewer than three items are only learned from"] * bool(unasked)),
            *([f"{again} targets are in their own history: missed by everybody"] * bool(again)),
        ],
    )


def sessions(folder: Path) -> Split:
    """Every prefix of the training sessions is learned from, the latest sessions are chosen on, and
    the test instances asked. Items unknown to the training sessions are missed by everybody."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    (trained,) = read_lists(folder / TRAIN_FILE, lists="item_ids", scalar=None)
    vocabulary = vocabulary_of(trained)
    asked = instances(folder / TEST_FILE, vocabulary)
    return sessions_of(sequences_of(trained, vocabulary), vocabulary, asked, folder / TRAIN_FILE)


def instances(file: Path, vocabulary: Vocabulary) -> Questions:
    """The test instances of `file`: a history and its target each."""
    histories, targets = read_lists(file, lists="history", scalar="target")
    return Questions(sequences_of(histories, vocabulary), vocabulary.indices(targets))


def sessions_of(
    everything: Sequences, vocabulary: Vocabulary, asked: Questions, source: Path
) -> Split:
    """The same of sessions that are read, in time order; `source` stands in the error."""
    cut = round(len(everything) * (1.0 - VALIDATION_SHARE))
    held_out = every_prefix(everything.where(np.arange(cut, len(everything))))
    if not len(held_out):
        raise UserError(f"{source}: the latest sessions have no two items to choose on")
    unknown = int((asked.target < FIRST_ITEM).sum())
    return Split(
        "session",
        vocabulary,
        everything.where(np.arange(cut)),
        held_out.where(np.flatnonzero(held_out.target >= FIRST_ITEM)),
        asked,
        everything,
        exclude_seen=False,
        cutoffs=(20,),
        notes=[f"{unknown} targets are in no training session"] if unknown else [],
    )


def asked_again(questions: Questions) -> npt.NDArray[np.bool_]:
    """Which targets stand in their own history, [Q]."""
    history = questions.history
    number = np.repeat(np.arange(len(history)), history.lengths)
    equal = history.item == questions.target[number]
    return np.bincount(number, equal, minlength=len(history)) > 0


def _joined(first: Sequences, second: Sequences) -> Sequences:
    """Both, one after the other."""
    if not len(second):
        return first

    def both(name: str) -> Any:
        one, other = getattr(first, name), getattr(second, name)
        return None if one is None or other is None else np.concatenate((one, other))

    return Sequences(
        both("item"),
        np.concatenate((first.offsets, first.offsets[-1] + second.offsets[1:])),
        both("event_type"),
        both("gap"),
        both("words"),
    )
