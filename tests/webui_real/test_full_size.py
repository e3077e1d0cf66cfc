"""A full-size checkpoint, converted here, set up in the running WebUI, chosen there and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host import running
from PIL import Image

from depth2img.checkpoints import convert

SOURCE = os.environ.get("DEPTH2IMG_FULL_SIZE")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SOURCE is None,
        reason="needs 9 GB: set DEPTH2IMG_FULL_SIZE to what tools/random_checkpoint.py --dtype fp32 writes",
    ),
]

PEAK = """
import re
status = open("/proc/self/status").read()
result = {name: int(re.search(name + r":\\s+(\\d+) kB", status)[1]) * 1024 for name in ("VmHWM", "VmRSS")}
"""


def test_converted_set_up_chosen_and_used(
    models: Path, tmp_path: Path, astronaut: Image.Image, record_property: Any
) -> None:
    source, new, folder = Path(str(SOURCE)), tmp_path / "converted-fp16.safetensors", tmp_path / "checkpoints"
    folder.mkdir()
    for suffix in (".safetensors", ".yaml"):
        (folder / f"small-depth{suffix}").symlink_to(models / f"small-depth{suffix}")
    try:
        ledger = convert(source, new, half=True)
        record_property("converted", f"{len(ledger.lines)} tensors, {ledger.bytes:,} bytes")
        with running(tmp_path / "data", checkpoints=folder, checkpoint="small-depth.safetensors") as host:
            record_property("small one loaded", host.run(PEAK))
            command = [sys.executable, "-c", "from depth2img.cli import main; main()", "checkpoint", "setup", str(new)]
            done = subprocess.run([*command, "--ckpt-dir", str(folder)], check=True, capture_output=True, text=True)
            assert "choose converted-fp16" in done.stdout
            assert "converted-fp16" not in str(host.get("/sdapi/v1/sd-models"))
            host.post("/sdapi/v1/refresh-checkpoints")
            assert "converted-fp16" in str(host.get("/sdapi/v1/sd-models"))
            assert "small-depth" in host.get("/sdapi/v1/options")["sd_model_checkpoint"]
            host.use("converted-fp16")
            record_property("full-size one loaded", host.run(PEAK))
            host.run("probe.clear(); probe.watch()")
            result = host.img2img(astronaut.resize((256, 256)), width=256, height=256, steps=2)
            shape, values, _ = host.conditionings()[-1]
            assert result.info["sd_model_name"] == "converted-fp16"
            assert shape[1:] == [1, 32, 32] and min(values) == -1 and max(values) == 1
            made = np.asarray(result.images[0].convert("RGB"), float)
            assert made.shape == (256, 256, 3) and made.std() > 5
            record_property("picture's deviation", round(float(made.std()), 1))
            record_property("picture made", host.run(PEAK))
            if shots := os.environ.get("DEPTH2IMG_SHOTS"):
                result.images[0].save(Path(shots) / "full-size.png")
    finally:
        shutil.rmtree(tmp_path)
