"""From the files of a release to its parts. Every file is read once: the bytes that were hashed
are the bytes that are used. A part that does not fit raises UserError naming its file."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from contract.attribution import Background
from contract.behaviour import LearnedSegments
from contract.choices import Choices
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.errors import UserError
from contract.item_index import ItemIndex, opened
from contract.items import (
    ITEM_STATISTICS,
    ItemNeighbours,
    ItemTable,
    category_codes,
)
from contract.manifest import (
    CATALOGUE,
    CHOICES,
    INDEX,
    ITEM_NEIGHBOURS,
    LEARNED_SEGMENTS,
    OFFER_ARMS,
    POPULAR,
    SEGMENT_CONFIG,
    SESSION_KNN,
    USUAL_CANDIDATES,
    VOCABULARY,
    ReleaseManifest,
    Root,
)
from contract.offer_arms import OfferArms
from contract.pieces import between_pieces
from contract.popular import PopularLists
from contract.segment_config import SegmentConfig
from contract.session_knn import Numbers, SessionKnn
from serving.inference import release_columns
from serving.inference.assortment import NOT_PRICED, Assortment
from serving.inference.release import ReleaseCatalogue

_LISTS = ("category_path", "regions")
_CATALOGUE_COLUMNS = (
    *("item_id", "title", "brand", "price", "currency", "available"),
    *(*_LISTS, *ITEM_STATISTICS),
)
_BLOCK = 1 << 16  # numbers: what a core keeps at hand
_HASHED = 1 << 19  # bytes at a time


class ReleaseFiles:
    """The bytes of one release, each file read at most once."""

    def __init__(self, releases_dir: Path, models_dir: Path, release_id: str) -> None:
        self.release_id = release_id
        self._folders: dict[Root, Path] = {
            "release": releases_dir / release_id,
            "models": models_dir,
        }
        self._read: dict[tuple[Root, str], bytes | None] = {}

    def content(self, root: Root, name: str) -> bytes | None:
        """The bytes of `name`, None where there is no such file below the folder."""
        key = (root, name)
        if key not in self._read:
            self._read[key] = _bytes_below(self._folders[root], name)
        return self._read[key]

    def digest(self, root: Root, name: str) -> str | None:
        """The `digest_of` of contract.manifest.verify."""
        content = self.content(root, name)
        if content is None:
            return None
        digest, left = hashlib.sha256(), memoryview(content)
        while left:
            between_pieces()
            digest.update(left[:_HASHED])
            left = left[_HASHED:]
        return digest.hexdigest()

    def part(self, name: str) -> bytes:
        """A file of the release folder; UserError when it is missing."""
        content = self.content("release", name)
        if content is None:
            raise UserError(f"{name}: missing")
        return content


def _bytes_below(folder: Path, name: str) -> bytes | None:
    path = folder / name
    try:
        # A manifest must not make the gateway read anything outside its two folders.
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def vocabulary(files: ReleaseFiles, manifest: ReleaseManifest) -> Vocabulary:
    """The vocabulary, which must be the one the models were trained with."""
    table = release_columns.table(VOCABULARY, files.part(VOCABULARY), ("item_id",))
    try:
        found = Vocabulary(tuple(release_columns.values(table.column("item_id"))))
    except ValueError as error:
        raise UserError(f"{VOCABULARY}: {error}") from error
    if found.hash != manifest.vocabulary_hash:
        raise UserError(
            f"{VOCABULARY}: hash {found.hash[:12]} is not the manifest's "
            f"{manifest.vocabulary_hash[:12]}"
        )
    return found


def catalogue(
    files: ReleaseFiles, manifest: ReleaseManifest, vocabulary: Vocabulary
) -> tuple[ReleaseCatalogue, ItemTable]:
    """The catalogue and its statistics, one row per item of the vocabulary in its order."""
    table = release_columns.table(CATALOGUE, files.part(CATALOGUE), _CATALOGUE_COLUMNS)
    ids, title, brand = (
        release_columns.values(table.column(name)) for name in ("item_id", "title", "brand")
    )
    if tuple(ids) != vocabulary.item_ids:
        raise UserError(f"{CATALOGUE}: its items are not those of {VOCABULARY} in their order")
    paths, regions = (release_columns.lists(table.column(name)) for name in _LISTS)
    foreign = set(table.column("currency").unique().to_pylist()) - {manifest.currency}
    if foreign:
        raise UserError(
            f"{CATALOGUE}: currency {sorted(map(str, foreign))[0]} is not the release's"
        )
    statistics = {
        name: release_columns.numbers(name, table.column(name)) for name in ITEM_STATISTICS
    }
    _all_finite(CATALOGUE, statistics)
    price = release_columns.filled(table.column("price"), NOT_PRICED)
    available = release_columns.filled(table.column("available"), 0).astype(bool)
    between_pieces()
    held = ReleaseCatalogue(
        currency=manifest.currency,
        title=("",) * FIRST_ITEM + tuple(one or "" for one in title),
        brand=("",) * FIRST_ITEM + tuple(one or "" for one in brand),
        category_path=((),) * FIRST_ITEM + tuple(paths.rows()),
        released=Assortment.of(
            np.concatenate(([NOT_PRICED] * FIRST_ITEM, price)),
            np.concatenate(([False] * FIRST_ITEM, available)),
            ((),) * FIRST_ITEM + tuple(regions.rows()),
        ),
    )
    return held, ItemTable.from_columns(statistics, category_codes(paths.distinct)[paths.place])


def index(files: ReleaseFiles, manifest: ReleaseManifest, items: int) -> ItemIndex:
    """The index over the vocabulary's `items`, which must be what the manifest says it is."""
    try:
        found = faiss.deserialize_index(np.frombuffer(files.part(INDEX), np.uint8))
    except RuntimeError as error:
        raise UserError(f"{INDEX}: cannot be read") from error
    try:
        held = opened(found, manifest.index)
    except ValueError as error:
        raise UserError(f"{INDEX}: {error}") from error
    if held.items != items:
        raise UserError(f"{INDEX}: count is {held.items}, not {items}")
    _all_finite(INDEX, {"vectors": held.vectors})
    return held


def session_knn(files: ReleaseFiles, size: int) -> SessionKnn:
    """The VMIS-kNN index over a vocabulary of `size`."""
    arrays = _arrays(files, SESSION_KNN)
    try:
        knn = SessionKnn.from_arrays(arrays)
    except (KeyError, ValueError) as error:
        raise UserError(f"{SESSION_KNN}: {error} is missing or malformed") from error
    if min(knn.m, knn.k, knn.query_items) < 1:
        raise UserError(f"{SESSION_KNN}: its settings must be 1 or more")
    sessions = len(knn.session_offsets) - 1
    spans = (
        (knn.session_offsets, knn.session_items, size),
        (knn.posting_offsets, knn.postings, sessions),
    )
    if len(knn.posting_offsets) != size + 1 or len(knn.idf) != size:
        raise UserError(f"{SESSION_KNN}: made for {len(knn.idf)} items, not {size}")
    if any(_broken_span(*span) for span in spans):
        raise UserError(f"{SESSION_KNN}: its offsets do not fit its rows")
    _all_finite(SESSION_KNN, {"idf": knn.idf})
    return knn


def neighbours(files: ReleaseFiles, size: int) -> ItemNeighbours:
    """The tables of what is bought together, over a vocabulary of `size`."""
    try:
        found = ItemNeighbours.from_arrays(_arrays(files, ITEM_NEIGHBOURS))
    except KeyError as error:
        raise UserError(f"{ITEM_NEIGHBOURS}: array {error.args[0]} is missing") from error
    near, similarity = found.neighbours, found.similarity
    if near.ndim != 2 or near.shape != similarity.shape or len(near) != size:
        raise UserError(f"{ITEM_NEIGHBOURS}: shape {near.shape} does not fit {size} items")
    if near.size and (near.min() < 0 or near.max() >= size):
        raise UserError(f"{ITEM_NEIGHBOURS}: names an item outside the vocabulary")
    for lift in (found.wide, found.narrow):
        groups = len(lift.log_lift)
        if lift.log_lift.shape != (groups, groups) or lift.group.shape != (size,):
            raise UserError(f"{ITEM_NEIGHBOURS}: a lift table does not fit {size} items")
        if lift.group.size and (lift.group.min() < 0 or lift.group.max() >= groups):
            raise UserError(f"{ITEM_NEIGHBOURS}: names a category outside its lift table")
        _all_finite(ITEM_NEIGHBOURS, {"lift": lift.log_lift})
    counted = {"similarity": similarity, "baskets": np.array([found.baskets])}
    _all_finite(ITEM_NEIGHBOURS, counted)
    return found


def popular(files: ReleaseFiles, vocabulary: Vocabulary) -> PopularLists:
    """The popular items, best first; ids that the vocabulary does not know are a fault."""
    try:
        return PopularLists.parse(files.part(POPULAR), vocabulary)
    except ValueError as error:
        raise UserError(f"{POPULAR}: {error}") from error


def segment_rules(files: ReleaseFiles) -> SegmentConfig:
    """The thresholds and contextual segments that the models were trained under."""
    return SegmentConfig.parse(files.part(SEGMENT_CONFIG), SEGMENT_CONFIG)


def learned_segments(files: ReleaseFiles, manifest: ReleaseManifest) -> LearnedSegments | None:
    """The learned segments, None where the release was exported without."""
    if LEARNED_SEGMENTS not in manifest.files:
        return None
    try:
        return LearnedSegments.from_arrays(_arrays(files, LEARNED_SEGMENTS))
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{LEARNED_SEGMENTS}: {error}") from error


def usual_candidates(files: ReleaseFiles, manifest: ReleaseManifest) -> Background | None:
    """What reasons are told against, None in a release of a version that had none."""
    if USUAL_CANDIDATES not in manifest.files:
        return None
    try:
        return Background.from_arrays(_arrays(files, USUAL_CANDIDATES))
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{USUAL_CANDIDATES}: {error}") from error


def choices(files: ReleaseFiles, manifest: ReleaseManifest) -> Choices | None:
    """How people choose payments and deliveries, None in a release exported without."""
    return Choices.parse(files.part(CHOICES), CHOICES) if CHOICES in manifest.files else None


def offer_arms(files: ReleaseFiles) -> OfferArms:
    """The arms of the release's uplift network, which must be asked what it was trained on."""
    try:
        found = OfferArms.model_validate_json(files.part(OFFER_ARMS))
    except ValidationError as error:
        raise UserError(f"{OFFER_ARMS}: {error.errors()[0]['msg']}") from None
    if found.problem is not None:
        raise UserError(f"{OFFER_ARMS}: {found.problem}")
    return found


class _InPieces(io.BytesIO):
    """NumPy reads an array in some hundred parts."""

    def read(self, size: int | None = -1, /) -> bytes:
        between_pieces()
        return super().read(size)


def _arrays(files: ReleaseFiles, name: str) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(_InPieces(files.part(name)), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name}: is no readable file of arrays") from error


def _broken_span(offsets: Numbers, rows: Numbers, bound: int) -> bool:
    """Whether offsets do not run from 0 to len(rows), or rows leave 0..bound-1."""
    if offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        return True
    return bool(len(rows)) and bool(rows.min() < 0 or rows.max() >= bound)


def _all_finite(name: str, columns: dict[str, npt.NDArray[Any]]) -> None:
    for column, values in columns.items():
        flat = values.reshape(-1)
        between_pieces()
        # In blocks: an array of the same size beside it is mostly the work of finding memory.
        if not all(
            np.isfinite(flat[start : start + _BLOCK]).all() for start in range(0, len(flat), _BLOCK)
        ):
            raise UserError(f"{name}: {column} holds a value that is not a finite number")
