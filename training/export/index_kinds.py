"""The kinds of item index, as FAISS builds them. Every one is by inner product; row i of the
vectors is item i + FIRST_ITEM."""

import time
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from contract.items import Floats

# Kinds that keep the vectors only roughly, with the ways of fetching more than is asked for.
K_FACTORS = {"ivf_fp16": (1,), "ivf_sq8": (2,), "ivf_pq": (4, 10)}
_SCALAR = {"ivf_fp16": faiss.ScalarQuantizer.QT_fp16, "ivf_sq8": faiss.ScalarQuantizer.QT_8bit}
_HNSW_LINKS = 16
_PER_CENTROID = 64  # vectors to learn each centroid from
_LEAST_PER_LIST = 40


@dataclass(frozen=True)
class Coarse:
    """The centroids of an inverted file, learned once for all kinds of it."""

    centroids: Any  # faiss.IndexFlatIP
    num_lists: int
    sample: Floats
    seconds: float

    @classmethod
    def of(cls, vectors: Floats, seed: int = 0) -> "Coarse":
        """k-means, spherical as the metric asks for, over a sample of `vectors`."""
        began = time.perf_counter()
        count, dimension = vectors.shape
        num_lists = max(1, min(int(4 * count**0.5), count // _LEAST_PER_LIST))
        rows = np.random.default_rng(seed).permutation(count)[: _PER_CENTROID * num_lists]
        sample = np.ascontiguousarray(vectors[np.sort(rows)])
        learned: Any = faiss.index_factory(
            dimension, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT
        )
        learned.train(sample)
        centroids = faiss.IndexFlatIP(dimension)
        centroids.add(learned.quantizer.reconstruct_n(0, num_lists))
        return cls(centroids, num_lists, sample, time.perf_counter() - began)


def made_of(kind: str, vectors: Floats, coarse: "Coarse") -> Any:
    """The FAISS index of `kind` over `vectors`; one that keeps them only roughly inside an
    IndexRefineFlat with the exact ones."""
    metric, dimension = faiss.METRIC_INNER_PRODUCT, vectors.shape[1]
    common = (coarse.centroids, dimension, coarse.num_lists)
    made: Any
    if kind == "hnsw":
        made = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS, metric)
    elif kind == "ivf_flat":
        made = faiss.IndexIVFFlat(*common, metric)
    elif kind == "ivf_pq":  # four bits for every two dimensions
        made = faiss.IndexIVFPQFastScan(*common, -(-dimension // 2), 4, metric)
    else:
        made = faiss.IndexIVFScalarQuantizer(*common, _SCALAR[kind], metric)
    made.train(coarse.sample)
    if kind in K_FACTORS:
        made = faiss.IndexRefineFlat(made)
    made.add(vectors)
    return made


def flat(vectors: Floats) -> Any:
    """Exact search."""
    made = faiss.IndexFlatIP(vectors.shape[1])
    made.add(vectors)
    return made


def set_parameters(index: Any, parameters: dict[str, int]) -> None:
    """Let `index` be searched with `parameters`; its file keeps them."""
    base = index
    if isinstance(index, faiss.IndexRefineFlat):
        index.k_factor = float(parameters["k_factor"])
        base = faiss.downcast_index(index.base_index)
    if "nprobe" in parameters:
        base.nprobe = parameters["nprobe"]
    if "ef_search" in parameters:
        base.hnsw.efSearch = parameters["ef_search"]


def content_of(index: Any) -> bytes:
    """The content of the index's file."""
    return bytes(faiss.serialize_index(index).tobytes())
