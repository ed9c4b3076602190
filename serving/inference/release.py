"""A release in memory: everything that one decision reads, frozen, so that a decision which began
with one release ends with it, whatever is swapped in meanwhile."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import faiss
import numpy as np

from contract.behaviour import LearnedSegments
from contract.catalogue import ItemChange
from contract.choices import Choices
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.item_index import ItemIndex
from contract.items import Floats, Indices, ItemNeighbours, ItemTable, category_of
from contract.manifest import ReleaseManifest
from contract.pieces import in_pieces
from contract.popular import PopularLists
from contract.price_levels import PriceLevels
from contract.segment_config import SegmentConfig
from contract.session_knn import SessionKnn
from serving.inference.assortment import Assortment, Mask
from serving.inference.backend import InferenceBackend
from serving.inference.breaker import Breaker
from serving.inference.explainer import Explainer
from serving.inference.offer_judge import OfferJudge

# Beside the models, what may hang on a thread: each has a breaker too.
STAGES = ("encode", "retrieval")


@dataclass(eq=False)
class ReleaseCatalogue:
    """What the shop sells, indexed like the vocabulary; N = len(vocabulary), rows PAD and OOV are
    blank and never available. Nothing of it changes but `now`, which is replaced as a whole."""

    currency: str
    title: tuple[str, ...]
    brand: tuple[str, ...]
    category_path: tuple[tuple[str, ...], ...]
    released: Assortment
    now: Assortment = field(init=False)  # with what the shop has said since
    said: int = field(init=False, default=0)  # the number of the latest of that

    def __post_init__(self) -> None:
        self.now = self.released

    def say(self, changes: Mapping[int, ItemChange], number: int) -> None:
        """Let `changes` by index, up to the `number`th of all, count for decisions to come."""
        if changes:
            self.now = self.now.with_changes(self.released, changes)
        self.said = number

    def in_category(self, name: str) -> Indices:
        """The items with `name` at any level of their category path."""
        return self._by_category.get(name, _NONE)

    def derive(self) -> None:
        """See Release.derive."""
        for indices in self._by_category.values():
            indices.flags.writeable = False  # they are shared by all decisions

    @cached_property
    def _by_category(self) -> dict[str, Indices]:
        # By path first: there are far fewer paths than items.
        members: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, path in enumerate(in_pieces(self.category_path)):
            members[path].append(index)
        under: dict[str, list[list[int]]] = defaultdict(list)
        for path, indices in in_pieces(list(members.items())):
            for name in set(path):
                under[name].append(indices)
        return {
            name: np.array(sorted(chain.from_iterable(parts)), np.int64)
            for name, parts in in_pieces(list(under.items()))
        }


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
    popular_lists: PopularLists
    models: InferenceBackend
    breakers: Mapping[str, Breaker]  # by model, and by each of STAGES
    rules: SegmentConfig  # that its models were trained under
    learned: LearnedSegments | None = None
    explainer: Explainer | None = None  # None in a release that says nothing to explain against
    choices: Choices | None = None  # None: payments and deliveries stay in the caller's order
    offer_judge: OfferJudge | None = None  # None: nobody knows whom an offer moves
    _best_of: dict[str, Indices] = field(default_factory=dict, init=False)  # by category

    @property
    def release_id(self) -> str:
        """The name of the release."""
        return self.manifest.release_id

    @property
    def popular(self) -> Indices:
        """What is popular with everybody, best first."""
        return self.popular_lists.overall

    @cached_property
    def by_popularity(self) -> Indices:
        """All items, `popular` first, then by recent and by overall popularity."""
        order = np.lexsort((-self.table.popularity, -self.table.recent_popularity))
        order = order[order >= FIRST_ITEM]
        return np.concatenate((self.popular, order[~np.isin(order, self.popular)]))

    @cached_property
    def price_levels(self) -> PriceLevels:
        """How dear every item was released to be among its kind."""
        keys, index = self.vocabulary.by_key
        paths = [self.catalogue.category_path[place] for place in index.tolist()]
        return PriceLevels.of(keys, self.catalogue.released.price[index], paths)

    @cached_property
    def is_popular(self) -> Mask:
        """Whether an item is popular with everybody, in a segment or in a region, [N]."""
        mask = np.zeros(len(self.vocabulary), bool)
        for items in (self.popular, *self.popular_lists.lists.values()):
            mask[items] = True
        return mask

    def best_in_category(self, name: str) -> Indices:
        """The items with `name` in their category path, those first that were bought most lately;
        sorted when it is first asked for."""
        found = self._best_of.get(name)
        if found is None:
            index = self.catalogue.in_category(name)
            found = index[np.argsort(-self.table.recent_popularity[index], kind="stable")]
            found.flags.writeable = False
            if len(found):  # other names are without number
                self._best_of[name] = found
        return found

    def category(self, item_id: str) -> str | None:
        """The `item_category` of an item of the catalogue."""
        return category_of(self.catalogue.category_path[self.vocabulary.index(item_id)])

    def title(self, item_id: str) -> str:
        """What an item of the catalogue is called, empty where that is not known."""
        return self.catalogue.title[self.vocabulary.index(item_id)]

    def derive(self) -> None:
        """Compute now what is otherwise computed when it is first asked for, so that no checkout
        has to wait for it."""
        self.by_popularity.flags.writeable = False
        self.is_popular.flags.writeable = False
        if self.offer_judge is not None:
            _ = self.price_levels.table
        for items in (self.popular, *self.popular_lists.lists.values()):
            items.flags.writeable = False
        self.catalogue.derive()


def compute_single_threaded() -> None:
    """Call at the start of a worker thread: FAISS would otherwise start a team of threads for every
    search, which costs more than the search. (OpenMP keeps this setting per thread.)"""
    faiss.omp_set_num_threads(1)
