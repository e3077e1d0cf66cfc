"""Make a picture for the docs: the same jobs in the real WebUI and on the command line, side by side.

    WEBUI_DIR=... WEBUI_PYTHON=... python tools/webui_and_cli.py [FILE]

Both run the bundled model on its sample scene with the same options, and get the same conditioning at every step
(`tests/webui_real/test_same_job.py`); their noise differs. Writes docs/pictures/webui-and-cli.png or FILE.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "webui_real")]

from host import Host, running  # noqa: E402

from depth2img import embedded, read_picture  # noqa: E402
from depth2img.cli.demo import SAMPLE, load_sample  # noqa: E402
from depth2img.cli.figure import Row, grid  # noqa: E402

SIDE = 128
RUN = "from depth2img.cli import main; main()"
JOB: dict[str, Any] = {"steps": 20, "cfg_scale": 4, "seed": 7}
JOBS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "depth to image": ("other", False, {}),
    "strength 0": ("other", False, {"strength": 0.0}),
    "depth until\nhalf-way": ("other", False, {"end": 0.5}),
    "only masked": ("repainted", True, {}),
}
"""Label -> prompt of the sample, whether it is inpainting, depth options."""


def in_the_webui(host: Host, prompt: str, masked: bool, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the WebUI's result, and the conditioning as a grey picture."""
    fields: dict[str, Any] = {}
    if masked:
        fields = {"mask": Image.open(SAMPLE / "mask.png"), "inpaint_full_res": True, "inpainting_fill": 1}
        fields |= {"inpaint_full_res_padding": 16, "mask_blur": 2}
    host.run("probe.clear()")
    size = {"width": SIDE, "height": SIDE, "sampler_name": "DDIM", "denoising_strength": 1.0}
    scene = Image.open(SAMPLE / "scene.png")
    made = host.img2img(scene, prompt=prompt, depth=options or None, **{**JOB, **size, **fields})
    shape, values, _ = host.conditionings()[0]
    seen = np.array(values, np.float32).reshape(shape)[0, 0]
    grey = Image.fromarray(np.round((seen + 1) * 127.5).astype(np.uint8)).convert("RGB")
    return np.asarray(made.images[0].convert("RGB")), np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.NEAREST))


def on_the_command_line(folder: Path, prompt: str, masked: bool, options: dict[str, Any]) -> Any:
    """Return the result of `depth2img generate`."""
    words = ["generate", str(SAMPLE / "scene.png"), "-p", prompt, "-s", "1", "-o", str(folder / "result.png")]
    words += ["--width", str(SIDE), "--height", str(SIDE)]
    if masked:
        words += ["--mask", str(SAMPLE / "mask.png"), "--inpaint-area", "only masked", "--only-masked-padding", "16"]
        words += ["--mask-blur", "2"]
    for name, value in {**JOB, **options}.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    subprocess.run([sys.executable, "-c", RUN, *words], check=True, cwd=ROOT)
    return read_picture(folder / "result.png")


def main() -> None:
    """Run both and write the sheet."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures" / "webui-and-cli.png"
    sample = load_sample()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "checkpoints").mkdir()
        embedded.install(folder / "checkpoints" / "depth2img-tiny.safetensors")
        with running(
            folder / "data", checkpoints=folder / "checkpoints", checkpoint="depth2img-tiny.safetensors"
        ) as host:
            for label, (words, masked, options) in JOBS.items():
                prompt = sample.prompts[words]
                result, seen = in_the_webui(host, prompt, masked, options)
                ours = on_the_command_line(folder, prompt, masked, options)
                rows.append(Row(label, [sample.picture, seen, result, ours]))
    columns = ["picture", "conditioning", "WebUI", "command line"]
    grid(rows, columns, tile=2 * SIDE).save(target, optimize=True)


if __name__ == "__main__":
    main()
