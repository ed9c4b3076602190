"""A release is used only when every byte, shape and number in it is what it says."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
import onnx
import pytest
from onnx import helper

from contract import manifest, pair_features
from contract.attribution import GROUPS
from contract.behaviour import BEHAVIOUR, LearnedSegments
from contract.errors import UserError
from contract.items import CategoryLift, ItemNeighbours
from contract.manifest import sha256
from serving.inference.release_files import ReleaseFiles
from serving.inference.releases import LiveRelease, check_release, load_release
from tests.serving.inference.broken_models import not_a_number
from tests.serving.release_factory import Factory, onnx_model, usual_model


@pytest.fixture
def tiny(tmp_path: Path) -> Factory:
    factory = Factory(tmp_path)
    factory.write()
    return factory


def problems(factory: Factory, release_id: str = "tiny-1") -> list[str]:
    return check_release(factory.releases_dir, factory.models_dir, release_id)


def every_file(factory: Factory) -> list[Path]:
    return sorted(
        path
        for folder in (factory.releases_dir, factory.models_dir)
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_a_sound_release_has_no_problems(tiny: Factory) -> None:
    assert problems(tiny) == []


def test_any_changed_byte_is_named_by_its_file(tiny: Factory) -> None:
    files = every_file(tiny)
    beside = (manifest.MANIFEST, "current", manifest.USUAL_CANDIDATES)
    assert len(files) == len(manifest.RELEASE_FILES) + len(beside) + 2 * len(manifest.MODELS)
    for path in files:
        content = path.read_bytes()
        for place in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
            for flip in (0x01, 0x80):
                changed = bytearray(content)
                changed[place] ^= flip
                path.write_bytes(changed)
                found = problems(tiny)
                assert found, f"byte {place} of {path.name} changed unseen"
                assert any(path.name in line for line in found), (path.name, found)
        path.write_bytes(content)
    assert problems(tiny) == []


def test_any_missing_file_is_named(tiny: Factory) -> None:
    for path in every_file(tiny):
        content = path.read_bytes()
        path.unlink()
        found = problems(tiny)
        assert any(path.name in line and "missing" in line for line in found), (path.name, found)
        path.write_bytes(content)


class Explained(Factory):
    """With a graph of attributions that say nothing."""

    def _parts(self, vectors: Any) -> dict[str, bytes]:
        size = len(pair_features.PAIR_FEATURES), len(GROUPS)
        nodes = [helper.make_node("MatMul", ["pair_features", "weight"], ["attributions"])]
        constants = {"weight": np.zeros(size, np.float32)}
        graph = onnx_model(manifest.ATTRIBUTIONS, nodes, constants, self.dimension)
        return super()._parts(vectors) | {manifest.ATTRIBUTIONS_FILE: graph}


def test_a_ranker_that_fails_is_named_and_not_what_is_held_against_it(tmp_path: Path) -> None:
    factory = Explained(tmp_path, models={"ranker": not_a_number(8)})
    factory.write()
    (problem,) = problems(factory)
    assert problem.startswith("ranker/1/model.onnx: output scores is not finite")


def test_a_digest_reads_nothing_outside_its_folders(tiny: Factory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    digest = ReleaseFiles(tiny.releases_dir, tiny.models_dir, "tiny-1").digest
    current = digest("release", "popular.json")
    assert current == sha256((tiny.releases_dir / "tiny-1" / "popular.json").read_bytes())
    assert digest("release", "../../secret") is None
    assert digest("release", "/etc/hostname") is None
    assert digest("models", "ranker") is None


@pytest.mark.parametrize("release_id", ["../tiny-1", "", "a/b", ".hidden", "no\nsuch"])
def test_a_release_id_cannot_be_a_path(tiny: Factory, release_id: str) -> None:
    assert problems(tiny, release_id) == [f"{release_id!r} is no release id"]


def test_an_unknown_release_and_a_renamed_one_are_refused(tiny: Factory) -> None:
    assert "no such release" in problems(tiny, "tiny-2")[0]
    shutil.copytree(tiny.releases_dir / "tiny-1", tiny.releases_dir / "tiny-2")
    assert any("made for release tiny-1, not tiny-2" in line for line in problems(tiny, "tiny-2"))


def test_other_features_are_refused_and_said(tmp_path: Path) -> None:
    factory = Factory(tmp_path)
    factory.write(feature_hash="0" * 64)
    with pytest.raises(UserError, match="feature_hash: release was made for features 000000000000"):
        load_release(factory.releases_dir, factory.models_dir, "tiny-1")


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    factory = Factory(tmp_path)
    factory.write(vocabulary_hash="1" * 64)
    assert any(line.startswith("vocabulary.parquet: hash") for line in problems(factory))


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    factory = Factory(tmp_path, models={"ranker": not_a_number(8)})
    factory.write()
    assert problems(factory) == [
        "ranker/1/model.onnx: output scores is not finite on a probe input"
    ]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    factory = Factory(tmp_path, models={"query_tower": b"not a model"})
    factory.write()
    found = problems(factory)
    assert len(found) == 1
    assert found[0].startswith("query_tower/1/model.onnx: cannot be loaded")


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    vectors = np.ones((60, 5), np.float32)  # the release's space has 8 dimensions
    factory = Factory(tmp_path, models={"query_tower": usual_model("query_tower", vectors, 1)})
    factory.write()
    assert any(
        "query_tower/1/model.onnx: output query_vector" in line for line in problems(factory)
    )


class _OtherLift(Factory):
    """With categories that its lift table does not know."""

    def _neighbours(self) -> ItemNeighbours:
        usual = super()._neighbours()
        return replace(usual, wide=replace(usual.wide, group=usual.wide.group + 4))


class _UncertainLift(Factory):
    def _neighbours(self) -> ItemNeighbours:
        usual = super()._neighbours()
        log_lift = usual.narrow.log_lift.copy()
        log_lift[2, 1] = np.nan
        return replace(usual, narrow=replace(usual.narrow, log_lift=log_lift))


class _ShortLift(Factory):
    def _neighbours(self) -> ItemNeighbours:
        usual = super()._neighbours()
        return replace(usual, narrow=CategoryLift.nothing(7))


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (_OtherLift, "names a category outside its lift table"),
        (_UncertainLift, "lift holds a value that is not a finite number"),
        (_ShortLift, "a lift table does not fit 62 items"),
    ],
)
def test_a_lift_table_that_does_not_fit_is_refused(
    tmp_path: Path, made: type[Factory], line: str
) -> None:
    factory = made(tmp_path)
    factory.write()
    assert problems(factory) == [f"item_neighbours.npz: {line}"]


class _OwnSegments(Factory):
    """With other files of segments, sealed all the same."""

    own: ClassVar[dict[str, bytes]] = {}

    def _parts(self, vectors: Any) -> dict[str, bytes]:
        return super()._parts(vectors) | self.own


def _learned_of(version: int) -> bytes:
    width = len(BEHAVIOUR)
    made = LearnedSegments(("one",), np.zeros(width), np.ones(width), np.zeros((1, width)))
    buffer = io.BytesIO()
    arrays: dict[str, Any] = made.arrays() | {"behaviour_version": np.array(version)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("segment_config.json", b"{", "segment_config.json: Invalid JSON"),
        ("segment_config.json", b'{"lapsing": {"days": 0}}', "segment_config.json: lapsing.days: "),
        ("segments.npz", b"nonsense", "segments.npz: is no readable file of arrays"),
        ("segments.npz", _learned_of(99), "segments.npz: learned from behaviour 99, this version"),
    ],
)
def test_segments_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, line: str
) -> None:
    monkeypatch.setattr(_OwnSegments, "own", {name: content})
    factory = _OwnSegments(tmp_path)
    factory.write()
    (found,) = problems(factory)
    assert found.startswith(line)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_item_vectors_must_be_finite(tmp_path: Path, value: float) -> None:
    vectors = np.ones((60, 8), np.float32)
    vectors[17, 3] = value
    # The models must be sound, so that only the vectors can be blamed.
    plain = {name: usual_model(name, np.ones((60, 8), np.float32), 1) for name in manifest.MODELS}
    factory = Factory(tmp_path, vectors=vectors, models=plain)
    factory.write()
    assert problems(factory) == ["items.faiss: vectors holds a value that is not a finite number"]


def test_an_index_in_another_metric_is_refused(tiny: Factory) -> None:
    index = faiss.IndexFlatL2(8)
    index.add(tiny.item_vectors())
    content = faiss.serialize_index(index).tobytes()
    shutil.rmtree(tiny.releases_dir)
    digests = {name: sha256(part) for name, part in tiny._parts(tiny.item_vectors()).items()}
    tiny.write(files=digests | {"items.faiss": sha256(content)})
    (tiny.releases_dir / "tiny-1" / "items.faiss").write_bytes(content)
    assert "items.faiss: its metric is not the inner product" in problems(tiny)


def test_the_loaded_release_holds_what_was_written(tiny: Factory) -> None:
    release = load_release(tiny.releases_dir, tiny.models_dir, "tiny-1")
    assert release.vocabulary.item_ids[5] == "item-5"
    assert release.catalogue.title[2 + 5] == "Item number 5"
    assert release.catalogue.category_path[2 + 5] == ("DAIRY", "DAIRY AISLE 5")
    assert release.catalogue.now.price[2 + 5] == 105
    assert release.catalogue.now.price[2 + 12] == -1
    assert not release.catalogue.now.available[2 + 9]
    assert np.array_equal(release.item_vectors[2:], tiny.item_vectors())
    assert not release.item_vectors[:2].any()
    assert release.popular.tolist() == list(range(2, 22))
    assert sorted(release.by_popularity.tolist()) == list(range(2, 62))
    query = release.item_vectors[2 + 5] * 100
    assert release.index.search(query[None], 60).shape == (1, 60)
    assert 2 + 5 in release.index.search(query[None], 5)
    release.models.close()


def test_regions(tiny: Factory) -> None:
    release = load_release(tiny.releases_dir, tiny.models_dir, "tiny-1")
    only_west = 2 + 6
    assert release.catalogue.now.sellable("west")[only_west]
    assert not release.catalogue.now.sellable("east")[only_west]
    assert release.catalogue.now.sellable(None)[only_west]
    assert not release.catalogue.now.sellable("west")[2 + 9]  # not available anywhere
    aisle = [2 + number for number in (5, 17, 29, 41, 53)]
    assert release.catalogue.in_category("DAIRY AISLE 5").tolist() == aisle
    # One decision must not change what the others see.
    assert not release.catalogue.in_category("DAIRY").flags.writeable
    release.catalogue.now.sellable("east")[:] = True
    assert not release.catalogue.now.sellable("east")[only_west]
    release.models.close()


async def test_a_bad_release_leaves_the_old_one_live(tiny: Factory) -> None:
    live = LiveRelease(tiny.releases_dir, tiny.models_dir)
    with pytest.raises(UserError, match="no release is loaded"):
        _ = live.current
    await live.load_or_keep("tiny-1")
    before = live.current
    tiny.write("tiny-2", version=2, current=False)
    path = tiny.models_dir / "ranker" / "2" / "model.onnx"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    with pytest.raises(UserError, match=r"release tiny-2 is refused: ranker/2/model.onnx"):
        await live.load_or_keep("tiny-2")
    assert live.current is before
    path.write_bytes(sound)
    with live.lease() as leased:
        await live.load_or_keep("tiny-2")
        assert leased is before
        assert live.current.release_id == "tiny-2"
        assert not _closed(before)  # a decision still uses it
    assert _closed(before)
    live.close()


def _closed(release: object) -> bool:
    return bool(release.models._closed)  # type: ignore[attr-defined]


def test_weights_outside_the_model_file_are_verified_too(tmp_path: Path) -> None:
    content, weights = _kept_apart(tmp_path)
    path = "query_tower/1/model.onnx.data"
    sound = Factory(tmp_path / "a", models={"query_tower": content}, beside={path: weights})
    sound.write()
    assert problems(sound) == []
    (sound.models_dir / path).write_bytes(weights[:-1] + b"!")
    assert any(line.startswith(f"{path}: content differs") for line in problems(sound))
    unlisted = Factory(tmp_path / "b", models={"query_tower": content})
    unlisted.write()
    (unlisted.models_dir / path).write_bytes(weights)
    assert any("query_tower/1/model.onnx: cannot be loaded" in line for line in problems(unlisted))


def _kept_apart(folder: Path) -> tuple[bytes, bytes]:
    """A query tower, and its item table in a file of its own."""
    model = onnx.load_from_string(usual_model("query_tower", Factory(folder).item_vectors(), 1))
    where = "model.onnx.data"
    path = folder / "model.onnx"
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=where, size_threshold=1024
    )
    return path.read_bytes(), (folder / where).read_bytes()
