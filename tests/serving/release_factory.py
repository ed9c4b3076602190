"""A tiny release with real FAISS and real ONNX models in it, sealed like any other."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from contract import manifest, pair_features
from contract.attribution import Background
from contract.behaviour import LearnedSegments
from contract.choices import Choices
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.index_entry import IndexEntry
from contract.items import CategoryLift, ItemNeighbours
from contract.manifest import ModelEntry, ReleaseManifest, sha256, tensors
from contract.offer_arms import OfferArms
from contract.segment_config import DEFAULT, SegmentConfig
from contract.session_knn import SessionKnn

CURRENCY = "USD"
DEPARTMENTS = ("GROCERY", "DAIRY", "BAKERY", "PRODUCE")
BUILT_AT = datetime(2017, 11, 20, tzinfo=UTC)
_USUAL = Background(
    np.zeros((1, len(pair_features.PAIR_FEATURES)), np.float32), np.ones(1, np.float32)
)
_ONNX_TYPE = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


@dataclass(frozen=True)
class Factory:
    """Where a release was written, and how to write another one beside it."""

    root: Path
    num_items: int = 60
    dimension: int = 8
    seed: int = 7
    num_sessions: int = 200
    num_neighbours: int = 10
    models: dict[str, bytes] = field(default_factory=dict)  # in place of the usual ones
    int8: tuple[str, ...] = ()  # of `models`: those that are quantised
    beside: dict[str, bytes] = field(default_factory=dict)  # more files of the model repository
    vectors: Any = None  # in place of the usual ones
    index: bytes | None = None  # in place of a flat one
    popular: bytes | None = None  # in place of one list for everybody
    rules: SegmentConfig = DEFAULT
    learned: LearnedSegments | None = None
    choices: Choices | None = None
    # Chance of a purchase with no offer and with each arm, for every checkout; with its arms.
    uplift: tuple[OfferArms, tuple[float, ...]] | None = None

    @property
    def releases_dir(self) -> Path:
        return self.root / "releases"

    @property
    def models_dir(self) -> Path:
        return self.root / "model_repository"

    def item_id(self, number: int) -> str:
        return f"item-{number}"

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(tuple(self.item_id(n) for n in range(self.num_items)))

    def write(
        self, release_id: str = "tiny-1", *, version: int = 1, current: bool = True, **changed: Any
    ) -> str:
        """Write the release and its models; `changed` fields of the manifest are sealed in."""
        folder = self.releases_dir / release_id
        folder.mkdir(parents=True)
        vectors = self.item_vectors()
        for name, content in self._parts(vectors).items():
            (folder / name).write_bytes(content)
        fields: dict[str, Any] = {
            "release_id": release_id,
            "created_at": BUILT_AT,
            "recipe": "tiny",
            "trained_until": BUILT_AT,
            "feature_hash": manifest.expected_feature_hash(),
            "vocabulary_hash": self.vocabulary().hash,
            "currency": CURRENCY,
            "synthetic": True,
            "index": IndexEntry(
                metric="inner_product",
                kind="flat",
                dimension=vectors.shape[1],
                count=len(vectors),
            ),
            "models": tuple(self._models(version, vectors)),
            "files": {path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())},
        }
        sealed = ReleaseManifest(**(fields | changed)).sealed()
        (folder / manifest.MANIFEST).write_bytes(sealed.as_bytes())
        if current:
            (self.releases_dir / "current").write_text(f"{release_id}\n")
        return release_id

    def item_vectors(self) -> Any:
        if self.vectors is not None:
            return self.vectors
        random = np.random.default_rng(self.seed)
        return random.normal(size=(self.num_items, self.dimension)).astype(np.float32) / 3

    def _parts(self, vectors: Any) -> dict[str, bytes]:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        together = self._neighbours()
        ids = self.vocabulary().item_ids
        return {
            manifest.INDEX: self.index or faiss.serialize_index(index).tobytes(),
            manifest.VOCABULARY: _parquet({"item_id": pa.array(ids, pa.string())}),
            manifest.CATALOGUE: _parquet(self._catalogue()),
            manifest.POPULAR: self.popular
            or json.dumps({"all": ids[: min(200, self.num_items // 3)]}).encode(),
            manifest.SESSION_KNN: _npz(self._knn().arrays()),
            manifest.ITEM_NEIGHBOURS: _npz(together.arrays()),
            manifest.SEGMENT_CONFIG: self.rules.as_bytes(),
            manifest.USUAL_CANDIDATES: _USUAL.as_bytes(),
            **({} if self.choices is None else {manifest.CHOICES: self.choices.as_bytes()}),
            **(
                {}
                if self.uplift is None
                else {manifest.OFFER_ARMS: self.uplift[0].model_dump_json().encode()}
            ),
            **(
                {}
                if self.learned is None
                else {manifest.LEARNED_SEGMENTS: _npz(self.learned.arrays())}
            ),
        }

    def _catalogue(self) -> dict[str, Any]:
        """Item n: department n % 4; every tenth not available; every seventh only in the west;
        every thirteenth without a price."""
        numbers = range(self.num_items)
        popularity = np.log1p(np.arange(self.num_items, 0, -1)).astype(np.float32)
        paths = [[DEPARTMENTS[n % 4], f"{DEPARTMENTS[n % 4]} AISLE {n % 12}"] for n in numbers]
        price = [None if n % 13 == 12 else 100 + n for n in numbers]
        return {
            "item_id": pa.array([self.item_id(n) for n in numbers], pa.string()),
            "title": pa.array([f"Item number {n}" for n in numbers], pa.string()),
            "brand": pa.array(["National" if n % 2 else "Private" for n in numbers]),
            "category_path": pa.array(paths, pa.list_(pa.string())),
            "text": pa.array(["" for _ in numbers], pa.string()),
            "price": pa.array(price, pa.int64()),
            "currency": pa.array([CURRENCY] * self.num_items, pa.string()),
            "available": pa.array([n % 10 != 9 for n in numbers], pa.bool_()),
            "regions": pa.array(
                [["west"] if n % 7 == 6 else [] for n in numbers], pa.list_(pa.string())
            ),
            "synthetic": pa.array([True] * self.num_items, pa.bool_()),
            "popularity": popularity,
            "recent_popularity": popularity * np.float32(0.5),
            "weekly_popularity": popularity * np.float32(0.25),
            "buyers": popularity * np.float32(0.75),
            "repeat_rate": np.full(self.num_items, 0.4, np.float32),
            "gap_days": np.full(self.num_items, 14, np.float32),
            "price_level": np.array([np.log1p(p or 0) for p in price], np.float32),
        }

    def _knn(self) -> SessionKnn:
        random = np.random.default_rng(self.seed + 1)
        session = np.repeat(np.arange(self.num_sessions), 6)
        start = random.integers(0, self.num_items, self.num_sessions)
        item = (start[:, None] + random.integers(0, 12, (self.num_sessions, 6))) % self.num_items
        return SessionKnn.fit(
            session,
            item.ravel() + FIRST_ITEM,
            session * 1_000 + 1,
            num_items=self.num_items + FIRST_ITEM,
        )

    def _neighbours(self) -> ItemNeighbours:
        """Each item's followers by number, with its last three places left unused; categories that
        go with themselves."""
        size, width = self.num_items + FIRST_ITEM, self.num_neighbours
        near, similarity = np.zeros((size, width), np.int32), np.zeros((size, width), np.float32)
        for n in range(self.num_items):
            others = (n + 1 + np.arange(width - 3)) % self.num_items
            near[n + FIRST_ITEM, : width - 3] = others + FIRST_ITEM
            similarity[n + FIRST_ITEM, : width - 3] = 1.0 / (2 + np.arange(width - 3))
        wide, narrow = (self._lift(groups) for groups in (4, 12))
        return ItemNeighbours(near, similarity, wide, narrow, float(self.num_sessions))

    def _lift(self, groups: int) -> CategoryLift:
        group = np.zeros(self.num_items + FIRST_ITEM, np.int32)
        group[FIRST_ITEM:] = 1 + np.arange(self.num_items) % groups
        log_lift = np.zeros((groups + 1, groups + 1), np.float32)
        np.fill_diagonal(log_lift[1:, 1:], 1.0)
        return CategoryLift(group, log_lift)

    def _models(self, version: int, vectors: Any) -> Iterator[ModelEntry]:
        for name in manifest.MODELS:
            yield self._model(name, version, vectors)
        if self.uplift is not None:
            answer = np.array([[*self.uplift[1], *[0.0] * len(self.uplift[1])]], np.float32)
            content = uplift_model(answer)
            size = answer.shape[1]
            yield replace(self, models={manifest.OFFER_UPLIFT: content})._model(
                manifest.OFFER_UPLIFT, version, np.zeros((1, size))
            )

    def _model(self, name: str, version: int, vectors: Any) -> ModelEntry:
        inputs, outputs = tensors(name, vectors.shape[1])
        folder = self.models_dir / name
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
        content = self.models.get(name) or usual_model(name, vectors, self.seed)
        config = f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'.encode()
        (folder / str(version) / "model.onnx").write_bytes(content)
        (folder / "config.pbtxt").write_bytes(config)
        files = {f"{name}/{version}/model.onnx": content, f"{name}/config.pbtxt": config}
        for path, held in self.beside.items():
            if path.startswith(f"{name}/"):
                (self.models_dir / path).write_bytes(held)
                files[path] = held
        return ModelEntry(
            name=name,
            version=version,
            inputs=inputs,
            outputs=outputs,
            files={path: sha256(held) for path, held in files.items()},
            parity=0.0,
            precision="int8" if name in self.int8 else "float32",
            feature_hash=(
                self.uplift[0].feature_hash or None
                if self.uplift is not None and name == manifest.OFFER_UPLIFT
                else None
            ),
        )


def ranker_weight(seed: int) -> Any:
    """What the ranker weighs its features with, [F, 1]: a purchase counts most."""
    names = pair_features.PAIR_FEATURES
    weight = np.random.default_rng(seed).normal(size=(len(names), 1)).astype(np.float32)
    weight[names.index("baskets")] = 30.0
    return weight


def usual_model(name: str, vectors: Any, seed: int) -> bytes:
    """A tower that averages item vectors, or a ranker that weighs its features."""
    if name == manifest.RANKER:
        weight = ranker_weight(seed)
        nodes = [
            helper.make_node("MatMul", ["pair_features", "weight"], ["wide"]),
            helper.make_node("Squeeze", ["wide", "last"], ["scores"]),
        ]
        return onnx_model(name, nodes, {"weight": weight, "last": np.array([2])}, vectors.shape[1])
    table = np.vstack((np.zeros((FIRST_ITEM, vectors.shape[1]), np.float32), vectors))
    if name == manifest.QUERY_TOWER:
        return onnx_model(name, _query_tower_nodes(), {"table": table}, vectors.shape[1])
    nodes = [
        helper.make_node("Gather", ["table", "sequence_items"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["sequence_vector"], keepdims=0),
    ]
    constants = {"table": table, "axis": np.array([1])}
    return onnx_model(name, nodes, constants, vectors.shape[1])


def _query_tower_nodes() -> list[Any]:
    """Weighted history plus the sum of the cart."""
    return [
        helper.make_node("Gather", ["table", "frequent_items"], ["history"]),
        helper.make_node("Unsqueeze", ["frequent_weights", "one"], ["weights"]),
        helper.make_node("MatMul", ["weights", "history"], ["wide"]),
        helper.make_node("Squeeze", ["wide", "one"], ["taste"]),
        helper.make_node("Gather", ["table", "cart_items"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "one"], ["cart"], keepdims=0),
        helper.make_node("Add", ["taste", "cart"], ["query_vector"]),
    ]


def uplift_model(answer: Any) -> bytes:
    """Answers the row `answer` [1, 2 * A] for every checkout."""
    nodes = [
        helper.make_node("Mul", ["cart_value", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "answer"], ["offer_outcomes"]),
    ]
    constants = {"nothing": np.zeros((1, 1), np.float32), "answer": answer}
    return onnx_model(manifest.OFFER_UPLIFT, nodes, constants, answer.shape[1])


def onnx_model(name: str, nodes: list[Any], constants: dict[str, Any], dimension: int) -> bytes:
    """A model with the tensors that the contract wants of `name`; inputs may stay unread."""
    inputs, outputs = tensors(name, dimension)
    constants = {"one": np.array([1]), **constants}
    used = {tensor for node in nodes for tensor in node.input}
    graph = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info(t.name, _ONNX_TYPE[t.dtype], ["B", *t.shape])
            for t in inputs
        ],
        [
            helper.make_tensor_value_info(t.name, _ONNX_TYPE[t.dtype], ["B", *t.shape])
            for t in outputs
        ],
        [numpy_helper.from_array(array, key) for key, array in constants.items() if key in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _npz(arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()
