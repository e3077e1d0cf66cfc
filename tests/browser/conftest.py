"""`depth2img app` with the bundled model, and a page of it in headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLE = ROOT / "depth2img" / "embedded" / "sample"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Software rendering: a machine without a graphics card has WebGL too.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
VIEWPORT: Any = {"width": 1000, "height": 800}
"""Small, since every pixel of it is drawn by the processor."""
WAIT = 60_000
"""Milliseconds that a step may take on a busy machine."""

sys.path.insert(0, str(HERE))

from stage import COUNT_DRAWS, Panel  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="needs Chromium (Debian: apt-get install chromium)")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if not CHROMIUM:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The running app. A process of its own: Gradio's threads and Playwright's loop do not get on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log.txt"
    with log.open("wb") as output:
        environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(ROOT)}
        code = "from depth2img.cli import main; main()"
        command = [sys.executable, "-W", "ignore", "-c", code, "app", "--no-open", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).read()
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(log.read_text(errors="replace")[-3000:]) from None
                time.sleep(0.3)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def shared(browser: Browser, address: str, files: Path) -> Iterator[Panel]:
    """One page for most tests, since a page takes seconds to arrive; see `panel`."""
    context = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")
    context.add_init_script(COUNT_DRAWS)
    ready = Panel(opened(context.new_page(), address))
    ready.page.get_by_text("Frame", exact=True).click()
    ready.size(512, 512)
    yield ready
    context.close()


@pytest.fixture
def panel(shared: Panel, files: Path) -> Panel:
    """The shared page as at first, with the picture of two planes, its own map, and its preview."""
    shared.reset()
    shared.picture(files / "planes.png")
    shared.own(files / "planes-depth.png")
    shared.estimate()
    return shared


@pytest.fixture
def scene(shared: Panel, files: Path) -> Panel:
    """The shared page as at first, with the sample scene and the map that the bundled model estimates."""
    shared.reset()
    shared.picture(files / "scene.png")
    shared.source("This picture")
    shared.estimate()
    return shared


@pytest.fixture
def hovering(panel: Panel) -> Panel:
    """The two planes in the hover view, at rest."""
    panel.mode("Hover view")
    panel.hover.scroll_into_view_if_needed()
    panel.page.mouse.move(1, 1)
    panel.still()
    return panel


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport=VIEWPORT)
    yield opened(context.new_page(), address)
    context.close()


def opened(page: Page, address: str, query: str = "?__theme=light") -> Page:
    """The page, ready."""
    page.set_default_timeout(WAIT)
    page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
    page.goto(f"{address}/{query}")
    page.locator(".depth2img-stage-inside").wait_for()
    page.locator("#app-depth-status [data-state=ready]").first.wait_for()
    return page


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample scene; a picture of two planes with its map; a 16-bit map and one with black in front."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "scene.png").write_bytes((SAMPLE / "scene.png").read_bytes())
    ImageOps.mirror(Image.open(SAMPLE / "scene.png")).save(folder / "mirrored.png")
    two_planes().save(folder / "planes.png")
    Image.fromarray(planes_map()).save(folder / "planes-depth.png")
    ramp = np.repeat(np.linspace(30_000, 30_200, 192).round().astype(np.uint16)[None], 128, axis=0)
    Image.fromarray(ramp).save(folder / "ramp.png")
    down = np.repeat(np.linspace(255, 0, 128).round().astype(np.uint8)[:, None], 192, axis=1)
    Image.fromarray(down).save(folder / "black-in-front.png")
    return folder


def two_planes(width: int = 512, height: int = 512) -> Image.Image:
    """A near red square before a far background of blue and green stripes."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 2] = 200
    picture[:, (np.arange(width) // 16) % 2 == 0, 1] = 160
    picture[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = (255, 0, 0)
    return Image.fromarray(picture)


def planes_map(width: int = 512, height: int = 512) -> np.ndarray[Any, Any]:
    """The depth of `two_planes`, 16 bits: the square is nearest; the background comes a little nearer below."""
    depth = np.repeat(np.linspace(0, 5000, height).round().astype(np.uint16)[:, None], width, axis=1)
    depth[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 65535
    return depth
