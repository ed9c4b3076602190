"""Words to token numbers, the same for product text, search terms and categories."""

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from contract.events import key_of

# Token numbers come from hashing, so words need no vocabulary file and a new word needs no new
# release. Of 2,000 words in 8,190 buckets about one in nine shares its bucket with another; a text
# of several words is still told apart.
NUM_TOKENS = 8_192
_FIRST_TOKEN = 2  # 0 is padding, 1 is kept for "some word was here but is withheld"
_WORD = re.compile(r"[^\W_]+", re.UNICODE)


def words(text: str) -> list[str]:
    """The lower-case words of `text`, in order."""
    return _WORD.findall(text.lower())


def token_numbers(text: str, limit: int) -> list[int]:
    """Token numbers (2..NUM_TOKENS-1) of the first `limit` distinct words of `text`."""
    distinct = list(dict.fromkeys(words(text)))[:limit]
    return [_FIRST_TOKEN + key_of(word) % (NUM_TOKENS - _FIRST_TOKEN) for word in distinct]


def token_matrix(texts: Iterable[str], limit: int) -> npt.NDArray[np.int64]:
    """Tokens of many texts, [len(texts), limit], padded with 0 on the right."""
    rows = [token_numbers(text, limit) for text in texts]
    matrix = np.zeros((len(rows), limit), np.int64)
    for row, tokens in zip(matrix, rows, strict=True):
        row[: len(tokens)] = tokens
    return matrix
