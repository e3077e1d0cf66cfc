"""Pictures of the real WebUI for the docs: photographs and the sample scene through img2img, inpaint and txt2img.

    WEBUI_DIR=... WEBUI_PYTHON=... python tools/webui_pictures.py [FOLDER]

Runs the bundled model in the WebUI, API and page, and writes results, depth maps, infotexts and screenshots to
docs/pictures/webui or FOLDER.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "webui_real"))

from conftest import photograph  # noqa: E402
from host import Host, Result, running, to_base64  # noqa: E402
from page import DepthPanel, opened  # noqa: E402

from depth2img import embedded  # noqa: E402

SIDE = 128
SCENE = ROOT / "depth2img" / "embedded" / "sample" / "scene.png"
FIELDS = {"width": SIDE, "height": SIDE, "steps": 20, "sampler_name": "DDIM", "cfg_scale": 4, "seed": 7}
PROMPT = "a yellow box and a green ball on a blue floor, red sky, day"


def keep(folder: Path, name: str, given: Image.Image, result: Result) -> None:
    """Input, result and depth map side by side, and the infotext."""
    shown = [given.convert("RGB"), *(image.convert("RGB") for image in result.images)]
    sheet = Image.new("RGB", (2 * SIDE * len(shown) + 8 * (len(shown) - 1), 2 * SIDE), "white")
    for index, image in enumerate(shown):
        sheet.paste(image.resize((2 * SIDE, 2 * SIDE)), (index * (2 * SIDE + 8), 0))
    sheet.save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text(result.infotexts[0] + "\n", encoding="utf8")


def jobs(host: Host, folder: Path) -> None:
    """Each subject through img2img, inpaint and txt2img with its depth."""
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
    """The page after "Estimate depth" and Generate, light and dark."""
    for theme in ("light", "dark"):
        with opened(host.url, width=1400, height=1750, query=f"?__theme={theme}") as page:
            panel = DepthPanel(page, "img2img")
            panel.show_tab()
            for name, value in (("width", SIDE), ("height", SIDE), ("denoising_strength", 1), ("cfg_scale", 4)):
                panel.number(f"img2img_{name}", value)
            page.locator("#img2img_prompt textarea").fill(PROMPT)
            panel.upload("img2img_image", SCENE)
            panel.open()
            panel.estimate()
            panel.generate()
            page.wait_for_timeout(1000)
            page.screenshot(path=str(folder / f"img2img-{theme}.png"), full_page=True)


def main() -> None:
    """Run the WebUI with the bundled model and write everything."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures" / "webui"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = Path(scratch) / "checkpoints"
        checkpoints.mkdir()
        embedded.install(checkpoints / "depth2img-tiny.safetensors")
        with running(
            Path(scratch) / "data", checkpoints=checkpoints, checkpoint="depth2img-tiny.safetensors", interface=True
        ) as host:
            jobs(host, folder)
            screens(host, folder)


if __name__ == "__main__":
    main()
