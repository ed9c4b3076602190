"""The same splits from an imported folder of events, with the kinds of events, the time between
them and the searches."""

from pathlib import Path

import numpy as np

from contract.encoding import PAD, TOKENS, gap_buckets
from contract.errors import UserError
from contract.text import token_matrix
from training.data.encoded_sequences import EncodedSequences, read_sequences
from training.data.sessions import TEST_FILE
from training.data.storage import EVENTS_FOLDER
from training.next_item.sequences import Sequences, Tokens, every_prefix
from training.next_item.split import (
    NextItemProtocol,
    Split,
    instances,
    leave_one_out_of,
    sessions_of,
)

# What a shopper turned to; what was taken out, sent back or merely shown is nothing to predict.
CHOSEN = ("view_item", "select_item", "add_to_cart", "purchase")
PROTOCOL_OF: dict[str, NextItemProtocol] = {"sequences": "leave-one-out", "sessions": "session"}
_TEST_SHARE = 0.1  # of the sessions, the latest


def read_split(folder: Path, protocol: NextItemProtocol) -> Split:
    """`leave-one-out`: a sequence a subject. `session`: a sequence a session; asked are the test
    instances that the import left in the folder, else every prefix of the latest tenth of the
    sessions, which is not learned from. UserError where nothing can be learned or asked."""
    if protocol == "leave-one-out":
        encoded = read_sequences(folder, by="subject", events=CHOSEN)
        return leave_one_out_of(_sequences(encoded), encoded.vocabulary, folder)
    encoded = read_sequences(folder, by="session", events=CHOSEN)
    begins = encoded.occurred_us[encoded.offsets[:-1]]
    visits = _sequences(encoded).where(np.argsort(begins, kind="stable"))
    if (folder / TEST_FILE).exists():
        asked = instances(folder / TEST_FILE, encoded.vocabulary)
        return sessions_of(visits, encoded.vocabulary, asked, folder)
    cut = round(len(visits) * (1.0 - _TEST_SHARE))
    asked = every_prefix(visits.where(np.arange(cut, len(visits))))
    if not len(asked):
        raise UserError(f"{folder / EVENTS_FOLDER}: the latest sessions have no two items to ask")
    return sessions_of(visits.where(np.arange(cut)), encoded.vocabulary, asked, folder)


def _sequences(encoded: EncodedSequences) -> Sequences:
    gap_us = np.diff(encoded.occurred_us, prepend=encoded.occurred_us[:1])
    gap_us[encoded.offsets[:-1]] = 0
    return Sequences(
        encoded.item, encoded.offsets, encoded.event_type, gap_buckets(gap_us), _words(encoded)
    )


def _words(encoded: EncodedSequences) -> Tokens | None:
    """The words of the last search after each interaction, [E, W]; None where nobody searched."""
    if not encoded.search_term:
        return None
    said = token_matrix(encoded.search_term, TOKENS)
    said = said[:, (said != PAD).any(axis=0)]
    tokens = np.zeros((len(encoded.item), said.shape[1]), np.int16)  # NUM_TOKENS fits
    tokens[encoded.search_row] = said
    return tokens
