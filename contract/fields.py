"""Types of fields that documents and requests share."""

from collections.abc import Hashable
from typing import Annotated, TypeVar

from pydantic import StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
H = TypeVar("H", bound=Hashable)


def distinct(values: tuple[H, ...]) -> tuple[H, ...]:
    """The same; raises ValueError where one stands there twice."""
    if len(set(values)) != len(values):
        raise ValueError("must not name the same thing twice")
    return values
