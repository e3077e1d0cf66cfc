"""Check the score of how much of a picture's structure another keeps."""

from __future__ import annotations

import numpy as np
import pytest

from depth2img import DepthMap
from depth2img.depth.scores import structure

# Sums of some hundred float64 products.
EXACT = 1e-9


def maps(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.normal(3, 2, (14, 22)).astype(np.float32) for _ in range(count)]


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(np.float64), other.ravel().astype(np.float64))[0, 1])


def test_it_is_the_correlation() -> None:
    one, other = maps(2)
    other = other + one
    assert structure(DepthMap(one), DepthMap(other)) == pytest.approx(pearson(one, other), abs=EXACT)
    assert structure(DepthMap(one), DepthMap(-2 * one + 7)) == pytest.approx(-1, abs=1e-6)
    faint = one / 4096  # powers of two, so that nothing is rounded
    assert structure(DepthMap(faint), DepthMap(faint)) == pytest.approx(1, abs=EXACT)


def test_what_pictures_share_does_not_count() -> None:
    one, other, mean = maps(3)
    mean = 5 * mean
    one, other = one + mean, other + mean
    wanted = pearson(one.astype(np.float64) - mean, other.astype(np.float64) - mean)
    assert structure(DepthMap(one), DepthMap(other), DepthMap(mean)) == pytest.approx(wanted, abs=EXACT)
    assert structure(DepthMap(one), DepthMap(other)) > 0.9 > 0.2 > abs(wanted)


def test_other_and_mean_are_brought_to_the_firsts_size() -> None:
    one, other, mean = maps(3)
    other, mean = other[:7, :9], mean[:5, :21]
    resized = [DepthMap(values).resized(22, 14).values.astype(np.float64) for values in (other, mean)]
    wanted = pearson(one - resized[1], resized[0] - resized[1])
    assert structure(DepthMap(one), DepthMap(other), DepthMap(mean)) == pytest.approx(wanted, abs=EXACT)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_flat_map_scores_zero(swapped: bool) -> None:
    pair = [DepthMap(maps(1)[0]), DepthMap(np.full((14, 22), 2.0, np.float32))]
    assert structure(*(reversed(pair) if swapped else pair)) == 0.0
