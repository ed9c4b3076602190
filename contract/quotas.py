"""How many candidates each source may bring, in the order of trust when the list is cut."""

from typing import Final

QUOTAS: Final[dict[str, int]] = {
    "personal": 100,
    "neighbours": 60,
    "session_knn": 40,
    "query_tower": 60,
    "sequence": 60,
    "popular": 40,
}
