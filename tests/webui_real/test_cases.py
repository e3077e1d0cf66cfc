"""Depth maps as people bring them, in the real WebUI: over its API, and uploaded on its page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host import Host, Refused
from page import CHROMIUM, DepthPanel, opened, shot
from PIL import Image
from playwright.sync_api import Page

CASES = Path(__file__).parents[1] / "library" / "cases"
TRUTH = np.load(CASES / "hw.npy")
DISTANCE = {"holds": "distance"}
MAPS: dict[str, tuple[dict[str, Any], float]] = {
    "rs_mm.png": (DISTANCE, 0.97),
    "kitti.png": (DISTANCE, 0.9),
    "zinv.npy": (DISTANCE, 0.99),
    "zneg.tif": (DISTANCE, 0.99),
    "half65504.exr": (DISTANCE, 0.99),
    "mm_sky65535.png": (DISTANCE, 0.99),
    "bl_Z.exr": (DISTANCE, 0.99),
    "bl_V.exr": (DISTANCE, 0.99),
    "rgbaz.exr": (DISTANCE, 0.99),
    "carla.png": ({**DISTANCE, "map_channel": "R+256G+65536B"}, 0.99),
    **{name: ({}, 0.99) for name in ("f64.tif", "f16.tif", "midas.pfm", "x.npz", "da_1hw.npy", "inferno.png")},
}
"""File -> options, and the least correlation with the true inverse depth."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The cases, and a map of a LiDAR: millimetres, 90 % of it without a measurement."""
    sparse = np.round(np.load(CASES / "zinv.npy") * 1000).astype(np.uint16)
    sparse[np.random.default_rng(0).random(sparse.shape) < 0.9] = 0
    kitti = tmp_path_factory.mktemp("cases") / "kitti.png"
    Image.fromarray(sparse).save(kitti)
    return {name: kitti if name == "kitti.png" else CASES / name for name in MAPS}


@pytest.fixture
def page(bundled: Host) -> Iterator[Page]:
    with opened(bundled.url) as ready:
        yield ready


def agreement(values: np.ndarray) -> float:
    """Correlation with the true inverse depth, at the size of `values`."""
    rows, columns = values.shape
    truth = TRUTH.reshape(rows, 128 // rows, columns, 128 // columns).mean((1, 3))
    return float(np.corrcoef(values.ravel(), truth.ravel())[0, 1])


def conditioned(host: Host) -> np.ndarray:
    """Return the depth that the sampler got at the last step, (h, w)."""
    shape, values, _ = host.conditionings()[-1]
    return np.array(values, np.float32).reshape(shape)[0, 0]


@pytest.fixture
def readable(bundled: Host) -> list[str]:
    """The maps that the host's Python has the packages for; it is started without installing any."""
    has_exr = bundled.run("import importlib.util\nresult = importlib.util.find_spec('OpenEXR') is not None")
    return [name for name in MAPS if has_exr or not name.endswith(".exr")]


def payload(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_over_the_api(bundled: Host, files: dict[str, Path], readable: list[str]) -> None:
    """The 16-bit map that the route returns; a file without its package is refused with the remedy."""
    found = {}
    for name, (options, _) in MAPS.items():
        if name not in readable:
            with pytest.raises(Refused, match="pip install OpenEXR"):
                bundled.post("/depth2img/v1/adjust", depth_map=payload(files[name]), options=options)
            continue
        answer = bundled.post("/depth2img/v1/adjust", depth_map=payload(files[name]), options=options)
        picture = Image.open(io.BytesIO(base64.b64decode(answer["depth_map"].partition(",")[2] or answer["depth_map"])))
        found[name] = agreement(np.asarray(picture).astype(np.float64))
        assert any("held no measurement" in one for one in answer["notices"]) == (
            name in ("rs_mm.png", "kitti.png", "zneg.tif")
        )
    assert {name: value for name, value in found.items() if value < MAPS[name][1]} == {}, found


@pytest.mark.parametrize("name", ["rs_mm.png", "kitti.png", "mm_sky65535.png", "midas.pfm"])
def test_in_a_job_over_the_api(bundled: Host, files: dict[str, Path], name: str) -> None:
    options, least = MAPS[name]
    result = bundled.img2img(
        Image.open(CASES / "scene.png"),
        depth={"depth_map": payload(files[name]), **options},
        width=128,
        height=128,
        steps=1,
    )
    # Bicubic resizing to a latent of 16 x 16 rounds the scene's edges off.
    assert agreement(conditioned(bundled)) >= least - 0.02
    assert ("Depth map holds: distance" in result.infotexts[0]) == (options == DISTANCE)


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")
def test_uploaded_in_the_panel(page: Page, bundled: Host, files: dict[str, Path], readable: list[str]) -> None:
    """Compare what the stage shows of each file, and what the sampler gets of one with holes."""
    panel = DepthPanel(page, "img2img")
    panel.show_tab()
    for element, number in (("width", 128), ("height", 128), ("steps", 1)):
        panel.number(f"img2img_{element}", number)
    panel.upload("img2img_image", CASES / "scene.png")
    panel.open()
    panel.part("source").get_by_text("My own depth map", exact=True).click()
    found = {}
    for name, (options, _) in ((name, MAPS[name]) for name in readable):
        put(panel, files[name])
        panel.part("holds").get_by_text("Distance" if "holds" in options else "Nearness").first.click()
        box = panel.part("map_channel").locator("input, textarea").first
        box.fill(options.get("map_channel", ""))
        box.blur()
        panel.estimate()
        assert panel.part("message").locator(".depth2img-bad").count() == 0, panel.part("message").inner_text()
        shown = pixels(panel)
        rows, columns = (np.arange(128) * side // 128 for side in shown.shape)
        found[name] = agreement(shown[np.ix_(rows, columns)])
        if name == "rs_mm.png":
            assert "held no measurement" in panel.part("message").inner_text()
            shot(page, "own-map-holes")
            bundled.run("probe.clear()")
            panel.generate()
            assert agreement(conditioned(bundled)) >= MAPS[name][1] - 0.02
    # Grey levels of 8 bits, on a canvas that the browser has scaled.
    assert {name: value for name, value in found.items() if value < MAPS[name][1] - 0.01} == {}, found


def put(panel: DepthPanel, file: Path) -> None:
    """Put a file into the panel in the place of the one that is there."""
    component = panel.part("depth_map")
    if component.locator("input[type=file]").count() == 0:
        component.get_by_label("Clear").first.click()
    upload = component.locator("input[type=file]").first
    upload.wait_for(state="attached")
    upload.set_input_files(str(file))
    component.get_by_text(file.name).first.wait_for()


def pixels(panel: DepthPanel) -> np.ndarray:
    content = base64.b64decode(panel.pixels().partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(np.float64)
