"""The region: painted over the picture in the panel, or uploaded; what the preview shows and what a job obeys."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stage import Panel


@pytest.fixture
def painting(panel: Panel) -> Iterator[Panel]:
    panel.mode("Region")
    yield panel
    panel.mode("Region")
    panel.stage.get_by_role("button", name="Clear").click()
    panel.part("region").locator("input[type=file]").wait_for(state="attached")


def stroke(panel: Panel, *places: tuple[float, float]) -> None:
    """From place to place, in parts of the shown picture."""
    canvas = panel.stage.locator("canvas.depth2img-paint")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for index, (x, y) in enumerate(places):
        panel.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 if index == 0 else 5)
        if index == 0:
            panel.page.mouse.down()
    panel.page.mouse.up()


def sent(panel: Panel, before: str | None = None) -> tuple[np.ndarray, str]:
    """The region that the next job gets, 0..255, and its address; waits until it is another than `before`."""
    panel.page.wait_for_function(
        """before => {
            const link = document.querySelector('#app-depth-region a[href]');
            return link && link.href !== before;
        }""",
        arg=before,
    )
    url = panel.part("region").locator("a[href]").first.evaluate("link => link.href")
    return np.asarray(Image.open(io.BytesIO(panel.page.request.get(url).body())).convert("L")).astype(int), url


def test_painting_says_where_depth_counts(painting: Panel) -> None:
    before = painting.pixels()
    stroke(painting, (0.2, 0.5), (0.8, 0.5))
    mask, first = sent(painting)
    assert mask.shape == (512, 512) and np.isin(mask, (0, 255)).mean() > 0.98
    assert mask[256, 256] == 255 and mask[256, 130] == 255 and mask[40, 256] == 0 and mask[256, 20] == 0
    painting.mode("Depth")
    shown = painting.pixels()
    inside = mask == 255
    assert np.abs(shown[inside] - before[inside]).max() <= 1
    assert np.abs(shown[mask == 0] - 127.5).max() <= 1  # the neutral depth
    painting.mode("Region")
    painting.stage.get_by_label("Erase").check()
    stroke(painting, (0.5, 0.3), (0.5, 0.7))
    erased, second = sent(painting, first)
    assert erased[256, 256] == 0 and erased[256, 130] == 255
    painting.stage.get_by_label("Erase").uncheck()
    painting.stage.get_by_role("button", name="Undo").click()
    undone, _ = sent(painting, second)
    assert (np.abs(undone - mask) > 64).mean() < 0.002  # edges are softened again


def test_erasing_first_begins_with_all_of_the_picture(painting: Panel) -> None:
    painting.stage.get_by_label("Erase").check()
    stroke(painting, (0.5, 0.5), (0.6, 0.5))
    mask, _ = sent(painting)
    painting.stage.get_by_label("Erase").uncheck()
    assert mask[256, 270] == 0 and mask[10, 10] == 255 and mask.mean() > 200


def test_a_painted_region_stays_where_it_is_in_the_picture(painting: Panel) -> None:
    """Painted in a frame that is cut from the picture; the mask is the whole picture's."""
    painting.choose("resize_mode", "crop and resize")
    painting.size(512, 256)
    painting.mode("Depth")
    painting.estimate()
    painting.mode("Region")
    stroke(painting, (0.02, 0.04), (0.98, 0.04))  # along the frame's upper edge: a quarter down the picture
    mask, _ = sent(painting)
    assert mask.shape == (512, 512)
    rows = np.flatnonzero(mask[:, 256])
    assert rows[0] >= 110 and rows[0] < 138 < rows[-1] <= 170
    painting.choose("resize_mode", "just resize")


def test_an_uploaded_region_is_shown_and_can_be_painted_over(painting: Panel, tmp_path: Path) -> None:
    half = Image.new("L", (256, 256))
    half.paste(255, (0, 0, 128, 256))
    half.save(tmp_path / "half.png")
    painting.part("region").locator("input[type=file]").set_input_files(str(tmp_path / "half.png"))
    _, uploaded = sent(painting)
    painting.page.wait_for_timeout(1000)
    painting.mode("Depth")
    shown = painting.pixels()
    assert np.abs(shown[:, 300:] - 127.5).max() <= 1 and shown[10, 10].max() < 20
    painting.mode("Region")
    stroke(painting, (0.9, 0.5), (0.95, 0.5))
    mask, _ = sent(painting, uploaded)
    assert mask[256, 100] == 255 and mask[256, 470] == 255 and mask[40, 470] == 0


def test_a_job_obeys_a_painted_region(painting: Panel) -> None:
    """With no depth outside of it, a job that sees a region of nothing equals one at strength 0."""
    from test_panel import results

    painting.size(128, 128)
    painting.mode("Depth")
    painting.number("strength", 0)
    [without] = results(painting)
    painting.number("strength", 1)
    [everywhere] = results(painting)
    painting.mode("Region")
    painting.stage.get_by_label("Brush").fill("0.02")
    stroke(painting, (0.99, 0.99), (0.995, 0.99))  # a dot in the corner
    sent(painting)
    [dot] = results(painting)
    painting.stage.get_by_label("Brush").fill("0.15")
    a, b, c = (np.asarray(one).astype(int) for one in (without, everywhere, dot))
    assert np.abs(a - b).mean() > 4 * np.abs(a - c).mean()
