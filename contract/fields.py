"""Types of fields that documents and requests share."""

import re
from collections.abc import Hashable
from typing import Annotated, TypeVar

from pydantic import StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
H = TypeVar("H", bound=Hashable)


# Not one of them means anything to a reader, and PostgreSQL keeps no text with the first.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IN_LINES = str.maketrans("", "", "\t\n\r")


def one_line(text: str) -> str:
    """The same; raises ValueError where a line break or a control character is in it."""
    if _CONTROL.search(text) is not None:
        raise ValueError("must be one line, without control characters")
    return text


def in_lines(text: str) -> str:
    """The same; raises ValueError where a control character is in it but tabs and line ends."""
    if _CONTROL.search(text.translate(_IN_LINES)) is not None:
        raise ValueError("must not hold control characters")
    return text


def distinct(values: tuple[H, ...]) -> tuple[H, ...]:
    """The same; raises ValueError where one stands there twice."""
    if len(set(values)) != len(values):
        raise ValueError("must not name the same thing twice")
    return values
