"""What models, stored states and releases rely on stays as it is, unless a version is raised."""

import json

import numpy as np
import pytest

from contract.manifest import ReleaseManifest, verify
from contract.popular import PopularLists
from tests.contract.golden import (
    FOLDER,
    approximate_manifest,
    encoded_situation,
    meaning,
    popular_lists,
    quantised_manifest,
)
from tests.contract.release import RELEASE_ID, Release
from tests.contract.shop import BREAD, EGGS, MILK, TEA, VOCABULARY


def test_meaning() -> None:
    expected = (FOLDER / "contract.json").read_text()
    assert json.loads(meaning()) == json.loads(expected)
    assert meaning() == expected  # the order is part of it


def test_encoded_situation() -> None:
    found = json.loads(encoded_situation())
    expected = json.loads((FOLDER / "encoded_situation.json").read_text())
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, abs=2e-6), name
    assert np.count_nonzero(expected["sequence_items"]) == 8


def test_manifest_of_old_is_still_read() -> None:
    content = (FOLDER / "manifest.json").read_bytes()
    told = ReleaseManifest.model_validate_json(content)
    assert told.as_bytes() == content
    assert told.sealed().digest == told.digest
    assert told.model("ranker").outputs[0].shape == (256,)
    assert verify(content, Release.complete().digest_of, release_id=RELEASE_ID) == []


def test_a_manifest_with_an_approximate_index_keeps_its_form() -> None:
    content = (FOLDER / "manifest_ivf.json").read_bytes()
    told = ReleaseManifest.model_validate_json(content)
    assert told.as_bytes() == content == approximate_manifest().encode()
    assert told.index.parameters == {"k_factor": 1, "nprobe": 32}
    assert b'"search"' not in (FOLDER / "manifest.json").read_bytes()


def test_a_manifest_with_models_in_int8_keeps_its_form() -> None:
    content = (FOLDER / "manifest_int8.json").read_bytes()
    told = ReleaseManifest.model_validate_json(content)
    assert told.as_bytes() == content == quantised_manifest().encode()
    assert told.in_int8 == ("sequence_encoder", "ranker")
    assert verify(content, Release.complete().digest_of, release_id=RELEASE_ID) == []
    of_old = (FOLDER / "manifest.json").read_bytes()
    assert b'"precision"' not in of_old
    assert ReleaseManifest.model_validate_json(of_old).in_int8 == ()


def test_popular_items_of_a_release_before_there_were_lists() -> None:
    found = PopularLists.parse((FOLDER / "popular_1.json").read_bytes(), VOCABULARY)
    assert found.overall.tolist() == [BREAD, MILK, TEA]
    assert found.of(("repeat_buyers",), "OH").tolist() == [BREAD, MILK, TEA]


def test_popular_lists() -> None:
    content = (FOLDER / "popular.json").read_bytes()
    assert content == popular_lists().encode()
    found = PopularLists.parse(content, VOCABULARY)
    assert found.as_bytes(VOCABULARY) == content
    assert found.of(("repeat_buyers",), None).tolist() == [EGGS, MILK]
    # What a gateway of before reads of it: the list for everybody, where it always stood.
    assert json.loads(content)["all"] == ["milk", "bread"]
