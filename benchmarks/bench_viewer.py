"""Measure the frame time of the hover view at 512 x 512, in headless Chromium without a graphics card.

    python benchmarks/bench_viewer.py

Draws into a canvas of exactly that size and waits for each picture, so that nothing is left in a queue. Writes
benchmarks/results/viewer.json.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path

import record

ROOT = Path(__file__).resolve().parents[1]
TARGET = 30
"""Frames a second."""

FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

MEASURE = """async () => {
    const { Viewer } = await import('/javascript/depth2img-viewer.mjs');
    const side = 512;
    const picture = new OffscreenCanvas(side, side);
    const context = picture.getContext('2d');
    for (let i = 0; i < side; i += 8) { context.fillStyle = `hsl(${i} 80% 50%)`; context.fillRect(i, 0, 8, side); }
    const depth = new Uint8Array(2 * side * side);
    for (let i = 0; i < side * side; i += 1) {
        const [x, y] = [i % side - side / 2, Math.floor(i / side) - side / 2];
        depth[2 * i] = x * x + y * y < 20000 ? 255 : 64 + y / 8;
    }
    const viewer = new Viewer({ reducedMotion: () => true });
    Object.assign(viewer.canvas.style, { width: `${side}px`, height: `${side}px` });
    document.body.append(viewer.canvas);
    await new Promise((resolve) => setTimeout(resolve, 200));
    viewer.load(picture, depth, side, side);
    viewer.show(true);
    const pixel = new Uint8Array(4);
    const finish = () => viewer.gl.readPixels(0, 0, 1, 1, viewer.gl.RGBA, viewer.gl.UNSIGNED_BYTE, pixel);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const times = [];
    for (let i = 0; i < 40; i += 1) {
        viewer.offset = [Math.sin(i), Math.cos(i)];
        const start = performance.now();
        viewer.paint();
        finish();
        times.push(performance.now() - start);
    }
    viewer.look(0, 0);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const before = viewer.frames;
    await new Promise((resolve) => setTimeout(resolve, 2000));
    times.sort((a, b) => a - b);
    const size = [viewer.canvas.width, viewer.canvas.height];
    return { size, median: times[20], worst: times.at(-1), still: viewer.frames - before };
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("viewer: skipped, since there is no Chromium")
        return
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Quiet, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=browser, args=FLAGS)
            page = started.new_page(viewport={"width": 600, "height": 600})
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/CHANGELOG.md")
            found = page.evaluate(MEASURE)
            started.close()
        server.shutdown()
    rate = 1000 / found["median"]
    print(
        f"viewer: {found['size'][0]} x {found['size'][1]}, median {found['median']:.1f} ms a frame "
        f"({rate:.0f} a second, target {TARGET}), worst {found['worst']:.1f} ms, {found['still']} frames while still"
    )
    record.write("viewer", {**found, "ratios": {"frames a second / wanted": rate / TARGET}})
    if found["still"]:
        sys.exit("viewer: frames were drawn although nothing moved")


if __name__ == "__main__":
    main()
