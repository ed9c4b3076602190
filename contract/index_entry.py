"""What a release says about its item index: which kind it is, how it is asked, and how much of
exact search it was measured to find. An index that is not exact serves only with that proof."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from contract.quotas import QUOTAS

FLAT: Final = "flat"
# Every kind with its search parameters. `nprobe` and `ef_search` say how far a search looks;
# `k_factor` how many times too many items it fetches, to be ranked again by their exact vectors.
KINDS: Final[dict[str, tuple[str, ...]]] = {
    FLAT: (),
    "ivf_flat": ("nprobe",),
    "ivf_fp16": ("k_factor", "nprobe"),
    "ivf_sq8": ("k_factor", "nprobe"),
    "ivf_pq": ("k_factor", "nprobe"),
    "hnsw": ("ef_search",),
}
RECALL_GATE: Final = 0.99

# Items that a query vector may bring to the candidates.
WANTED: Final = max(QUOTAS["query_tower"], QUOTAS["sequence"])
# Below this share of eligible items a search that drops most of what it finds costs more than
# looking at the eligible ones only, and could find too few.
EXACT_BELOW: Final = 0.25
_SPARE = 16


def search_limit(wanted: int, share: float, items: int) -> int:
    """How many of `items` an index is asked for, so that `wanted` are left when a filter lets
    through a `share` of them."""
    return min(int(wanted / share * 1.25) + _SPARE, items)


def served_k(items: int) -> tuple[int, ...]:
    """The smallest and the largest k with which serving asks an index of `items`, ascending."""
    return tuple(sorted({search_limit(WANTED, share, items) for share in (1.0, EXACT_BELOW)}))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recall(_Strict):
    """The mean share of the exact k nearest that a search finds, among the items that `filter`
    lets through ("none": all)."""

    filter: str
    k: Annotated[int, Field(ge=1)]
    value: Annotated[float, Field(ge=0, le=1)]


class IndexSearch(_Strict):
    """How an index is asked, and what it was measured to find when it is asked so."""

    parameters: dict[str, Annotated[int, Field(ge=1)]]
    recall: tuple[Recall, ...]
    queries: Annotated[int, Field(ge=1)]  # how many query vectors were tried


class IndexEntry(_Strict):
    """The item index; scores are inner products in the space the models were trained in.

    `search` is absent where the search is exact, as in every release before there was another.
    """

    metric: Literal["inner_product"]
    kind: str
    dimension: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    search: IndexSearch | None = None

    @model_serializer(mode="wrap")
    def _as_it_was_sealed(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `search` where there is none: a manifest must keep the bytes it was sealed
        with."""
        held: dict[str, Any] = handler(self)
        if self.search is None:
            del held["search"]
        return held

    @property
    def parameters(self) -> dict[str, int]:
        """The search parameters, none for an exact search."""
        return {} if self.search is None else self.search.parameters


def index_problems(entry: IndexEntry) -> list[str]:
    """What is wrong with an entry, a line each."""
    if entry.kind not in KINDS:
        return [f"index: kind {entry.kind!r} is not known; there are {', '.join(KINDS)}"]
    wanted = sorted(KINDS[entry.kind])
    if sorted(entry.parameters) != wanted:
        given = sorted(entry.parameters)
        return [f"index: {entry.kind} is asked with {wanted}, not with {given}"]
    if entry.kind == FLAT:
        return []
    measured = () if entry.search is None else entry.search.recall
    low = [
        f"index: recall {one.value:.4f} at k={one.k} (filter {one.filter}) is below {RECALL_GATE}"
        for one in measured
        if not one.value >= RECALL_GATE
    ]
    at = {one.k for one in measured if one.filter == "none"}
    missing = [k for k in served_k(entry.count) if k not in at]
    return low + [f"index: recall was not measured at k={k}, which is in use" for k in missing]
