"""Pictures of the bundled model in the real WebUI: structure kept where depth says so, colours from the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import grid_args
from host import Host, to_base64
from judge import FIELDS, SIDE, changed, depth_of, kept, mirrored, sample, scene
from page import CHROMIUM, DepthPanel, opened, shot
from PIL import Image

from depth2img import DepthMap

OTHER = sample().prompts["other"]
REPAINTED = sample().prompts["repainted"]

KEPT = 0.6
"""Structure above this is kept: what the model keeps at denoising strength 1 lies well above it ..."""

ADDED = 0.2
"""Without depth there is at least this less: prompt and kind of scene alone give some, up to 0.6 with single seeds."""


def mask() -> Image.Image:
    return Image.fromarray(sample().mask)


def map_of(depth: DepthMap) -> str:
    return to_base64(Image.fromarray(np.round(depth.normalised() * 65535).astype(np.uint16)))


def test_img2img(bundled: Host) -> None:
    jobs = ({}, {"enabled": False})
    on, off = (
        bundled.img2img(scene(), prompt=OTHER, depth=depth, batch_size=3, **FIELDS).images[-3:] for depth in jobs
    )
    scores = [float(np.mean([kept(picture) for picture in made])) for made in (on, off)]
    assert scores[0] > KEPT and scores[0] - scores[1] > ADDED
    assert changed(on[0], scene()) > 25


@pytest.mark.parametrize("only_masked", [False, True])
def test_inpaint(bundled: Host, only_masked: bool) -> None:
    """The masked part is repainted in the same shape; the rest stays, but for rounding."""
    fields: dict[str, Any] = {"mask": mask(), "inpainting_fill": 1, "mask_blur": 2, "inpaint_full_res": only_masked}
    result = bundled.img2img(scene(), prompt=REPAINTED, inpaint_full_res_padding=16, **{**FIELDS, **fields}).images[0]
    inside, far = sample().mask > 0, np.asarray(mask().resize((16, 16), Image.BOX).resize((SIDE, SIDE))) == 0
    assert kept(result) > KEPT
    assert changed(result, scene(), inside) > 20
    assert changed(result, scene(), far) < (1 if only_masked else 8)


def test_hires(bundled: Host) -> None:
    fields = {**FIELDS, "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6}
    result = bundled.txt2img(prompt=OTHER, depth={"depth_map": map_of(sample().depth)}, **fields).images[0]
    plain = bundled.txt2img(prompt=OTHER, depth={"enabled": False}, **fields).images[0]
    assert result.size == (192, 192)
    assert kept(result) > KEPT and kept(result) - kept(plain) > ADDED


def test_two_pictures_of_a_batch(bundled: Host) -> None:
    """Each keeps its own structure, and not the other's."""
    other = depth_of(mirrored())
    result = bundled.img2img(scene(), mirrored(), prompt=OTHER, batch_size=2, **FIELDS)
    first, second = result.images[-2:]
    assert kept(first) > KEPT and kept(second, other) > KEPT
    assert kept(first) - kept(first, other) > 0.25 and kept(second, other) - kept(second) > 0.25


def test_off_and_on_against_denoising_strength(bundled: Host) -> None:
    """The article's figure as one X/Y/Z grid: with depth on, structure stays at every strength; off, it goes."""
    strengths = [0.4, 0.7, 1.0]
    args = grid_args(bundled, "Depth to image", "off,on", "Denoising", ",".join(map(str, strengths)))
    result = bundled.img2img(scene(), prompt=OTHER, script_name="x/y/z plot", script_args=args, **FIELDS)
    cells = result.images[1:7]
    assert result.images[0].size[0] > 2 * SIDE and len(cells) == 6
    off, on = ([kept(cell) for cell in cells[first::2]] for first in (0, 1))
    assert ["Depth to image: False" in text for text in result.infotexts[1:7]] == [True, False] * 3
    assert min(on) > KEPT
    assert off[0] > KEPT and off[0] > off[2] and on[2] - off[2] > ADDED


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures, and a map for each that is the other's."""
    pictures, maps = tmp_path / "pictures", tmp_path / "maps"
    pictures.mkdir()
    maps.mkdir()
    scene().save(pictures / "a.png")
    mirrored().save(pictures / "b.jpg")
    depth_of(mirrored()).save(maps / "a.png")
    sample().depth.save(maps / "b-depth.png")
    return pictures, maps


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")
def test_batch_tab_with_a_folder_of_maps(bundled: Host, folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Each result has the structure of the map of its name; a map that is missing is named and nothing runs."""
    pictures, maps = folders
    output = tmp_path / "results"
    with opened(bundled.url) as page:
        panel = DepthPanel(page, "img2img")
        panel.show_tab()
        for name, value in (("width", SIDE), ("height", SIDE), ("steps", 12), ("cfg_scale", 4), ("seed", 3)):
            panel.number(f"img2img_{name}", value)
        panel.number("img2img_denoising_strength", 1)
        page.locator("#img2img_prompt textarea").fill(OTHER)
        page.locator("#mode_img2img > .tab-nav button", has_text="Batch").click()
        from_directory = page.locator("#img2img_batch_source > .tab-nav button", has_text="From directory")
        if from_directory.count():  # before 1.10.0 there is nothing else
            from_directory.click()
        page.locator("#img2img_batch_input_dir textarea").fill(str(pictures))
        page.locator("#img2img_batch_output_dir textarea").fill(str(output))
        panel.open()
        assert not panel.part("map_directory").is_visible()
        panel.part("source").get_by_text("My own depth map", exact=True).click()
        folder = panel.part("map_directory").locator("textarea, input").first
        folder.fill(str(maps))
        (maps / "b-depth.png").rename(maps / "c.png")
        page.locator("#img2img_generate").click()
        page.locator("#html_log_img2img .error").get_by_text(
            "1 of 2 pictures have no depth map in the folder: b"
        ).wait_for()
        shot(page, "batch-tab")
        assert bundled.conditionings() == [] and not output.exists()
        (maps / "c.png").rename(maps / "b-depth.png")
        panel.generate()
    first, second = (Image.open(next(output.glob(f"*-{name}.png"))) for name in "ab")
    other = depth_of(mirrored())
    assert kept(first, other) > KEPT and kept(second) > KEPT
    assert kept(first, other) - kept(first) > 0.25
