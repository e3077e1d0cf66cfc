"""A depth map of the user's own in a job: what it holds, and what is said about it under the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.webui_fake.standin import Host, depth_of, ramp

CASES = Path(__file__).parents[1] / "library" / "cases"
TRUTH = np.load(CASES / "hw.npy")


def run(host: Host, name: str, **options: Any) -> tuple[np.ndarray, list[str]]:
    """Return what the sampler gets of one of the cases, and the comments under the result."""
    picture = ramp().resize((128, 128))
    p = host.img2img(picture, args=({"depth_map": CASES / name, **options},), width=128, height=128)
    host.run(p)
    return host.seen[-1][0, 0].numpy(), list(p.comments)


def agreement(conditioning: np.ndarray) -> float:
    rows, columns = conditioning.shape
    small = TRUTH.reshape(rows, 128 // rows, columns, 128 // columns).mean((1, 3))
    return float(np.corrcoef(conditioning.ravel(), small.ravel())[0, 1])


@pytest.mark.parametrize(
    ("name", "least"),
    [("zinv.npy", 0.99), ("bl_Z.exr", 0.99), ("rgbaz.exr", 0.99), ("mm_sky65535.png", 0.99), ("rs_mm.png", 0.97)],
)
def test_distances_in_a_job(host: Host, name: str, least: float) -> None:
    seen, _ = run(host, name, holds="distance")
    # Bicubic resizing to a latent of 16 x 16 rounds the scene's edges off.
    assert agreement(seen) >= least - 0.02


def test_nothing_is_said_about_a_good_map(host: Host) -> None:
    assert run(host, "hw.npy")[1] == run(host, "zinv.npy", holds="distance")[1] == []


def test_what_is_noteworthy_is_said_once_under_the_result(host: Host) -> None:
    _, comments = run(host, "rs_mm.png", holds="distance")
    assert len(comments) == 1 and "12.9 % (2,118 values)" in comments[0]
    _, comments = run(host, "zinv.npy")
    assert len(comments) == 1 and comments[0].startswith("Black seems to be near")
    _, comments = run(host, "rgbaz.exr")
    assert len(comments) == 2 and comments[0].startswith("The depth map seems to hold distances")
    assert "lies within" in comments[1]


def test_the_infotext_says_what_the_map_holds(host: Host) -> None:
    p = host.img2img(ramp(), args=({"depth_map": 1 / (1 + depth_of(ramp())), "holds": "distance"},))
    host.run(p)
    assert p.extra_generation_params["Depth map holds"] == "distance"
    q = host.img2img(ramp(), args=({"depth_map": CASES / "bl_Z.exr", "map_channel": "z", "range": "percentile"},))
    host.run(q)
    assert q.extra_generation_params["Depth map channel"] == "z"
    assert q.extra_generation_params["Depth range"] == "percentile"
