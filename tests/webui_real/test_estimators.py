"""Depth models in the real WebUI, with the transformers that it comes with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host import ROOT, Host, Refused, to_base64
from PIL import Image

AGREEMENT = """
import json, pathlib, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, torch, transformers
from PIL import Image
from tests import depth_models as small
from depth2img import EstimatorError
from depth2img.estimators import transformers as depth_models

folder = pathlib.Path(sys.argv[1])
network = small.write(folder / "dpt", "dpt")
rows, columns = np.mgrid[:90, :140]
picture = np.stack([columns, rows * 2, (rows // 20 + columns // 20) % 2 * 255], axis=2).astype(np.uint8)
processor = transformers.AutoImageProcessor.from_pretrained(folder / "dpt")
pipeline = transformers.pipeline("depth-estimation", model=network, image_processor=processor)
theirs = pipeline(Image.fromarray(picture))["predicted_depth"][0].numpy()
ours = depth_models.open_folder(folder / "dpt", device="cpu", name="dpt").estimate(picture).values
sentences = {}
for kind in ("depth_anything", "zoedepth"):
    (folder / kind).mkdir()
    (folder / kind / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / kind / "preprocessor_config.json").write_text("{}")
    try:
        depth_models.open_folder(folder / kind, device="cpu", name=kind)
    except EstimatorError as error:
        sentences[kind] = str(error)
print(json.dumps({
    "version": transformers.__version__,
    "apart": float(np.abs(theirs - ours).max()),
    "spread": float(ours.std()),
    "sentences": sentences,
}))
"""


def in_hosts_python(code: str, *arguments: str) -> str:
    python = os.environ.get("WEBUI_PYTHON", sys.executable)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-c", code, *arguments], env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_maps_are_those_of_the_hosts_own_pipeline(tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(in_hosts_python(AGREEMENT, str(tmp_path)))
    assert found["spread"] > 0.1 and found["apart"] < 1e-5
    if found["version"] < "4.38":
        for kind, sentence in found["sentences"].items():
            assert kind in sentence and "or newer. Got transformers " + found["version"] in sentence
            assert "leave transformers as it is" in sentence


@pytest.fixture
def dpt(depth_host: Host) -> str:
    """A depth model in the host's folder, put there while it runs."""
    folder = depth_host.data / "models" / "depth2img" / "dpt-small"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        code = "import sys, pathlib; from tests import depth_models as d; d.write(pathlib.Path(sys.argv[1]), 'dpt')"
        in_hosts_python(code + "; print('done')", str(folder))
    return folder.name


def test_routes_and_jobs_use_it(depth_host: Host, dpt: str, astronaut: Image.Image) -> None:
    listed = depth_host.get("/depth2img/v1/estimators")
    assert listed == {"estimators": ["checkpoint", dpt], "default": "checkpoint"}
    estimated = depth_host.post("/depth2img/v1/estimate", image=to_base64(astronaut), estimator=dpt)
    assert (estimated["origin"], estimated["width"], estimated["height"]) == (dpt, 64, 64)
    assert depth_host.run("result = probe.calls['depth']") == 0, "the checkpoint's own network rests"
    result = depth_host.img2img(astronaut, depth={"estimator": dpt, "score": True})
    assert f"Depth estimator: {dpt}" in result.infotexts[0] and "Depth fidelity: " in result.infotexts[0]
    used = next(np.array(values, np.float32).reshape(shape) for shape, values, _ in depth_host.conditionings())
    assert depth_host.run("result = probe.calls['depth']") == 0
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, depth={"depth_map": estimated["depth_map"]})
    given = next(np.array(values, np.float32).reshape(shape) for shape, values, _ in depth_host.conditionings())
    assert np.abs(used - given).max() < 1e-3, "the job's map is the route's"


def test_one_is_in_memory_until_it_is_idle(depth_host: Host, dpt: str, astronaut: Image.Image) -> None:
    depth_host.run("shared.opts.depth2img_estimator_idle_minutes = 0")
    depth_host.post("/depth2img/v1/estimate", image=to_base64(astronaut), estimator=dpt)
    assert depth_host.run("result = sys.modules['depth2img_webui.estimators'].POOL.loaded") is False


@pytest.mark.parametrize("name", ["nothing", "../midas", "/etc", "owner/name"])
def test_other_names_are_refused(depth_host: Host, astronaut: Image.Image, name: str) -> None:
    for send in (
        lambda: depth_host.img2img(astronaut, depth={"estimator": name}),
        lambda: depth_host.post("/depth2img/v1/estimate", image=to_base64(astronaut), estimator=name),
    ):
        with pytest.raises(Refused) as refused:
            send()
        assert refused.value.status == 422


def test_no_request_can_allow_downloads(depth_host: Host, astronaut: Image.Image) -> None:
    """The host restricts the setting; with --nowebui it does not even know it."""
    depth_host.run("sys.modules['depth2img_webui.settings'].add()")
    body = {"estimator": "owner/name"}
    with pytest.raises(Refused) as refused:
        depth_host.img2img(astronaut, depth=body, override_settings={"depth2img_estimator_downloads": True})
    assert refused.value.status == 422 and "not fetched from the hub" in str(refused.value)
