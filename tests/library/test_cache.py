"""Estimated maps by content, bounded, from several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from depth2img import DepthCache, DepthMap, EstimatorError

SIDE = 16
WEIGHT = SIDE * SIDE * 4
"""Bytes of one map."""


class Counting:
    """Estimates the red channel, and counts."""

    def __init__(self, key: str = "a") -> None:
        self.key = key
        self.calls = 0
        self._lock = threading.Lock()

    def estimate(self, picture: np.ndarray) -> DepthMap:
        with self._lock:
            self.calls += 1
        return DepthMap(np.resize(picture[:, :, 0], (SIDE, SIDE)) + 1, origin=self.key)


@pytest.fixture
def pictures(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.random((9, 13, 3), dtype=np.float32) for _ in range(6)]


def test_estimates_once_per_distinct_picture(pictures):
    cache, estimator = DepthCache(), Counting()
    maps = [cache.get_or_estimate(picture, estimator) for picture in pictures]
    again = [cache.get_or_estimate(picture.copy(), estimator) for picture in pictures]
    assert estimator.calls == len(cache) == 6
    assert all(first is second for first, second in zip(maps, again, strict=True))
    assert not np.array_equal(maps[0].values, maps[1].values)


def test_content_decides_not_layout(pictures):
    cache, estimator = DepthCache(), Counting()
    cache.get_or_estimate(pictures[0], estimator)
    cache.get_or_estimate(np.asfortranarray(pictures[0]), estimator)
    cache.get_or_estimate(np.repeat(pictures[0], 2, axis=0)[::2], estimator)
    assert estimator.calls == 1


def test_one_changed_pixel_is_another_picture(pictures):
    cache, estimator = DepthCache(), Counting()
    cache.get_or_estimate(pictures[0], estimator)
    other = pictures[0].copy()
    other[8, 12, 2] = np.nextafter(other[8, 12, 2], np.float32(2))
    cache.get_or_estimate(other, estimator)
    assert estimator.calls == 2


def test_same_bytes_in_another_shape_are_another_picture(pictures):
    cache, estimator = DepthCache(), Counting()
    cache.get_or_estimate(pictures[0], estimator)
    cache.get_or_estimate(pictures[0].reshape(13, 9, 3), estimator)
    assert estimator.calls == 2


def test_estimators_are_kept_apart_by_their_key(pictures):
    cache, first, second, twin = DepthCache(), Counting("a"), Counting("b"), Counting("a")
    for estimator in (first, second, twin):
        cache.get_or_estimate(pictures[0], estimator)
    assert (first.calls, second.calls, twin.calls) == (1, 1, 0)


def test_the_least_recently_used_map_goes_first(pictures):
    cache, estimator = DepthCache(3 * WEIGHT), Counting()
    for picture in pictures[:3]:
        cache.get_or_estimate(picture, estimator)
    cache.get_or_estimate(pictures[0], estimator)  # 1 is now the oldest
    cache.get_or_estimate(pictures[3], estimator)
    assert (len(cache), estimator.calls) == (3, 4)
    for kept in (0, 2, 3):
        cache.get_or_estimate(pictures[kept], estimator)
    assert estimator.calls == 4
    cache.get_or_estimate(pictures[1], estimator)
    assert estimator.calls == 5


@pytest.mark.parametrize("max_bytes", [0, WEIGHT - 1])
def test_a_map_that_does_not_fit_is_not_kept(pictures, max_bytes):
    cache, estimator = DepthCache(max_bytes), Counting()
    for _ in range(2):
        cache.get_or_estimate(pictures[0], estimator)
    assert (len(cache), estimator.calls) == (0, 2)


def test_a_map_that_does_not_fit_drops_no_other(pictures):
    cache, estimator = DepthCache(2 * WEIGHT), Counting()
    cache.get_or_estimate(pictures[0], estimator)

    class Large(Counting):
        def estimate(self, picture: np.ndarray) -> DepthMap:
            return DepthMap(np.ones((64, 64), np.float32))

    cache.get_or_estimate(pictures[1], Large())
    cache.get_or_estimate(pictures[0], estimator)
    assert estimator.calls == 1


def test_resize_and_clear(pictures):
    cache, estimator = DepthCache(), Counting()
    for picture in pictures:
        cache.get_or_estimate(picture, estimator)
    cache.resize(2 * WEIGHT)
    assert len(cache) == 2
    cache.get_or_estimate(pictures[5], estimator)
    assert estimator.calls == 6, "the newest were kept"
    cache.clear()
    assert len(cache) == 0
    cache.get_or_estimate(pictures[5], estimator)
    cache.get_or_estimate(pictures[4], estimator)
    cache.get_or_estimate(pictures[3], estimator)
    assert len(cache) == 2, "the bound outlives clear"


def test_a_failure_is_not_kept(pictures):
    cache, estimator = DepthCache(), Counting()

    class Broken(Counting):
        def estimate(self, picture: np.ndarray) -> DepthMap:
            raise EstimatorError("No map.")

    with pytest.raises(EstimatorError):
        cache.get_or_estimate(pictures[0], Broken())
    cache.get_or_estimate(pictures[0], estimator)
    assert (estimator.calls, len(cache)) == (1, 1)


def test_two_that_estimate_the_same_picture_at_once_count_once(pictures):
    cache, plain = DepthCache(2 * WEIGHT), Counting()

    class Overtaken(Counting):
        def estimate(self, picture: np.ndarray) -> DepthMap:
            cache.get_or_estimate(picture, plain)  # another thread, ready first
            return super().estimate(picture)

    cache.get_or_estimate(pictures[0], Overtaken())
    cache.get_or_estimate(pictures[1], plain)
    assert len(cache) == 2
    cache.get_or_estimate(pictures[0], plain)
    assert plain.calls == 2


def test_threads(pictures):
    """Whatever the interleaving: right maps, the bound held, nothing counted twice."""
    cache = DepthCache(4 * WEIGHT)
    estimators = [Counting("a"), Counting("b")]
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        order = np.random.default_rng(seed)
        start.wait()
        for _ in range(300):
            picture = pictures[order.integers(len(pictures))]
            estimator = estimators[order.integers(2)]
            depth = cache.get_or_estimate(picture, estimator)
            assert depth.origin == estimator.key
            assert depth.values[0, 0] == picture[0, 0, 0] + np.float32(1)
            assert len(cache) <= 4
            if order.random() < 0.02:
                cache.clear()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, seed) for seed in range(8)]:
            done.result()
    cache.resize(0)
    assert len(cache) == 0
    cache.resize(4 * WEIGHT)
    for picture in pictures[:4]:
        cache.get_or_estimate(picture, estimators[0])
    assert len(cache) == 4, "the count of bytes came back to zero"
