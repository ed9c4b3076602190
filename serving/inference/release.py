"""A release in memory: everything that one decision reads, frozen, so that a decision which began
with one release ends with it, whatever is swapped in meanwhile."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np
import numpy.typing as npt

from contract.behaviour import LearnedSegments
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.item_index import ItemIndex
from contract.items import Floats, Indices, ItemNeighbours, ItemTable, category_of
from contract.manifest import ReleaseManifest
from contract.segment_config import SegmentConfig
from contract.session_knn import SessionKnn
from serving.inference.backend import InferenceBackend
from serving.inference.breaker import Breaker

Mask = npt.NDArray[np.bool_]
NOT_PRICED = -1


@dataclass(frozen=True, eq=False)
class ReleaseCatalogue:
    """What the shop sells, indexed like the vocabulary; N = len(vocabulary), rows PAD and OOV are
    blank and never available."""

    currency: str
    title: tuple[str, ...]
    brand: tuple[str, ...]
    category_path: tuple[tuple[str, ...], ...]
    price: Indices  # [N] minor units, NOT_PRICED where there is none
    available: Mask  # [N]
    regions: tuple[tuple[str, ...], ...]  # empty: sold everywhere

    def sellable(self, region: str | None) -> Mask:
        """Which items are available in `region` (unknown: everywhere), a fresh [N]."""
        if region is None:
            return self.available.copy()
        mask = self._everywhere.copy()
        mask[self._only_in.get(region, _NONE)] = True
        return mask

    def in_category(self, name: str) -> Indices:
        """The items with `name` at any level of their category path."""
        return self._by_category.get(name, _NONE)

    def derive(self) -> None:
        """See Release.derive."""
        self._everywhere.flags.writeable = False
        for indices in (*self._only_in.values(), *self._by_category.values()):
            indices.flags.writeable = False  # they are shared by all decisions

    @cached_property
    def _everywhere(self) -> Mask:
        everywhere: Mask = np.array([not regions for regions in self.regions], bool)
        everywhere &= self.available
        return everywhere

    @cached_property
    def _only_in(self) -> dict[str, Indices]:
        """The available items that are sold in a region, but not everywhere."""
        members: dict[str, list[int]] = defaultdict(list)
        for index in np.flatnonzero(self.available & ~self._everywhere).tolist():
            for region in set(self.regions[index]):
                members[region].append(index)
        return {region: np.array(indices, np.int64) for region, indices in members.items()}

    @cached_property
    def _by_category(self) -> dict[str, Indices]:
        members: dict[str, list[int]] = defaultdict(list)
        for index, path in enumerate(self.category_path):
            for name in set(path):
                members[name].append(index)
        return {name: np.array(indices, np.int64) for name, indices in members.items()}


_NONE: Indices = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Release:
    """One loaded release. N = len(vocabulary), d = manifest.index.dimension."""

    manifest: ReleaseManifest
    vocabulary: Vocabulary
    catalogue: ReleaseCatalogue
    table: ItemTable
    neighbours: ItemNeighbours
    knn: SessionKnn
    item_vectors: Floats  # [N, d]; rows PAD and OOV are zero
    index: ItemIndex
    popular: Indices  # best first
    models: InferenceBackend
    breakers: Mapping[str, Breaker]
    rules: SegmentConfig  # that its models were trained under
    learned: LearnedSegments | None = None

    @property
    def release_id(self) -> str:
        """The name of the release."""
        return self.manifest.release_id

    @cached_property
    def by_popularity(self) -> Indices:
        """All items, `popular` first, then by recent and by overall popularity."""
        order = np.lexsort((-self.table.popularity, -self.table.recent_popularity))
        order = order[order >= FIRST_ITEM]
        return np.concatenate((self.popular, order[~np.isin(order, self.popular)]))

    @cached_property
    def is_popular(self) -> Mask:
        """Whether an item stands in `popular`, [N]."""
        mask = np.zeros(len(self.vocabulary), bool)
        mask[self.popular] = True
        return mask

    def category(self, item_id: str) -> str | None:
        """The `item_category` of an item of the catalogue."""
        return category_of(self.catalogue.category_path[self.vocabulary.index(item_id)])

    def derive(self) -> None:
        """Compute now what is otherwise computed when it is first asked for, so that no checkout
        has to wait for it."""
        self.by_popularity.flags.writeable = False
        self.is_popular.flags.writeable = False
        self.catalogue.derive()


def compute_single_threaded() -> None:
    """Call at the start of a worker thread: FAISS would otherwise start a team of threads for every
    search, which costs more than the search. (OpenMP keeps this setting per thread.)"""
    faiss.omp_set_num_threads(1)
