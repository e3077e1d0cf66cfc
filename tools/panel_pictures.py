"""Pictures of the panel for the guides: each view in light and dark, and a loop of the hover view.

    python tools/panel_pictures.py docs/pictures

Serves `depth2img app` as the browser tests do (no model is needed), with the sample scene and its own depth map.
"""

from __future__ import annotations

import io
import math
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "depth2img" / "embedded" / "sample"
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from conftest import CHROMIUM, FLAGS, opened  # noqa: E402
from stage import Panel  # noqa: E402

VIEWS = {"depth": "Depth", "hover": "Hover view", "compare": "Compare"}
FRAMES, MILLISECONDS = 24, 80


def ready(page: Page) -> Panel:
    """The sample scene with its own map, estimated."""
    panel = Panel(page)
    panel.picture(SAMPLE / "scene.png")
    panel.part("source").get_by_text("My own depth map", exact=True).click()
    panel.part("depth_map").locator("input[type=file]").set_input_files(str(SAMPLE / "depth.png"))
    panel.part("depth_map").get_by_text("depth.png").wait_for()
    panel.estimate()
    return panel


def loop(panel: Panel) -> list[Image.Image]:
    """The hover view, once around."""
    panel.mode("Hover view")
    panel.stage.get_by_label("Movement").fill("2")
    pictures = []
    for index in range(FRAMES):
        turn = 2 * math.pi * index / FRAMES
        panel.look(0.5 + 0.45 * math.cos(turn), 0.5 + 0.45 * math.sin(turn))
        pictures.append(Image.open(io.BytesIO(panel.hover.screenshot())).convert("RGB"))
    return pictures


def write(folder: Path, address: str) -> None:
    """All pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in ("light", "dark"):
            context: Any = browser.new_context(viewport={"width": 1100, "height": 1200}, reduced_motion="reduce")
            page = opened(context.new_page(), address, f"?__theme={theme}")
            page.locator(".depth2img-panel").screenshot(path=folder / f"panel-empty-{theme}.png")
            panel = ready(page)
            for name, title in VIEWS.items():
                panel.mode(title)
                page.locator(".depth2img-panel").screenshot(path=folder / f"panel-{name}-{theme}.png")
            if theme == "light":
                first, *rest = [picture.quantize(96) for picture in loop(panel)]
                first.save(folder / "hover.gif", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
            context.close()
        browser.close()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(ROOT / "tests" / "browser" / "serve.py"), str(port)])
    try:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                urllib.request.urlopen(address).read()
                break
            except OSError:
                time.sleep(0.5)
        write(folder, address)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
