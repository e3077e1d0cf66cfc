"""The example workflows: whole, and each run on the real ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth2img import OPTIONS
from depth2img_comfy import NODE_CLASS_MAPPINGS
from tests.comfy.server import ROOT, Graph, Server
from tests.webui_real.judge import kept

FOLDER = ROOT / "example_workflows"
FILES = sorted(FOLDER.glob("*.json"))
NAMES = ["compare-denoising", "img2img", "inpaint", "pose-txt2img"]

SEEDS = ("seed", "noise_seed")
"""Widgets behind which the page stores one more: what happens to the seed after a job."""


def workflow(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def prompt(flow: dict[str, Any], inputs: dict[str, list[str]]) -> Graph:
    """Turn a workflow as the page stores it into what `/prompt` takes; `inputs` lists each class's widgets."""
    ends = {link[0]: [str(link[1]), link[2]] for link in flow["links"]}
    graph: Graph = {}
    for node in flow["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            continue
        values = list(node.get("widgets_values", []))
        made: dict[str, Any] = {}
        for name in inputs[node["type"]]:
            made[name] = values.pop(0)
            if name in SEEDS:
                values.pop(0)
        wired = {one["name"]: ends[one["link"]] for one in node["inputs"] if one.get("link") is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": made | wired}
    return graph


def test_the_folder_is_where_comfyui_looks() -> None:
    """Beside the file that exports the nodes, under the name that it asks for."""
    assert [path.stem for path in FILES] == NAMES
    assert (FOLDER.parent / "__init__.py").is_file()
    assert all((FOLDER / f"{name}.jpg").is_file() for name in NAMES)  # the pictures of the list of templates


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_picture_carries_the_workflow(path: Path) -> None:
    with Image.open(path.with_suffix(".png")) as picture:
        assert json.loads(picture.text["workflow"]) == workflow(path)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_links_and_values_fit(path: Path) -> None:
    flow = workflow(path)
    nodes = {node["id"]: node for node in flow["nodes"]}
    assert {node["type"] for node in nodes.values() if node["type"].startswith("Depth2Img")} <= {*NODE_CLASS_MAPPINGS}
    for number, start, out, end, into, kind in flow["links"]:
        assert number in nodes[start]["outputs"][out]["links"] and nodes[start]["outputs"][out]["type"] == kind
        assert nodes[end]["inputs"][into]["link"] == number
    for node in nodes.values():
        if node["type"] == "Depth2ImgApplyDepth":
            names = [name for name in NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()["required"] if name in OPTIONS]
            for name, value in zip(names, node["widgets_values"], strict=True):
                OPTIONS[name].check(value)


@pytest.mark.real_host
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_workflow_runs(server: Server, path: Path) -> None:
    """On the scene as `example.png`, as which ComfyUI brings another picture; the shapes of the scene are kept."""
    info = server.get("/object_info")
    inputs = {
        kind: [
            name
            for part in ("required", "optional")
            for name, spec in described["input"].get(part, {}).items()
            if isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
        ]
        for kind, described in info.items()
    }
    flow = workflow(path)
    graph = prompt(flow, inputs)
    shown = server.run(graph)
    saved = [one for node, one in shown.items() if graph[node]["class_type"] == "SaveImage"]
    pictures = [Image.fromarray(one) for found in saved for one in server.pictures(found)]
    scores = [kept(one) for one in pictures]
    if path.stem == "compare-denoising":
        off, on = scores[:3], scores[3:]
        assert len(on) == 3 and min(on) > 0.6 and on[2] - off[2] > 0.2
    else:
        assert len(scores) == 1 and scores[0] > 0.6
    assert all(float(np.asarray(one).std()) > 10 for one in pictures)
