"""A release with an approximate index: loaded as its manifest says, or refused; and the candidates
that a gateway retrieves with it."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from contract.encoding import FIRST_ITEM, Situation
from contract.features import UNKNOWN
from contract.index_entry import RECALL_GATE, WANTED, IndexEntry, IndexSearch, Recall, served_k
from serving.decision.candidate_set import SOURCE
from serving.decision.eligibility import Eligible
from serving.decision.retrieval import retrieve
from serving.inference.release import Release
from serving.inference.releases import check_release, load_release
from tests.contract.vectors import clustered, exact, found_share
from tests.serving.release_factory import Factory

ITEMS, LISTS = 3_000, 50
VECTORS, QUERIES = clustered(ITEMS, 8, 60)


def rough(nprobe: int, metric: int = faiss.METRIC_INNER_PRODUCT) -> bytes:
    """An inverted file of half-precision vectors beside the exact ones, as the export writes it."""
    made: Any = faiss.index_factory(8, f"IVF{LISTS},SQfp16,RFlat", metric)
    made.train(VECTORS)
    made.add(VECTORS)
    base: Any = faiss.downcast_index(made.base_index)
    base.nprobe = nprobe
    return bytes(faiss.serialize_index(made).tobytes())


def entry(**changed: Any) -> IndexEntry:
    at = tuple(Recall(filter="none", k=k, value=0.995) for k in served_k(ITEMS))
    search = IndexSearch(parameters={"nprobe": 20, "k_factor": 1}, recall=at, queries=60)
    fields: dict[str, Any] = {"kind": "ivf_fp16", "dimension": 8, "count": ITEMS, "search": search}
    return IndexEntry(metric="inner_product", **(fields | changed))


def written(root: Path, content: bytes, told: IndexEntry) -> Factory:
    factory = Factory(root, num_items=ITEMS, vectors=VECTORS, index=content)
    factory.write(index=told)
    return factory


def problems(factory: Factory) -> list[str]:
    return check_release(factory.releases_dir, factory.models_dir, "tiny-1")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Any:
    factory = written(tmp_path_factory.mktemp("rough"), rough(20), entry())
    assert problems(factory) == []
    held = load_release(factory.releases_dir, factory.models_dir, "tiny-1")
    yield held
    held.models.close()


def test_the_exact_vectors_come_with_a_rough_index(release: Release) -> None:
    assert release.manifest.index.kind == "ivf_fp16"
    assert isinstance(release.index.approximate, faiss.IndexIVFScalarQuantizer)
    assert release.index.approximate.nprobe == 20
    assert np.array_equal(release.item_vectors[FIRST_ITEM:], VECTORS)
    assert not release.item_vectors[:FIRST_ITEM].any()


@pytest.mark.parametrize("share", [1.0, 0.6, 0.3, 0.1, 0.01, 0.001])
def test_retrieval_keeps_its_recall_under_any_filter(release: Release, share: float) -> None:
    mask = np.zeros(len(release.vocabulary), bool)
    allowed = np.random.default_rng(4).permutation(ITEMS)[: max(1, round(share * ITEMS))]
    mask[allowed + FIRST_ITEM] = True
    may = Eligible(mask, len(allowed), False)
    found, expected = [], []
    for query, other in zip(QUERIES[::2], QUERIES[1::2], strict=True):
        listed = retrieve(
            release, Situation(UNKNOWN, (), 0), may, {"query_tower": query, "sequence": other}
        ).listed
        assert mask[listed.index].all()
        for name, vector in (("query_tower", query), ("sequence", other)):
            found.append(listed.index[listed.brought[:, SOURCE[name]]])
            expected.append(exact(VECTORS, vector, WANTED, mask))
            assert len(found[-1]) == min(WANTED, len(allowed))
    assert found_share(found, expected) >= (RECALL_GATE if share >= 0.25 else 1.0)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (entry(kind="ivf_sq8"), "items.faiss: kind is ivf_fp16, not ivf_sq8"),
        (entry(kind="flat", search=None), "items.faiss: kind is ivf_fp16, not flat"),
        (entry(kind="ivf_flat"), "index: ivf_flat is asked with ['nprobe'], not with"),
        (entry(kind="other"), "index: kind 'other' is not known"),
        (entry(search=None), "index: ivf_fp16 is asked with ['k_factor', 'nprobe'], not with []"),
        (entry(count=ITEMS + 1), f"items.faiss: count is {ITEMS}, not {ITEMS + 1}"),
    ],
)
def test_another_index_than_the_manifest_says_is_refused(
    tmp_path: Path, told: IndexEntry, said: str
) -> None:
    assert any(line.startswith(said) for line in problems(written(tmp_path, rough(20), told)))


def test_other_search_parameters_are_refused(tmp_path: Path) -> None:
    """The file asks one list where the manifest's recall was measured with twenty, or the reverse:
    whoever changed one of them has sealed the manifest anew."""
    factory = written(tmp_path / "a", rough(1), entry())
    assert problems(factory) == ["items.faiss: nprobe is 1, not 20"]
    search = entry().search
    assert search is not None
    lower = search.model_copy(update={"parameters": {"nprobe": 1, "k_factor": 1}})
    factory = written(tmp_path / "b", rough(20), entry(search=lower))
    assert problems(factory) == ["items.faiss: nprobe is 20, not 1"]


def test_a_recall_below_the_gate_is_refused(tmp_path: Path) -> None:
    search = entry().search
    assert search is not None
    low = search.recall[0].model_copy(update={"value": 0.98})
    poor = search.model_copy(update={"recall": (low, *search.recall[1:])})
    (line,) = problems(written(tmp_path, rough(20), entry(search=poor)))
    assert line == "index: recall 0.9800 at k=91 (filter none) is below 0.99"


def test_another_metric_inside_is_refused(tmp_path: Path) -> None:
    factory = written(tmp_path, rough(20, faiss.METRIC_L2), entry())
    assert problems(factory) == ["items.faiss: its metric is not the inner product"]
