"""The page that `depth2img view` writes, opened from a file as by a double click."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WAIT, planes_map, two_planes
from PIL import Image
from playwright.sync_api import Browser, Page
from stage import COUNT_DRAWS
from test_looks import AXE

from depth2img import DepthMap
from depth2img.sharing.page import page as page_of
from depth2img.sharing.relief import Relief

TITLE = 'Two planes <b>&"quoted"</b>'


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page of two planes; whatever it asks of a network, or complains of, is kept in `asked`."""
    file = tmp_path / "view.html"
    depth = DepthMap(planes_map().astype(np.float32))
    file.write_text(page_of(np.asarray(two_planes()), depth, title=TITLE), encoding="utf8")
    context: Any = browser.new_context(viewport={"width": 700, "height": 760}, reduced_motion="reduce")
    context.add_init_script(COUNT_DRAWS)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url[:60]))
    page.on("console", lambda said: page.asked.append(said.text))
    page.on("pageerror", lambda error: page.asked.append(str(error)))
    page.goto(file.as_uri())
    page.locator("canvas").wait_for()
    yield page
    context.close()


def seen(page: Page, x: float = 0.5, y: float = 0.5) -> np.ndarray[Any, Any]:
    """Read what the page shows with the pointer at a place, parts of the canvas."""
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.locator("canvas[data-still=yes]").wait_for()
    url = canvas.evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(int)


def test_it_moves_and_loads_nothing(opened: Page) -> None:
    middle = seen(opened)
    assert middle.shape == (512, 512, 3)
    right, left = seen(opened, 0.98), seen(opened, 0.02)
    assert np.abs(right - middle).mean() > 2 and np.abs(left - right).mean() > 2
    drawn = opened.evaluate("document.querySelector('canvas').depth2imgDraws")
    opened.wait_for_timeout(500)
    assert opened.evaluate("document.querySelector('canvas').depth2imgDraws") == drawn  # no frame while still
    outside = [url for url in opened.asked if not url.startswith(("file:", "data:image/"))]
    assert not outside and opened.evaluate("performance.getEntriesByType('resource').length") <= 2
    refused = opened.evaluate("fetch('https://example.org/').then(() => 'loaded', () => 'refused')")
    assert refused == "refused"
    assert opened.title() == TITLE and opened.locator("h1").inner_text() == TITLE


@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0.6, -0.4)])
def test_films_and_stereo_pairs_show_what_the_page_shows(opened: Page, direction: tuple[float, float]) -> None:
    """The relief without a browser is drawn like the shader's."""
    x, y = direction
    browsers = seen(opened, 0.5 + 0.45 * x, 0.5 + 0.45 * y)
    relief = Relief.of(np.asarray(two_planes()), DepthMap(planes_map().astype(np.float32)))
    apart = np.abs(relief.seen_from(x, y).astype(int) - browsers).max(axis=2)
    # Apart from edges, which lie within a pixel of each other, only the JPEG of the page differs.
    assert (apart > 24).mean() < 0.04 and np.median(apart) <= 3


def test_its_controls(opened: Page) -> None:
    opened.get_by_label("Picture to depth").fill("1")
    assert np.ptp(seen(opened), axis=2).max() <= 1  # grey
    opened.get_by_label("Picture to depth").fill("0")
    opened.get_by_label("Movement").fill("0")
    middle = seen(opened)
    assert np.array_equal(seen(opened, 0.98), middle)
    opened.locator("canvas").focus()
    opened.get_by_label("Movement").fill("2")
    opened.mouse.move(1, 1)
    opened.locator("canvas").press("ArrowRight")
    opened.locator("canvas[data-still=yes]").wait_for()
    assert opened.evaluate("document.activeElement.tagName") in ("CANVAS", "INPUT")


def test_a_click_sets_what_stays_still(opened: Page) -> None:
    def left_edge(picture: np.ndarray[Any, Any]) -> int:
        row = picture[256]
        return int(np.flatnonzero((row[:, 0] > 200) & (row[:, 2] < 80))[0])

    still = left_edge(seen(opened))
    assert abs(left_edge(seen(opened, 0.98)) - still) >= 4
    opened.locator("canvas").click()  # in the middle: on the square
    assert abs(left_edge(seen(opened, 0.98)) - still) <= 2


def test_without_webgl_the_picture_is_shown(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "view.html"
    file.write_text(page_of(np.asarray(two_planes(96, 64)), DepthMap(planes_map(96, 64).astype(np.float32))))
    context = browser.new_context()
    context.add_init_script(
        "HTMLCanvasElement.prototype.getContext = ((get) => function (kind, ...rest) {"
        " return kind === 'webgl' ? null : get.call(this, kind, ...rest); })"
        "(HTMLCanvasElement.prototype.getContext);"
    )
    page = context.new_page()
    page.goto(file.as_uri())
    page.get_by_text("no WebGL at the moment").wait_for()
    assert page.locator("#picture").is_visible() and not page.locator("#depth").is_visible()
    context.close()


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core (npm install)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(opened: Page, theme: Any) -> None:
    opened.emulate_media(color_scheme=theme)
    found = opened.evaluate(AXE.read_text(encoding="utf8") + "\n;axe.run({resultTypes: ['violations']})")
    assert not [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found["violations"]]


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (1440, 900)])
def test_it_fits_every_window(opened: Page, width: int, height: int) -> None:
    opened.set_viewport_size({"width": width, "height": height})
    opened.wait_for_timeout(200)
    assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    box = opened.locator("canvas").bounding_box()
    assert box is not None and box["y"] + box["height"] <= height
    assert box["width"] == pytest.approx(box["height"], abs=1)  # the picture's proportions
