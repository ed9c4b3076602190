from typing import Any

import pytest
from pydantic import ValidationError

from contract.index_entry import IndexEntry
from contract.manifest import (
    MANIFEST,
    MODELS,
    OFFER_ARMS,
    OFFER_UPLIFT,
    RANKER,
    RELEASE_FILES,
    ReleaseManifest,
    Root,
    Tensor,
    expected_feature_hash,
    own_feature_hash,
    sha256,
    tensors,
    verify,
)
from tests.contract.examples import PROVE
from tests.contract.release import DIMENSION, RELEASE_ID, Release, manifest, model

FILES = sorted(Release.complete().files)


def problems(sealed: ReleaseManifest, release: Release | None = None) -> list[str]:
    held = Release.complete() if release is None else release
    return verify(sealed.as_bytes(), held.digest_of, release_id=RELEASE_ID)


def test_complete_release_has_no_problems() -> None:
    assert problems(manifest()) == []
    assert len(FILES) == len(RELEASE_FILES) + 2 * len(MODELS)


def test_every_changed_byte_of_the_manifest_is_seen() -> None:
    content, release = manifest().as_bytes(), Release.complete()
    for place, byte in enumerate(content):
        for other in range(256) if PROVE and place % 16 == 0 else (byte ^ 1, byte ^ 128):
            if other == byte:
                continue
            changed = content[:place] + bytes([other]) + content[place + 1 :]
            (line,) = verify(changed, release.digest_of)
            assert line.startswith(f"{MANIFEST}: ")


@pytest.mark.parametrize("change", [b"", b"{}", b"[]", b"\xff", b"null", b"[" * 10_000])
def test_anything_else_is_no_manifest(change: bytes) -> None:
    (line,) = verify(change, Release.complete().digest_of)
    assert line.startswith(f"{MANIFEST}: ")


def test_the_same_fields_in_another_form_are_a_change() -> None:
    content = manifest().as_bytes()
    for other in (content.rstrip(), content + b"\n", content.replace(b"\n ", b"\n  ")):
        assert verify(other, Release.complete().digest_of) == [
            f"{MANIFEST}: changed after it was sealed"
        ]


@pytest.mark.parametrize(("root", "name"), FILES)
def test_every_changed_byte_of_a_file_names_it(root: Root, name: str) -> None:
    sealed, release = manifest(), Release.complete()
    content = release.files[root, name]
    for place, byte in enumerate(content):
        changed = content[:place] + bytes([byte ^ 1]) + content[place + 1 :]
        release.files[root, name] = changed
        (line,) = problems(sealed, release)
        assert line.startswith(f"{name}: content differs")
    for other in (content[:-1], content + b"\0", b""):
        release.files[root, name] = other
        assert [line.partition(":")[0] for line in problems(sealed, release)] == [name]


@pytest.mark.parametrize(("root", "name"), FILES)
def test_missing_file_is_named(root: Root, name: str) -> None:
    release = Release.complete()
    del release.files[root, name]
    assert problems(manifest(), release) == [f"{name}: missing"]


@pytest.mark.parametrize("name", RELEASE_FILES)
def test_file_that_is_not_listed_is_named(name: str) -> None:
    files = {other: digest for other, digest in manifest().files.items() if other != name}
    assert problems(manifest(files=files)) == [f"{name}: not listed in {MANIFEST}"]


@pytest.mark.parametrize("name", MODELS)
def test_model_that_is_not_listed_is_named(name: str) -> None:
    models = tuple(model(other) for other in MODELS if other != name)
    assert problems(manifest(models=models)) == [f"model {name}: not listed in {MANIFEST}"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("version", [1, 2])
def test_model_without_its_graph_is_named(name: str, version: int) -> None:
    files = {f"{name}/config.pbtxt": model(name).files[f"{name}/config.pbtxt"]}
    bare = model(name, version=version, files=files)
    models = (bare, *(model(other) for other in MODELS if other != name))
    assert problems(manifest(models=models)) == [
        f"{name}/{version}/model.onnx: not listed in {MANIFEST}"
    ]


def test_release_of_another_name_is_refused() -> None:
    assert problems(manifest(release_id="golden-2")) == [
        f"{MANIFEST}: made for release golden-2, not {RELEASE_ID}"
    ]
    content = manifest(release_id="golden-2").as_bytes()
    assert verify(content, Release.complete().digest_of) == []


def test_release_for_other_features_is_refused() -> None:
    (line,) = problems(manifest(feature_hash="0" * 64))
    assert line.startswith("feature_hash: release was made for features 000000000000")
    assert expected_feature_hash()[:12] in line


def with_tensors(name: str, kind: str, held: tuple[Tensor, ...]) -> list[str]:
    others = (model(other) for other in MODELS if other != name)
    return problems(manifest(models=(model(name, **{kind: held}), *others)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_every_tensor_must_be_as_expected(name: str, kind: str) -> None:
    held: tuple[Tensor, ...] = getattr(model(name), kind)
    for place, tensor in enumerate(held):
        rest = held[:place] + held[place + 1 :]
        other_type = "float32" if tensor.dtype == "int64" else "int64"
        wrong: list[tuple[Tensor, ...]] = [
            rest,
            (*rest, tensor.model_copy(update={"shape": (*tensor.shape, 1)})),
            (*rest, tensor.model_copy(update={"shape": tensor.shape[:-1]})),
            (*rest, tensor.model_copy(update={"dtype": other_type})),
        ]
        for given in wrong:
            (line,) = with_tensors(name, kind, given)
            assert line.startswith(f"model {name}: {kind[:-1]} {tensor.name} is ")
    surplus = Tensor(name="surplus", dtype="int64", shape=(1,))
    (line,) = with_tensors(name, kind, (*held, surplus))
    assert line.startswith(f"model {name}: {kind[:-1]} surplus is ")
    assert with_tensors(name, kind, held[::-1]) == []


def test_vectors_must_fit_the_index() -> None:
    index = IndexEntry(metric="inner_product", kind="flat", dimension=DIMENSION + 1, count=2)
    lines = problems(manifest(index=index))
    assert [line.split(" is ")[0] for line in lines] == [
        "model query_tower: output query_vector",
        "model sequence_encoder: output sequence_vector",
    ]


def test_further_files_and_models_are_verified_too() -> None:
    files = manifest().files | {"segments.npz": "0" * 64}
    assert problems(manifest(files=files)) == ["segments.npz: missing"]
    extra = model(RANKER, files={"drift/1/model.onnx": "0" * 64}).model_copy(
        update={"name": "drift"}
    )
    models = (*manifest().models, extra)
    assert problems(manifest(models=models)) == ["drift/1/model.onnx: missing"]


def test_all_problems_are_told_at_once() -> None:
    release = Release.complete()
    release.files["release", "popular.json"] += b" "
    del release.files["models", "ranker/1/model.onnx"]
    lines = problems(manifest(feature_hash="0" * 64, release_id="other"), release)
    assert [line.partition(":")[0] for line in lines] == [
        *(MANIFEST, "feature_hash", "popular.json", "ranker/1/model.onnx")
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"release_id": "../other"},
        {"release_id": ""},
        {"feature_hash": "0" * 63},
        {"files": {"popular.json": "F" * 64}},
        {"index": {"metric": "l2", "kind": "flat", "dimension": 4, "count": 2}},
        {"surprise": 1},
    ],
)
def test_bad_fields_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest(**changed)


def test_a_precision_that_nobody_serves_is_refused() -> None:
    with pytest.raises(ValidationError, match="precision"):
        model(RANKER, precision="int4")


def test_model_by_name() -> None:
    assert manifest().model(RANKER) == model(RANKER)
    with pytest.raises(KeyError):
        manifest().model("unheard of")


@pytest.mark.parametrize("feature_hash", [None, "0" * 64])
def test_an_optional_model_of_other_features_spoils_no_release(feature_hash: str | None) -> None:
    narrow = tuple(
        tensor.model_copy(update={"shape": (3,)}) for tensor in tensors(OFFER_UPLIFT, 4)[0]
    )
    release = Release.complete()
    release.files["release", OFFER_ARMS] = b"arms"
    older = model(OFFER_UPLIFT, inputs=narrow, feature_hash=feature_hash)
    for path in older.files:
        release.files["models", path] = (b"graph" if "onnx" in path else b"config") + path.encode()
    held = manifest(models=tuple(model(name) for name in MODELS))
    listed = held.files | {OFFER_ARMS: sha256(b"arms")}
    whole = manifest(models=(*held.models, older), files=listed)
    assert problems(whole, release) == []
    assert not whole.model(OFFER_UPLIFT).usable
    ours = older.model_copy(update={"feature_hash": own_feature_hash(OFFER_UPLIFT)})
    (first, *_) = problems(manifest(models=(*held.models, ours), files=listed), release)
    assert first.startswith("model offer_uplift: input")
    assert b"feature_hash" not in model(RANKER).model_dump_json().encode()
