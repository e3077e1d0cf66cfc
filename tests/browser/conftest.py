"""`depth2img app` with a stand-in for the engine, and a page of it in headless Chromium."""

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

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
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
WAIT = 60_000
"""Milliseconds that a step may take on a busy machine."""

sys.path.insert(0, str(HERE))


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
        command = [sys.executable, str(HERE / "serve.py"), str(port)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
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


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1300})
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
    """Pictures whose red channel is their depth, see serve.py; a 16-bit map and one with black in front."""
    folder = tmp_path_factory.mktemp("files")
    two_planes().save(folder / "planes.png")
    Image.fromarray(np.asarray(two_planes())[:, ::-1].copy()).save(folder / "mirrored.png")
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
