"""Seeded, non-square, non-zero inputs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

HEIGHT, WIDTH = 23, 37
"""Two primes: nothing that swaps sides or assumes a multiple passes by accident."""


@pytest.fixture
def cases() -> Path:
    """Files as people bring them, of one scene of 128 x 128 that lies 2 to 9.9 m away; see cases/README.md."""
    return Path(__file__).parent / "cases"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def colours(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """uint8 (23, 37, 3), all different values, no symmetry."""
    return rng.integers(1, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def smooth(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """float32 (23, 37): a soft scene, values about 3 to 20 as MiDaS gives them."""
    noise = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), 3)
    ramp = np.linspace(0, 1, HEIGHT)[:, None] + 0.2 * np.linspace(0, 1, WIDTH)[None, :]
    return (3 + 10 * ramp + 8 * noise).astype(np.float32)


@pytest.fixture
def photo(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """float32 (96, 160, 3), 0..1: large coloured blobs, so that resizing has something to interpolate."""
    blobs = cv2.resize(rng.random((6, 10, 3)), (160, 96), interpolation=cv2.INTER_CUBIC)
    return np.clip(blobs, 0, 1).astype(np.float32)
