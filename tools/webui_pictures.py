"""Make the pictures of the real WebUI for the docs.

The panel in each of its states, in both themes; the whole page; photographs and the sample scene through img2img,
inpaint and txt2img.

    WEBUI_DIR=... WEBUI_PYTHON=... python tools/webui_pictures.py [FOLDER]

Runs the bundled model in the WebUI, API and page, and writes states, results, depth maps, infotexts and screenshots to
docs/pictures/webui or FOLDER.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "webui_real"))

from conftest import photograph  # noqa: E402
from host import Host, Refused, Result, running, to_base64  # noqa: E402
from page import DepthPanel, opened  # noqa: E402

from tools.sheets import THEMES, Gallery, save  # noqa: E402

SIDE = 128
BUNDLED = "depth2img-tiny"
SCENE = ROOT / "depth2img" / "embedded" / "sample" / "scene.png"
FIELDS = {"width": SIDE, "height": SIDE, "steps": 20, "sampler_name": "DDIM", "cfg_scale": 4, "seed": 7}
PROMPT = "a yellow box and a green ball on a blue floor, red sky, day"


def keep(folder: Path, name: str, given: Image.Image, result: Result) -> None:
    """Join input, result and depth map side by side, with the infotext."""
    shown = [given.convert("RGB"), *(image.convert("RGB") for image in result.images)]
    sheet = Image.new("RGB", (2 * SIDE * len(shown) + 8 * (len(shown) - 1), 2 * SIDE), "white")
    for index, image in enumerate(shown):
        sheet.paste(image.resize((2 * SIDE, 2 * SIDE)), (index * (2 * SIDE + 8), 0))
    save(sheet, folder / f"{name}.png")
    (folder / f"{name}.txt").write_text(result.infotexts[0] + "\n", encoding="utf8")


def jobs(host: Host, folder: Path) -> None:
    """Run each subject through img2img, inpaint and txt2img with its depth."""
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (SIDE // 4, SIDE // 4, 3 * SIDE // 4, 3 * SIDE // 4))
    for name in ("scene", "astronaut", "coffee", "chelsea"):
        given = Image.open(SCENE).convert("RGB") if name == "scene" else photograph(name, SIDE, SIDE)
        map_too = {"append_map": True}
        keep(folder, f"{name}-img2img", given, host.img2img(given, prompt=PROMPT, depth=map_too, **FIELDS))
        inpainted = host.img2img(
            given, prompt=PROMPT, depth=map_too, mask=mask, inpaint_full_res=False, inpainting_fill=1, **FIELDS
        )
        keep(folder, f"{name}-inpaint", given, inpainted)
        stolen = {"reference": to_base64(given), "append_map": True}
        keep(folder, f"{name}-txt2img", given, host.txt2img(prompt=PROMPT, depth=stolen, **FIELDS))


def screens(host: Host, folder: Path) -> None:
    """Photograph the page after "Estimate depth" and Generate."""
    for theme in THEMES:
        with opened(host.url, width=1400, height=1750, query=f"?__theme={theme}") as page:
            panel = filled(page)
            panel.estimate()
            panel.generate()
            page.wait_for_timeout(1000)
            page.evaluate("scrollTo(0, 0)")  # the results stay in sight, wherever that is
            page.wait_for_timeout(300)
            picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
            size = picture.width * 3 // 4, picture.height * 3 // 4
            save(picture.resize(size, Image.Resampling.LANCZOS), folder / f"img2img-{theme}.png")


def filled(page: Page) -> DepthPanel:
    """Open img2img with the sample scene, settings that suit the bundled model, and the panel open."""
    panel = DepthPanel(page, "img2img")
    panel.show_tab()
    for name, value in (("width", SIDE), ("height", SIDE), ("denoising_strength", 1), ("cfg_scale", 4)):
        panel.number(f"img2img_{name}", value)
    page.locator("#img2img_prompt textarea").fill(PROMPT)
    panel.upload("img2img_image", SCENE)
    panel.open()
    return panel


class States:
    """The panel in each of its states.

    Args:
        host: a WebUI whose folder of checkpoints holds no depth checkpoint yet.
        gallery: gets the pictures.
    """

    def __init__(self, host: Host, gallery: Gallery) -> None:
        self._host, self._gallery = host, gallery

    def take(self, panel: DepthPanel, name: str) -> None:
        panel.page.mouse.move(1, 1)
        panel.page.wait_for_timeout(400)
        self._gallery.take(name, panel.part("enabled"))

    def opened(self, name: str, state: str) -> None:
        """Photograph the panel as the page opens, in both themes."""
        for theme in THEMES:
            with opened(self._host.url, height=1500, query=f"?__theme={theme}") as page:
                panel = filled(page)
                panel.part("status").locator(f"[data-state={state}]").wait_for()
                self.take(panel, name)

    def checkpoints(self) -> None:
        """Photograph a wrong checkpoint and one that cannot be loaded; leave the bundled model loaded."""
        with opened(self._host.url) as page:
            panel = filled(page)
            panel.part("install").click()
            panel.part("status").get_by_text("is installed: refresh").wait_for()
        self._host.post("/sdapi/v1/refresh-checkpoints")
        self.opened("wrong", "wrong")
        with contextlib.suppress(Refused):
            self._host.use("small-nodepth")
        self.opened("not-loaded", "failed")
        self._host.use(BUNDLED)

    def working(self) -> None:
        """Photograph the panel with a server that never answers."""
        for theme in THEMES:
            with opened(self._host.url, height=1500, query=f"?__theme={theme}") as page:
                panel = filled(page)
                page.route_web_socket("**/queue/join", lambda _: None)
                panel.part("estimate").click()
                page.wait_for_timeout(2200)
                self.take(panel, "working")

    def ready(self, black_in_front: Path) -> None:
        """Photograph the states with a depth checkpoint loaded."""
        for theme in THEMES:
            with opened(self._host.url, height=1500, query=f"?__theme={theme}") as page:
                self._ready(page, black_in_front)

    def _ready(self, page: Page, black_in_front: Path) -> None:
        panel = filled(page)
        self.take(panel, "ready")
        panel.estimate()
        self.take(panel, "depth")
        panel.mode("Hover view")
        page.wait_for_timeout(4500)
        self.take(panel, "hover")
        panel.mode("Depth")
        panel.number("img2img_width", 192)
        panel.stage.get_by_text("Out of date").wait_for()
        self.take(panel, "stale")
        panel.number("img2img_height", 192)
        panel.stage.get_by_text("Neither side").wait_for()
        panel.estimate()
        self.take(panel, "size")
        for name in ("width", "height"):
            panel.number(f"img2img_{name}", SIDE)
        panel.generate()
        panel.part("recall").click()
        panel.part("message").get_by_text("Of the latest job").wait_for()
        panel.mode("Compare")
        panel.stage.get_by_label("Right").select_option("result")
        self.take(panel, "after-a-job")
        panel.part("source").get_by_text("My own depth map", exact=True).click()
        panel.mode("Depth")
        panel.part("estimate").click()
        panel.part("message").get_by_text("there is none").wait_for()
        self.take(panel, "failed")
        panel.part("depth_map").locator("input[type=file]").set_input_files(str(black_in_front))
        panel.part("depth_map").get_by_text(black_in_front.name).wait_for()
        panel.estimate()
        panel.stage.get_by_text("looks as if black were near").wait_for()
        self.take(panel, "black-is-near")


def random_checkpoint(folder: Path, name: str, *flags: str) -> None:
    """Write a small checkpoint with random weights."""
    python = os.environ.get("WEBUI_PYTHON", sys.executable)
    tool = ROOT / "tools" / "random_checkpoint.py"
    subprocess.run([python, "-W", "ignore", str(tool), str(folder / name), "--size", "small", *flags], check=True)


def main() -> None:
    """Run the WebUI, first without a depth checkpoint, then with the bundled model, and write everything."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures" / "webui"
    folder.mkdir(parents=True, exist_ok=True)
    gallery = Gallery(folder)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = Path(scratch) / "checkpoints"
        checkpoints.mkdir()
        random_checkpoint(checkpoints, "small-plain.safetensors", "--plain")
        with running(
            Path(scratch) / "data", checkpoints=checkpoints, checkpoint="small-plain.safetensors", interface=True
        ) as host:
            states = States(host, gallery)
            states.opened("missing", "missing")
            random_checkpoint(checkpoints, "small-nodepth.safetensors", "--no-depth")
            states.checkpoints()
            states.working()
            inverted = Path(scratch) / "black-is-near.png"
            depth = np.asarray(Image.open(SCENE.with_name("depth.png")))
            Image.fromarray((65535 - depth.astype(np.int32)).astype(np.uint16)).save(inverted)
            states.ready(inverted)
            gallery.write()
            jobs(host, folder)
            screens(host, folder)


if __name__ == "__main__":
    main()
