"""Jobs that go through the networks together: each result is its own, to the bit, whatever goes along."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from depth2img import DepthMap, DepthOptions
from depth2img.diffusion import Engine, Job, Settings
from depth2img.diffusion.networks import build
from tests.engine import small

ROWS = 4


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32))


@pytest.fixture(scope="module")
def midas() -> Engine:
    return Engine(build(small.model(midas=True), device=torch.device("cpu"), dtype=torch.float32))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def picture(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def job(seed: int, **changes: object) -> Job:
    settings = Settings(prompt=f"a box {seed}", seed=seed, steps=2, width=96, height=64, sampler="euler a")
    return dataclasses.replace(Job(picture(seed), settings), **changes)


def mask() -> np.ndarray:
    values = np.zeros((64, 96), np.uint8)
    values[16:48, 20:70] = 255
    return values


def depth(seed: int) -> DepthMap:
    return DepthMap(values=np.random.default_rng(seed).random((12, 18), np.float32))


KINDS = {
    "estimated": lambda seed: job(seed),
    "own map": lambda seed: job(seed, options=DepthOptions(source="map", depth_map=depth(seed), gamma=1.0 + seed / 8)),
    "masked": lambda seed: job(seed, mask=mask()),
    "region": lambda seed: job(seed, options=DepthOptions(region=mask(), neutral=0.5)),
    "off": lambda seed: job(seed, options=DepthOptions(enabled=False)),
}


def bits(engine: Engine, jobs: Sequence[Job], **how: object) -> list[bytes]:
    engine._cache.clear()
    return [one.picture.tobytes() for one in engine.run(jobs, **how)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_the_same_to_the_bit_whatever_goes_along(engine: Engine, kind: str) -> None:
    same_to_the_bit(engine, [KINDS[kind](seed) for seed in range(6)])


def test_the_same_with_midas(midas: Engine) -> None:
    same_to_the_bit(midas, [job(seed) for seed in range(6)])


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_the_same_with_two_threads(engine: Engine) -> None:
    same_to_the_bit(engine, [job(seed) for seed in range(6)])


def same_to_the_bit(engine: Engine, jobs: list[Job]) -> None:
    """All together, some alone, and all in another order."""
    whole = bits(engine, jobs, rows=ROWS)
    assert len(set(whole)) == len(whole)
    alone = [bits(engine, [one], rows=ROWS)[0] for one in jobs[1:6:4]]
    assert alone == whole[1:6:4]
    backwards = bits(engine, jobs[::-1], rows=ROWS)[::-1]
    assert backwards == whole


def test_every_mixture_of_kinds(engine: Engine) -> None:
    """Two of each kind in one call and in another order; every result is that of the job alone."""
    jobs = [KINDS[kind](seed) for seed, kind in enumerate([*KINDS, *KINDS])]
    wanted = [bits(engine, [one], rows=2)[0] for one in jobs]
    turned = [3, 8, 0, 6, 9, 1, 7, 5, 2, 4]
    found = dict(zip(turned, bits(engine, [jobs[index] for index in turned], rows=2), strict=True))
    assert [found[index] for index in range(len(jobs))] == wanted


def test_one_row_is_what_generate_gives(engine: Engine) -> None:
    jobs = [job(3), job(4)]
    rows = bits(engine, jobs, rows=1)
    for one, found in zip(jobs, rows, strict=True):
        engine._cache.clear()
        [alone] = engine.generate([one.picture], one.settings)
        assert alone.picture.tobytes() == found


def test_jobs_keep_their_order_and_their_own_settings(engine: Engine) -> None:
    sizes = [(64, 96), (96, 64), (64, 96)]
    jobs = []
    for seed, (height, width) in enumerate(sizes):
        settings = Settings(prompt="a box", seed=seed, steps=2, width=width, height=height)
        jobs.append(Job(picture(seed, height, width), settings))
    found = engine.run(jobs, rows=2)
    assert [one.picture.shape[:2] for one in found] == sizes
    assert [one.seed for one in found] == [0, 1, 2]


def test_estimates_of_several_sizes_together(midas: Engine) -> None:
    pictures = [picture(1), picture(2, 80, 64), picture(3), picture(4, 80, 64), picture(1)]
    alone = []
    for one in pictures:
        midas._cache.clear()
        alone.append(midas.estimate_all([one], ROWS)[0].values)
    midas._cache.clear()
    together = midas.estimate_all(pictures, ROWS)
    assert all(np.array_equal(one, other.values) for one, other in zip(alone, together, strict=True))
    assert together[0] is together[4], "one content is estimated once"
    single = midas.networks.estimator.estimate(pictures[0] / np.float32(255))
    # Another number of rows is another order of sums, no more: fp32 of a dozen layers.
    assert np.allclose(single.values, together[0].values, rtol=1e-4, atol=1e-4 * np.abs(single.values).max())


def test_a_given_range_is_shared(engine: Engine) -> None:
    jobs = [job(seed, options=DepthOptions(range="shared")) for seed in (1, 2)]
    span = engine.span_of(jobs[0])
    assert span is not None
    together = engine.run(jobs, rows=2, span=span)
    [alone] = engine.run(jobs[1:], rows=2, span=span)
    assert torch.equal(alone.conditioning, together[1].conditioning)
    own = engine.run([job(2)], rows=2)[0]
    assert not torch.equal(own.conditioning, alone.conditioning)
    assert engine.span_of(job(1, options=DepthOptions(enabled=False))) is None


def test_kinds_tell_apart_what_the_sampler_reads() -> None:
    kinds = [
        job(1).kind,
        job(1, options=DepthOptions(strength=0.5)).kind,
        job(1, options=DepthOptions(enabled=False)).kind,
        job(1, mask=mask()).kind,
        job(1, options=DepthOptions(region=mask())).kind,
        job(1, settings=Settings(steps=3)).kind,
    ]
    assert all(one != other for one, other in itertools.combinations(kinds, 2))
    other = job(2, options=DepthOptions())
    assert other.kind == kinds[0], "picture, prompt and seed may differ"
