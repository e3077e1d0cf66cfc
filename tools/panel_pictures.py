"""Make the guides' pictures of the panel in `depth2img app`.

Each view and state in both themes, and a loop of the hover view.

    python tools/panel_pictures.py [FOLDER]

Runs the app with the bundled model on the sample scene; writes to docs/pictures/panel or FOLDER, and hover.gif beside
that folder.
"""

from __future__ import annotations

import io
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, WebSocketRoute, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "depth2img" / "embedded" / "sample"
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from conftest import CHROMIUM, FLAGS, opened  # noqa: E402
from stage import Panel  # noqa: E402

from tools.sheets import THEMES, Gallery  # noqa: E402

SIZE = {"width": 800, "height": 1500}
PROMPT = "a yellow box and a green ball on a blue floor, red sky, day"
FRAMES, MILLISECONDS = 24, 80


def stroke(panel: Panel, *places: tuple[float, float]) -> None:
    """Paint on the region from point to point, given as fractions of the shown picture."""
    canvas = panel.stage.locator("canvas.depth2img-paint")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    mouse = panel.page.mouse
    for index, (x, y) in enumerate(places):
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if index == 0:
            mouse.down()
    mouse.up()
    panel.page.wait_for_timeout(700)


def generated(panel: Panel) -> None:
    """Run a job with the bundled model, and recall its depth map."""
    page = panel.page
    page.locator("#app-prompt textarea").fill(PROMPT)
    page.locator("#app-denoising_strength input[type=number]").fill("1")
    page.locator("#app-generate").click()
    page.locator("#app-message").get_by_text("Seed").first.wait_for()
    page.wait_for_timeout(500)
    before = panel.stage.get_attribute("data-shown")
    panel.part("recall").click()
    panel.wait("(stage, before) => stage.dataset.shown !== before", before)


def states(page: Page, gallery: Gallery, black_in_front: Path) -> None:
    """Photograph the panel in each of its states, on a fresh page."""
    panel = Panel(page)
    inside = page.locator(".depth2img-panel")
    page.get_by_text("Frame", exact=True).click()

    def take(name: str) -> None:
        page.mouse.move(1, 1)
        page.wait_for_timeout(300)
        gallery.take(name, inside)

    take("ready")
    panel.part("estimate").click()
    panel.part("message").get_by_text("There is no picture yet").wait_for()
    take("failed")
    panel.picture(SAMPLE / "scene.png")
    panel.estimate()
    take("depth")
    panel.number("near", 0.8)
    panel.number("far", 0.3)
    panel.stage.get_by_label("Colours").select_option("inferno")
    take("adjusted")
    panel.stage.get_by_label("Colours").select_option("grey")
    panel.number("near", 1)
    panel.number("far", 0)
    panel.mode("Region")
    stroke(panel, (0.2, 0.75), (0.3, 0.6), (0.45, 0.6), (0.4, 0.85), (0.2, 0.85))
    take("region")
    panel.stage.get_by_role("button", name="Clear").click()
    panel.mode("Hover view")
    panel.look(0.1, 0.5)
    gallery.take("hover", inside)
    panel.mode("Depth")
    panel.size(448, 320)
    panel.stage.get_by_text("Out of date").wait_for()
    take("stale")
    panel.estimate()
    panel.stage.get_by_text("Neither side").wait_for()
    take("size")
    for name in ("width", "height"):
        page.locator(f"#app-{name} input").fill("")
    generated(panel)
    panel.mode("Compare")
    panel.stage.get_by_label("Left").select_option("picture")
    panel.stage.get_by_label("Right").select_option("result")
    take("after-a-job")
    panel.own(black_in_front)
    panel.mode("Depth")
    panel.estimate()
    panel.stage.get_by_text("looks as if black were near").wait_for()
    take("black-is-near")


def working(browser: Browser, address: str, theme: str, gallery: Gallery) -> None:
    """Photograph the panel while the server works, with one that never answers."""

    def silent(_: WebSocketRoute) -> None:
        """Accept the connection and answer nothing."""

    context: Any = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    page = opened(context.new_page(), address, f"?__theme={theme}")
    panel = Panel(page)
    panel.picture(SAMPLE / "scene.png")
    page.route_web_socket("**/queue/join", silent)
    panel.part("estimate").click()
    page.wait_for_timeout(2200)
    gallery.take("working", page.locator(".depth2img-panel"))
    context.close()


def loop(panel: Panel) -> list[Image.Image]:
    """Record the hover view, once around."""
    panel.mode("Hover view")
    panel.stage.get_by_label("Movement").fill("2")
    pictures = []
    for index in range(FRAMES):
        turn = 2 * math.pi * index / FRAMES
        panel.look(0.5 + 0.45 * math.cos(turn), 0.5 + 0.45 * math.sin(turn))
        pictures.append(Image.open(io.BytesIO(panel.hover.screenshot())).convert("RGB"))
    return pictures


def film(browser: Browser, address: str, file: Path) -> None:
    """Record the loop, with the scene's own depth map."""
    context: Any = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    panel = Panel(opened(context.new_page(), address))
    panel.picture(SAMPLE / "scene.png")
    panel.own(SAMPLE / "depth.png")
    panel.estimate()
    first, *rest = [picture.quantize(96) for picture in loop(panel)]
    first.save(file, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
    context.close()


def write(folder: Path, address: str, black_in_front: Path) -> None:
    """Make all pictures."""
    gallery = Gallery(folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in THEMES:
            context: Any = browser.new_context(viewport=SIZE, reduced_motion="reduce")
            states(opened(context.new_page(), address, f"?__theme={theme}"), gallery, black_in_front)
            context.close()
            working(browser, address, theme, gallery)
        film(browser, address, folder.parent / "hover.gif")
        browser.close()
    gallery.write()


def main() -> None:
    """Serve the app and write everything."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures" / "panel"
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from depth2img.cli import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, "app", "--no-open", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                urllib.request.urlopen(address).read()
                break
            except OSError:
                time.sleep(0.5)
        with tempfile.TemporaryDirectory() as scratch:
            inverted = Path(scratch) / "black-is-near.png"
            depth = np.asarray(Image.open(SAMPLE / "depth.png"))
            Image.fromarray((65535 - depth.astype(np.int32)).astype(np.uint16)).save(inverted)
            write(folder, address, inverted)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
