"""The background that reasons are told against: a few points that stand for the candidates which
real checkouts had, and as many for those that were good enough to be shown."""

import faiss
import numpy as np

from contract.attribution import Background
from contract.items import Floats
from training.data.ranking_examples import RankingExamples

# Two centres of each. Four of candidates alone give nearly the same values as 60 candidates drawn,
# and agree with what SHAP says against shown items in .82 by rank only, half and half in .88 and
# this share in .94 (docs/lab.md, section 28).
POINTS = 2
_OF_CANDIDATES = 0.15
_DRAWN = 100_000
_ITERATIONS = 15


def usual_items(
    examples: RankingExamples, shown: Floats, seed: int, points: int = POINTS
) -> Background:
    """`points` centres of the candidates of `examples` and as many of the pair features of `shown`
    items [S, F], of which candidates have the smaller part of the weight; fewer where there are
    fewer rows."""
    candidates, candidates_share = _centres(_some(examples, seed), seed, points)
    centres, share = _centres(shown, seed, points)
    return Background(
        np.concatenate([candidates, centres]),
        np.concatenate([candidates_share * _OF_CANDIDATES, share * (1 - _OF_CANDIDATES)]),
    )


def _centres(rows: Floats, seed: int, points: int) -> tuple[Floats, Floats]:
    """Centres of `rows` by k-means on standardised pair features, and the share of rows of each."""
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
    return centres.astype(np.float32), share / share.sum()


def _some(examples: RankingExamples, seed: int) -> Floats:
    """Candidates from all over, at most `_DRAWN` of them."""
    case, place = np.nonzero(examples.mask)
    if len(case) > _DRAWN:
        drawn = np.random.default_rng(seed).choice(len(case), _DRAWN, replace=False)
        case, place = case[drawn], place[drawn]
    found: Floats = examples.features[case, place].astype(np.float32)
    return found
