"""A release read back from its files, answering checkouts as a gateway does: ONNX Runtime, the item
index and the frozen tables, through the same pure functions. So a champion is judged by what is
really served, whatever code or data it was once fitted with."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

from contract.candidates import MAX_CANDIDATES, gather, merge, sources_of
from contract.encoding import CART, Encoded, Situation, Vocabulary, encode, stack
from contract.errors import UserError
from contract.item_index import ItemIndex, opened
from contract.items import ITEM_STATISTICS, ItemNeighbours, ItemTable, category_codes
from contract.manifest import (
    CATALOGUE,
    INDEX,
    ITEM_NEIGHBOURS,
    MANIFEST,
    MODELS,
    POPULAR,
    QUERY_TOWER,
    RANKER,
    SEGMENT_CONFIG,
    SEQUENCE_ENCODER,
    SESSION_KNN,
    VOCABULARY,
    ReleaseManifest,
    Root,
    sha256,
    tensors,
    verify,
)
from contract.pair_features import pair_features
from contract.popular import PopularLists
from contract.quotas import QUOTAS
from contract.segment_config import SegmentConfig
from contract.session_knn import SessionKnn
from training.data.ranking_examples import NeuralSide, rank_inputs
from training.export.int8 import session

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
_TOGETHER = 64
_TOWERS = {QUERY_TOWER: "query_tower", SEQUENCE_ENCODER: "sequence"}


@dataclass(frozen=True)
class ReleasedTables:
    """The counted side of a release."""

    statistics: ItemTable
    neighbours: ItemNeighbours
    knn: SessionKnn
    popular: PopularLists


@dataclass(frozen=True)
class Ranked:
    """One checkout: the candidates [C] with the ranker's scores and what it was told [C, F]."""

    index: Numbers
    scores: Floats
    features: Floats

    def best(self, k: int) -> Numbers:
        """The k highest, best first."""
        return self.index[np.argsort(-self.scores, kind="stable")[:k]]


@dataclass(frozen=True)
class Released:
    """A release in memory."""

    manifest: ReleaseManifest
    vocabulary: Vocabulary
    tables: ReleasedTables
    index: ItemIndex
    rules: SegmentConfig
    sessions: Mapping[str, onnxruntime.InferenceSession]

    def rank(self, situations: Sequence[Situation], *, label: str) -> Iterator[Ranked]:
        """The answer to each situation, in order; situations must be under `rules`."""
        encoded = stack([encode(one, self.vocabulary) for one in situations])
        vectors = {name: self._run(name, encoded) for name in _TOWERS}
        near = {name: self._nearest(name, found) for name, found in vectors.items()}
        side = NeuralSide(
            self.index.vectors,
            vectors[QUERY_TOWER],
            vectors[SEQUENCE_ENCODER],
            near[QUERY_TOWER],
            near[SEQUENCE_ENCODER],
        )
        rows = rank_inputs(situations, self.vocabulary, self.tables, side, label=label)
        held: list[tuple[Numbers, Floats]] = []
        for _, merged, features in rows:
            held.append((merged.index, features))
            if len(held) == _TOGETHER:
                yield from self._scored(held)
                held = []
        yield from self._scored(held)

    def decide(self, situation: Situation) -> Ranked:
        """One decision alone, as a checkout has it: what its latency is measured on."""
        encoded = stack([encode(situation, self.vocabulary)])
        vectors = {name: self._run(name, encoded) for name in _TOWERS}
        query, sequence = (vectors[name][0] for name in _TOWERS)
        evidence = gather(
            *(situation, self.vocabulary, self.tables.neighbours, self.tables.knn),
            query_vector=query,
            sequence_vector=sequence,
        )
        sources = sources_of(evidence, self.tables.popular.of_situation(situation))
        for name, tower in _TOWERS.items():
            sources[tower] = self._nearest(name, vectors[name])[0]
        merged = merge(sources, evidence.cart)
        features = pair_features(evidence, merged.index, self.tables.statistics, self.index.vectors)
        return next(self._scored([(merged.index, features)]))

    def _scored(self, held: Sequence[tuple[Numbers, Floats]]) -> Iterator[Ranked]:
        if not held:
            return
        padded = np.zeros((len(held), MAX_CANDIDATES, held[0][1].shape[1]), np.float32)
        for row, (_, features) in zip(padded, held, strict=True):
            row[: len(features)] = features
        (scores,) = self.sessions[RANKER].run(None, {"pair_features": padded})
        for row, (index, features) in zip(scores, held, strict=True):
            yield Ranked(index, row[: len(index)], features)

    def _run(self, model: str, encoded: Encoded) -> Floats:
        inputs = {tensor.name: encoded[tensor.name] for tensor in tensors(model, 1)[0]}
        count = len(next(iter(inputs.values())))
        parts = [
            self.sessions[model].run(
                None, {name: array[start : start + _TOGETHER] for name, array in inputs.items()}
            )[0]
            for start in range(0, count, _TOGETHER)
        ]
        return np.concatenate(parts)

    def _nearest(self, model: str, vectors: Floats) -> Numbers:
        """With room for the items of the cart, which `merge` takes out, as it does with PAD."""
        wanted = min(QUOTAS[_TOWERS[model]] + CART, self.index.items)
        parts = [
            self.index.search(vectors[start : start + _TOGETHER], wanted)
            for start in range(0, len(vectors), _TOGETHER)
        ]
        return np.concatenate(parts)


def read_manifest(releases: Path, release_id: str) -> ReleaseManifest:
    """The manifest of a release; UserError where there is none that can be read."""
    try:
        return ReleaseManifest.model_validate_json((releases / release_id / MANIFEST).read_bytes())
    except OSError:
        raise UserError(
            f"there is no release {release_id!r} in {releases}; "
            "`tillwise-serve release list` tells which there are"
        ) from None
    except ValueError:
        raise UserError(f"{releases / release_id / MANIFEST}: not readable") from None


def read_released(releases: Path, models: Path, release_id: str) -> Released:
    """The release, verified file by file as a gateway verifies it. UserError says what is wrong."""
    folder, held = releases / release_id, {}

    def digest_of(root: Root, name: str) -> str | None:
        path = (folder if root == "release" else models) / name
        if not path.is_file():
            return None
        held[root, name] = path.read_bytes()
        return sha256(held[root, name])

    manifest = read_manifest(releases, release_id)
    problems = verify((folder / MANIFEST).read_bytes(), digest_of, release_id=release_id)
    if problems:
        raise UserError(f"release {release_id}: {problems[0]}")
    table = pq.read_table(pa.BufferReader(held["release", VOCABULARY]))
    vocabulary = Vocabulary(tuple(table["item_id"].to_pylist()))
    catalogue = pq.read_table(pa.BufferReader(held["release", CATALOGUE]))
    statistics = {name: catalogue[name].to_numpy() for name in ITEM_STATISTICS}
    codes = category_codes([path or [] for path in catalogue["category_path"].to_pylist()])
    index = faiss.deserialize_index(np.frombuffer(held["release", INDEX], np.uint8))
    return Released(
        manifest,
        vocabulary,
        ReleasedTables(
            ItemTable.from_columns(statistics, codes),
            ItemNeighbours.from_arrays(_arrays(held["release", ITEM_NEIGHBOURS])),
            SessionKnn.from_arrays(_arrays(held["release", SESSION_KNN])),
            PopularLists.parse(held["release", POPULAR], vocabulary),
        ),
        opened(index, manifest.index),
        SegmentConfig.parse(held["release", SEGMENT_CONFIG], SEGMENT_CONFIG),
        {
            name: session(held["models", f"{name}/{manifest.model(name).version}/model.onnx"])
            for name in MODELS
        },
    )


def _arrays(content: bytes) -> dict[str, npt.NDArray[np.generic]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
