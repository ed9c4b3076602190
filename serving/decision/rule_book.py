"""The merchant's rules as a document of the control store."""

from typing import Final

from contract.rule_set import RuleSet
from contract.rules import RuleBook

DOCUMENT: Final = "rules"


def compiled(body: str) -> RuleSet:
    """The document `body` as decisions use it. Raises ValueError."""
    return RuleSet(RuleBook.model_validate_json(body))


def body_of(book: RuleBook) -> str:
    """`book` as it is kept: without what is as it would be anyway, so that a later version of
    Tillwise may have better defaults."""
    return book.model_dump_json(exclude_defaults=True)
