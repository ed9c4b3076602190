"""The background that reasons are told against: a few points that stand for the candidates which
real checkouts had."""

import faiss
import numpy as np

from contract.attribution import Background
from contract.items import Floats
from training.data.ranking_examples import RankingExamples

# Four give the same strongest kind of evidence as 60 drawn candidates in 94 of 100 cases, one (the
# mean) in 90, eight in 95 at twice the cost (docs/lab.md, section 28).
POINTS = 4
_DRAWN = 100_000
_ITERATIONS = 15


def usual_candidates(examples: RankingExamples, seed: int, points: int = POINTS) -> Background:
    """`points` centres of the candidates of `examples`, by k-means on standardised pair features,
    each with its share of them; fewer where there are fewer candidates."""
    rows = _some(examples, seed)
    points = min(points, len(rows))
    scale = rows.std(axis=0) + np.float32(1e-3)
    standardised = np.ascontiguousarray((rows - rows.mean(axis=0)) / scale)
    means = faiss.Kmeans(
        *(rows.shape[1], points),
        niter=_ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_DRAWN,
    )
    means.train(standardised)
    nearest = means.index.search(standardised, 1)[1][:, 0]
    held = np.unique(nearest)  # a centre may end up without anybody
    centres = np.stack([rows[nearest == centre].mean(axis=0) for centre in held])
    share = np.array([(nearest == centre).mean() for centre in held], np.float32)
    return Background(centres.astype(np.float32), share / share.sum())


def _some(examples: RankingExamples, seed: int) -> Floats:
    """Candidates from all over, at most `_DRAWN` of them."""
    case, place = np.nonzero(examples.mask)
    if len(case) > _DRAWN:
        drawn = np.random.default_rng(seed).choice(len(case), _DRAWN, replace=False)
        case, place = case[drawn], place[drawn]
    found: Floats = examples.features[case, place].astype(np.float32)
    return found
