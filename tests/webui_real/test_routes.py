"""REST routes, X/Y/Z axes and settings on the real WebUI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import requests
from conftest import grid_args
from host import Host, Refused, running, to_base64
from PIL import Image


def conditionings(host: Host) -> list[np.ndarray]:
    """Conditioning of each step, all rows: (rows, 1, h, w)."""
    return [np.array(values, np.float32).reshape(shape) for shape, values, _ in host.conditionings()]


def test_routes(depth_host: Host, astronaut: Image.Image) -> None:
    assert depth_host.get("/depth2img/v1/status")["state"] == "ready"
    options = depth_host.get("/depth2img/v1/options")
    assert {"enabled", "strength", "region"} <= {option["name"] for option in options}
    estimated = depth_host.post("/depth2img/v1/estimate", image=to_base64(astronaut))
    adjusted = depth_host.post("/depth2img/v1/adjust", depth_map=estimated["depth_map"], options={"invert": True})
    assert (adjusted["width"], adjusted["height"]) == (estimated["width"], estimated["height"])
    assert depth_host.run("result = probe.calls['depth']") == 1
    assert "/depth2img/v1/estimate" in depth_host.get("/openapi.json")["paths"]


def test_an_estimated_map_conditions_like_the_picture(depth_host: Host, astronaut: Image.Image) -> None:
    estimated = depth_host.post("/depth2img/v1/estimate", image=to_base64(astronaut))
    depth_host.img2img(astronaut)
    expected = conditionings(depth_host)[0]
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, depth={"depth_map": estimated["depth_map"]})
    assert np.abs(conditionings(depth_host)[0] - expected).max() < 1e-3


def test_route_errors(depth_host: Host) -> None:
    with pytest.raises(Refused, match="base64") as refused:
        depth_host.post("/depth2img/v1/estimate", image="no base64 at all!")
    assert refused.value.status == 422


def test_password(models: Any, tmp_path: Any) -> None:
    flags = ("--api-auth", "ann:secret")
    with running(tmp_path / "data", checkpoints=models, checkpoint="small-depth.safetensors", flags=flags) as host:
        url = host.url + "/depth2img/v1/status"
        assert requests.get(url, timeout=60).status_code == 401
        assert requests.get(url, auth=("ann", "secret"), timeout=60).json()["state"] == "ready"
        assert requests.post(host.url + "/depth2img/v1/adjust", json={"depth_map": ""}, timeout=60).status_code == 401


def test_off_and_on_against_denoising_strength(depth_host: Host, astronaut: Image.Image) -> None:
    args = grid_args(depth_host, "Depth to image", "off,on", "Denoising", "0.5,1.0")
    result = depth_host.img2img(astronaut, script_name="x/y/z plot", script_args=args, steps=2)
    neutral = [bool((step == 0).all()) for step in conditionings(depth_host)]
    assert sorted(neutral) == [False] * (len(neutral) // 2) + [True] * (len(neutral) // 2)
    assert len(result.images) == 5
    assert ["Depth to image: False" in text for text in result.infotexts[1:]] == [True, False, True, False]


@pytest.mark.parametrize(
    ("axis", "values", "depth"),
    [("Depth strength", "0,0.5,1", {}), ("Depth end", "0,0.5,1", {}), ("Depth estimate on", "original,entering", {})],
)
def test_cells_are_like_single_jobs(
    depth_host: Host, astronaut: Image.Image, axis: str, values: str, depth: dict[str, Any]
) -> None:
    name = {"Depth strength": "strength", "Depth end": "end", "Depth estimate on": "estimate_on"}[axis]
    args = grid_args(depth_host, axis, values)
    depth_host.img2img(astronaut, script_name="x/y/z plot", script_args=args, depth=depth)
    cells = conditionings(depth_host)
    depth_host.run("probe.clear()")
    for value in values.split(","):
        depth_host.img2img(astronaut, depth={**depth, name: value if name == "estimate_on" else float(value)})
    for cell, single in zip(cells, conditionings(depth_host), strict=True):
        assert np.array_equal(cell, single)


def test_settings_hold_without_a_page(depth_host: Host) -> None:
    depth_host.post("/sdapi/v1/options", depth2img_cache_mb=0)
    try:
        assert depth_host.run("result = sys.modules['depth2img_webui.settings'].cache_bytes()") == 0
    finally:
        depth_host.post("/sdapi/v1/options", depth2img_cache_mb=256)
