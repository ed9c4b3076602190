"""Texts that Kubernetes parses: quantities, cron schedules, time zones, ranges of addresses."""

import ipaddress
import re
import zoneinfo
from decimal import Decimal

from jsonschema import FormatChecker

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_FACTORS = {letter: Decimal(1000) ** power for power, letter in enumerate("num kMGTPE", -3)} | {
    f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)
}
_MACROS = {f"@{word}" for word in ("yearly", "annually", "monthly", "weekly", "daily", "hourly")}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Of each field the least and the most, and the words for them, from the least on.
_CRON: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    *((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 6, _DAYS)),
)


def amount(quantity: str | float | Decimal) -> Decimal:
    """A resource's quantity, in its unit (cores, bytes). Raises ValueError where it is none."""
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity")
    number, suffix = Decimal(found[1]), found[2] or ""
    if not suffix or suffix in _FACTORS:
        return number * _FACTORS.get(suffix, Decimal(1))
    return number * Decimal(10) ** int(suffix[1:])


def _is_quantity(value: object) -> bool:
    return not isinstance(value, str | int | float) or amount(value) >= 0


def _is_schedule(value: object) -> bool:
    text = str(value)
    fields = text.split()
    if text in _MACROS:
        return True
    return len(fields) == len(_CRON) and all(
        _is_in_range(part, *allowed)
        for field, allowed in zip(fields, _CRON, strict=True)
        for part in field.split(",")
    )


def _is_in_range(part: str, least: int, most: int, words: tuple[str, ...]) -> bool:
    """One of a cron field's parts: `*`, `5`, `1-5`, each perhaps with `/step`."""
    span, slash, step = part.partition("/")
    if slash and not 1 <= int(step) <= most:
        return False
    if span in ("*", "?"):
        return True
    ends = [
        least + words.index(end.lower()) if end.lower() in words else int(end)
        for end in span.split("-")
    ]
    return len(ends) <= 2 and ends == sorted(ends) and least <= ends[0] and ends[-1] <= most


def _is_zone(value: object) -> bool:
    return value is None or zoneinfo.ZoneInfo(str(value)) is not None


def _is_network(value: object) -> bool:
    return value is None or ipaddress.ip_network(str(value)) is not None


FORMATS = FormatChecker(
    formats=()
)  # ours alone: the schemas' own "int32" and the like rule nothing
for _name, _conforms in (
    ("quantity", _is_quantity),
    ("cron schedule", _is_schedule),
    ("time zone", _is_zone),
    ("CIDR", _is_network),
):
    FORMATS.checks(_name, raises=(ValueError, KeyError, OSError))(_conforms)
