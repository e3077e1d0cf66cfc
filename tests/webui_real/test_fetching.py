"""From a WebUI without a depth checkpoint to one that is selected and used, with one click, on a mirror of our own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import Host, running
from page import CHROMIUM, DepthPanel, opened
from PIL import Image
from playwright.sync_api import Page

from tests.library import mirror

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")

SHOTS = os.environ.get("DEPTH2IMG_SHOTS")
NAME = "small-depth.safetensors"


@pytest.fixture(scope="module")
def source(models: Path) -> Iterator[mirror.Mirror]:
    with mirror.running((models / NAME).read_bytes()) as running:
        yield running


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints with a plain one alone."""
    folder = tmp_path_factory.mktemp("plain") / "ckpt"
    folder.mkdir()
    for name in ("small-plain.safetensors", "small-plain.yaml"):
        (folder / name).symlink_to(models / name)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path, source: mirror.Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    data = tmp_path_factory.mktemp("served") / "data"
    own = data.parent / "own.yaml"
    digest = hashlib.sha256(source.data).hexdigest()
    entry = {"size": len(source.data), "sha256": digest, "about": "A small one of random weights", "urls": [source.url]}
    own.write_text(json.dumps({NAME: entry}), encoding="utf-8")
    with running(
        data,
        checkpoints=folder,
        checkpoint="small-plain.safetensors",
        interface=True,
        environment={"DEPTH2IMG_MIRRORS": str(own)},
    ) as started:
        yield started


def shot(page: Page, name: str) -> None:
    if SHOTS:
        inside = page.locator("#script_img2img_depth_to_image_checkpoint").first
        inside.scroll_into_view_if_needed()
        inside.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def test_from_no_depth_checkpoint_to_a_picture(
    served: Host, folder: Path, source: mirror.Mirror, astronaut: Image.Image
) -> None:
    source.block = len(source.data) // 100
    with opened(served.url) as page:
        panel = DepthPanel(page, "img2img")
        panel.show_tab()
        panel.part("status").locator("[data-state=missing]").first.wait_for(state="attached")
        panel.open()
        panel.part("checkpoint").locator(".label-wrap").click()
        offer = panel.part("offer")
        offer.get_by_text("2.85 GB").wait_for()  # the recommended one, before anything is asked for
        assert "huggingface.co" in offer.inner_text() and "CreativeML" in offer.inner_text()
        shot(page, "fetch-offer")
        panel.part("published").locator("input").click()
        panel.part("published").locator("li", has_text=NAME).click()
        offer.get_by_text(f"{len(source.data):,} bytes").wait_for()
        assert source.requests == []

        source.delay = 0.2
        panel.part("fetch").click()
        running = panel.part("fetching")
        running.get_by_text(" MB").wait_for()
        page.wait_for_function("() => document.querySelector('.depth2img-progress')?.value > 0")
        shot(page, "fetch-running")
        panel.part("stop").click()
        running.get_by_text("Stopped.").wait_for()
        assert f"{NAME}.part" in {path.name for path in folder.iterdir()}
        shot(page, "fetch-stopped")

        source.delay = 0
        panel.part("fetch").click()
        running.get_by_text("is here, checked and set up").wait_for()
        shot(page, "fetch-done")
        chosen = "() => document.querySelector('#setting_sd_model_checkpoint input')?.value.startsWith('small-depth')"
        page.wait_for_function(chosen)
        page.locator("#script_img2img_depth_to_image_status [data-state=ready]").first.wait_for(state="attached")
        shot(page, "fetch-selected")
    assert {path.name for path in folder.iterdir()} == {
        *(f"small-{kind}.{suffix}" for kind in ("plain", "depth") for suffix in ("safetensors", "yaml"))
    }
    assert len(source.requests) == 2 and "range" in source.requests[1]
    served.run("probe.clear()")
    result = served.img2img(astronaut)
    shape, values, _ = served.conditionings()[-1]
    assert result.info["sd_model_name"] == "small-depth" and shape[1] == 1 and min(values) == -1 and max(values) == 1
