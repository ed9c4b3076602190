"""Figures against worked examples, and against what they are known to be at their ends."""

import numpy as np
import pytest

from training.segments.clustering import k_means, nearest
from training.segments.validity import adjusted_rand, silhouette, stability

RNG = np.random.default_rng(0)


def labels(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def test_silhouette_by_hand() -> None:
    # On a line: 0 and 1 together, 5 alone, 8 and 9 together.
    points = np.array([[0.0], [1.0], [5.0], [8.0], [9.0]])
    found = silhouette(points, labels(0, 0, 1, 2, 2), RNG)
    expected = (
        (5 - 1) / 5  # of 0: a = 1 to its own, b = 5 to the nearest other
        + (4 - 1) / 4
        + 0  # alone
        + (3 - 1) / 3
        + (4 - 1) / 4
    ) / 5
    assert found == pytest.approx(expected)


def test_silhouette_of_one_cluster_and_of_equal_points() -> None:
    assert silhouette(np.zeros((4, 2)), labels(0, 0, 0, 0), RNG) == 0
    assert silhouette(np.zeros((4, 2)), labels(0, 0, 1, 1), RNG) == 0


def test_adjusted_rand_by_hand() -> None:
    # Pairs together: in both 1, in one 2, in the other 3; 6 pairs in all.
    # (1 - 2 * 3 / 6) / ((2 + 3) / 2 - 2 * 3 / 6) = 0
    assert adjusted_rand(labels(0, 0, 1, 1), labels(0, 0, 0, 1)) == pytest.approx(0)
    # In both 2 + 1, in one 2 * 3, in the other 3 + 3 ... of {0,0,0,1,1,1} and {0,0,1,1,2,2}:
    # both = 1 + 1, one = 3 + 3, other = 1 + 1 + 1, every = 15; (2 - 18/15) / (4.5 - 18/15)
    found = adjusted_rand(labels(0, 0, 0, 1, 1, 1), labels(0, 0, 1, 1, 2, 2))
    assert found == pytest.approx((2 - 1.2) / (4.5 - 1.2))


def test_adjusted_rand_at_its_ends() -> None:
    assert adjusted_rand(labels(0, 0, 1, 2), labels(2, 2, 0, 1)) == 1  # other numbers, same parts
    assert adjusted_rand(labels(0, 0, 0, 0), labels(1, 1, 1, 1)) == 1
    assert adjusted_rand(labels(0, 1, 0, 1), labels(0, 0, 1, 1)) == pytest.approx(-0.5)
    one, other = np.random.default_rng(1).integers(0, 4, (2, 5_000))
    assert abs(adjusted_rand(one, other)) < 0.01  # by chance


def test_stability_of_heaps_and_of_a_cloud() -> None:
    rng = np.random.default_rng(2)
    heaps = np.concatenate([rng.normal(size=(80, 3)) + centre for centre in (0, 9, 18)])
    found = nearest(heaps, k_means(heaps, 3, 0))
    assert np.mean(stability(heaps, found, 3, 0)) > 0.99
    cloud = rng.normal(size=(240, 3))
    found = nearest(cloud, k_means(cloud, 5, 0))
    assert np.mean(stability(cloud, found, 5, 0)) < 0.8
