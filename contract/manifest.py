"""The release manifest: where everything that training hands to serving meets, with its hashes.

`verify` is the one judge of a release. It does no I/O: the caller lends it a function that gives
the digest of a file. What a release must have been made for is asked of the code itself, with its
compiled loops; that is imported where it is asked, because most who read a manifest judge nothing.
"""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
)

from contract.index_entry import IndexEntry, index_problems
from contract.quotas import QUOTAS

MANIFEST: Final = "manifest.json"
INDEX: Final = "items.faiss"
VOCABULARY: Final = "vocabulary.parquet"
CATALOGUE: Final = "catalogue.parquet"
POPULAR: Final = "popular.json"
SESSION_KNN: Final = "session_knn.npz"
ITEM_NEIGHBOURS: Final = "item_neighbours.npz"
SEGMENT_CONFIG: Final = "segment_config.json"  # which segments there are: the models read them
RELEASE_FILES: Final = (
    *(INDEX, VOCABULARY, CATALOGUE, POPULAR, SESSION_KNN, ITEM_NEIGHBOURS),
    SEGMENT_CONFIG,
)
# A release may do without:
LEARNED_SEGMENTS: Final = "segments.npz"
USUAL_CANDIDATES: Final = "usual_candidates.npz"  # the background of reasons
ATTRIBUTIONS_FILE: Final = "attributions.onnx"  # the graph ATTRIBUTIONS
DRIFT_BASELINE: Final = "drift_baseline.json"  # what live decisions are held against
CHOICES: Final = "choices.json"  # how people pay and have things delivered
OFFER_ARMS: Final = "offer_arms.json"  # goes with the model OFFER_UPLIFT

QUERY_TOWER: Final = "query_tower"
SEQUENCE_ENCODER: Final = "sequence_encoder"
RANKER: Final = "ranker"
MODELS: Final = (QUERY_TOWER, SEQUENCE_ENCODER, RANKER)
OFFER_UPLIFT: Final = "offer_uplift"
OPTIONAL_MODELS: Final = (OFFER_UPLIFT,)  # a release may do without
# What the ranker's scores owe to which evidence. It runs in the gateway, so it is no served model.
ATTRIBUTIONS: Final = "attributions"

RELEASE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ReleaseId = Annotated[str, StringConstraints(pattern=f"^{RELEASE_ID.pattern}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Root = Literal["release", "models"]
Precision = Literal["float32", "int8"]
DigestOf = Callable[[Root, str], str | None]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Strict):
    """A named tensor; `shape` without the batch dimension."""

    name: str
    dtype: Literal["int64", "float32"]
    shape: tuple[int, ...]


class ModelEntry(_Strict):
    """A model of the release; `files` maps paths inside the model repository to digests.

    `precision` is of what is held and computed inside: inputs and outputs are the same in either.
    It is not written where it is float32, as in every release before there was another.
    `feature_hash` is of a model with features of its own (`own_feature_hash`), and not written
    where there is none.
    """

    name: str
    version: Annotated[int, Field(ge=1)]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    files: dict[str, Digest]
    # Largest difference to torch: in float32 over the parity inputs, which is a gate; in int8 over
    # real checkouts, which says how far answers were moved. There the gate is what it costs them.
    parity: Annotated[float, Field(ge=0)]
    precision: Precision = "float32"
    feature_hash: Digest | None = None

    @model_serializer(mode="wrap")
    def _as_it_was_sealed(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        held: dict[str, Any] = handler(self)
        if self.precision == "float32":
            del held["precision"]
        if self.feature_hash is None:
            del held["feature_hash"]
        return held

    @property
    def usable(self) -> bool:
        """Whether this version computes the features of its own that the model was trained on. A
        release is as good without an optional model that is not."""
        return self.feature_hash == own_feature_hash(self.name)


class ReleaseManifest(_Strict):
    """One release: what it is made of and what it was made for."""

    format: Literal[1] = 1
    release_id: ReleaseId
    created_at: datetime
    recipe: str
    trained_until: datetime
    feature_hash: Digest
    vocabulary_hash: Digest
    currency: str
    synthetic: bool
    index: IndexEntry
    models: tuple[ModelEntry, ...]
    files: dict[str, Digest]  # names inside the release folder
    metrics: dict[str, float] = {}
    digest: str = ""  # of this manifest with an empty digest

    def sealed(self) -> "ReleaseManifest":
        """The same manifest with its own digest filled in."""
        open_form = self.model_copy(update={"digest": ""})
        return self.model_copy(update={"digest": sha256(open_form.as_bytes())})

    def as_bytes(self) -> bytes:
        """The one canonical form in which a manifest is written."""
        return (json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1) + "\n").encode()

    def model(self, name: str) -> ModelEntry:
        """The entry of the model `name`; KeyError when the release has none."""
        for entry in self.models:
            if entry.name == name:
                return entry
        raise KeyError(name)

    @property
    def in_int8(self) -> tuple[str, ...]:
        """The names of the models that are quantised."""
        return tuple(entry.name for entry in self.models if entry.precision == "int8")


def sha256(content: bytes) -> str:
    """The digest used throughout a manifest."""
    return hashlib.sha256(content).hexdigest()


def expected_feature_hash() -> str:
    """The hash of the features, the encoder and the pair features of this very code."""
    from contract import candidates, encoding, pair_features, segment_config, segments, text
    from contract.features import feature_hash

    return feature_hash(
        encoding.ENCODER_VERSION,
        encoding.QUERY_TOWER_INPUTS,
        encoding.SEQUENCE_INPUTS,
        encoding.CONTEXT_SIZES,
        encoding.NUM_EVENT_TYPES,
        encoding.NUM_GAPS,
        text.NUM_TOKENS,
        pair_features.PAIR_FEATURES_VERSION,
        pair_features.PAIR_FEATURES,
        candidates.MAX_CANDIDATES,
        QUOTAS,
        segments.SEGMENTS_VERSION,
        segment_config.RULES,
        segments.NUM_SEGMENTS,
    )


def own_feature_hash(model: str) -> str | None:
    """The hash of features that no other model has; None where the release's holds."""
    if model != OFFER_UPLIFT:
        return None
    from contract.offer_features import offer_feature_hash

    return offer_feature_hash()


def verify(content: bytes, digest_of: DigestOf, *, release_id: str | None = None) -> list[str]:
    """What is wrong with the release whose manifest is `content`; an empty list means nothing.

    Each line names the file or the field that differs. `release_id` is the folder's name.
    """
    try:
        manifest = ReleaseManifest.model_validate_json(content)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        return [f"{MANIFEST}: {where}: {first['msg']}"]
    if manifest.as_bytes() != content or manifest.sealed().digest != manifest.digest:
        return [f"{MANIFEST}: changed after it was sealed"]
    problems: list[str] = []
    if release_id is not None and manifest.release_id != release_id:
        problems.append(f"{MANIFEST}: made for release {manifest.release_id}, not {release_id}")
    if manifest.feature_hash != expected_feature_hash():
        problems.append(
            f"feature_hash: release was made for features {manifest.feature_hash[:12]}, "
            f"this gateway has {expected_feature_hash()[:12]}; export it again with this version"
        )
    problems += [f"{name}: not listed in {MANIFEST}" for name in _absent(manifest)]
    for root, files in _files(manifest):
        problems += [
            line
            for name, digest in files.items()
            if (line := _differs(root, name, digest, digest_of))
        ]
    return problems + index_problems(manifest.index) + _shape_problems(manifest)


def _files(manifest: ReleaseManifest) -> list[tuple[Root, dict[str, str]]]:
    return [("release", manifest.files), *(("models", entry.files) for entry in manifest.models)]


def _differs(root: Root, name: str, digest: str, digest_of: DigestOf) -> str | None:
    found = digest_of(root, name)
    if found is None:
        return f"{name}: missing"
    if found != digest:
        return f"{name}: content differs from the manifest (sha256 {found[:12]}, not {digest[:12]})"
    return None


def _absent(manifest: ReleaseManifest) -> list[str]:
    names = {entry.name for entry in manifest.models}
    absent = [name for name in RELEASE_FILES if name not in manifest.files]
    absent += [f"model {name}" for name in MODELS if name not in names]
    graphs = [
        (f"{entry.name}/{entry.version}/model.onnx", entry)
        for entry in manifest.models
        if entry.name in (*MODELS, *OPTIONAL_MODELS)
    ]
    if OFFER_UPLIFT in names and OFFER_ARMS not in manifest.files:
        absent.append(OFFER_ARMS)
    return absent + [path for path, entry in graphs if path not in entry.files]


def tensors(model: str, dimension: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and outputs that this code expects of `model` in a space of `dimension`; of
    OFFER_UPLIFT that is the size of its answer, twice the number of arms."""
    from contract import attribution, candidates, encoding, offer_features, pair_features

    if model == OFFER_UPLIFT:
        width = (len(offer_features.OFFER_FEATURES),)
        return (
            (
                Tensor(name="offer_features", dtype="float32", shape=width),
                Tensor(name="cart_value", dtype="float32", shape=(1,)),
            ),
            (Tensor(name="offer_outcomes", dtype="float32", shape=(dimension,)),),
        )
    num_features = len(pair_features.PAIR_FEATURES)
    if model == RANKER:
        shape = (candidates.MAX_CANDIDATES, num_features)
        return (
            (Tensor(name="pair_features", dtype="float32", shape=shape),),
            (Tensor(name="scores", dtype="float32", shape=shape[:1]),),
        )
    if model == ATTRIBUTIONS:
        return (
            (Tensor(name="pair_features", dtype="float32", shape=(num_features,)),),
            (Tensor(name="attributions", dtype="float32", shape=(len(attribution.GROUPS),)),),
        )
    source = encoding.QUERY_TOWER_INPUTS if model == QUERY_TOWER else encoding.SEQUENCE_INPUTS
    inputs = tuple(
        Tensor.model_validate({"name": name, "dtype": dtype, "shape": shape})
        for name, (shape, dtype) in source.items()
    )
    output = "query_vector" if model == QUERY_TOWER else "sequence_vector"
    return inputs, (Tensor(name=output, dtype="float32", shape=(dimension,)),)


def _shape_problems(manifest: ReleaseManifest) -> list[str]:
    problems = []
    for entry in manifest.models:
        if entry.name not in (*MODELS, *OPTIONAL_MODELS) or not entry.usable:
            continue
        dimension = manifest.index.dimension
        if entry.name == OFFER_UPLIFT:  # its own, an even number: two figures an arm
            dimension = entry.outputs[0].shape[0] // 2 * 2 if entry.outputs else 0
        inputs, outputs = tensors(entry.name, dimension)
        for kind, held, wanted in (
            ("input", entry.inputs, inputs),
            ("output", entry.outputs, outputs),
        ):
            given = {tensor.name: tensor for tensor in held}
            expected = {tensor.name: tensor for tensor in wanted}
            problems += [
                f"model {entry.name}: {kind} {name} is {given.get(name)}, not {expected.get(name)}"
                for name in expected | given
                if given.get(name) != expected.get(name)
            ]
    return problems
