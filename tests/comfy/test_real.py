"""The nodes in the real ComfyUI, through `/prompt`, with the bundled model."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import OPTIONS, DepthMap, DepthOptions, conditioning, read_depth_map
from depth2img.depth import schedule
from depth2img.depth.masks import read_region
from depth2img_comfy.applied import place
from tests.comfy.graphs import ADJUST, apply, img2img, load_map, node, ours, sampler
from tests.comfy.server import Failed, Server
from tests.webui_real.judge import changed, depth_of, engine, kept, mirrored, sample, scene

pytestmark = pytest.mark.real_host

KEPT, ADDED = 0.6, 0.2
"""As in the WebUI's tier: structure above this is kept, and without depth there is at least so much less."""

ROUNDING = 2e-6
"""The server's torch and the tests' are different builds: a few units of float32 in bicubic sums of -1..1."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of the UNet: its input (N, 5, h, w), and what the host says about it."""

    x: torch.Tensor
    sigma: float
    sigmas: list[float]
    order: list[int]

    @property
    def depth(self) -> torch.Tensor:
        return self.x[:, 4:]

    def half(self, which: int) -> torch.Tensor:
        """Return the depth of all rows of a half: 0 with the prompt, 1 with the negative one."""
        chunks = self.depth.chunk(len(self.order))
        return torch.cat([chunk for chunk, at in zip(chunks, self.order, strict=True) if at == which])


def calls(server: Server, name: str) -> list[Call]:
    found = []
    for path in sorted((server.base / "output" / name).glob("*.json")):
        x = torch.from_numpy(np.load(path.with_suffix(".npz"))["x"])
        found.append(Call(x, **json.loads(path.read_text())))
    assert found
    return found


def made(server: Server, graph: dict[str, Any]) -> list[Image.Image]:
    return [Image.fromarray(one) for one in server.pictures(server.run(graph)["save"])]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=ROUNDING)


def own_map(graph: dict[str, Any], file: str = "depth.png") -> dict[str, Any]:
    """Take the depth from a file, whose conditioning the tests know exactly."""
    return {**graph, "depth": load_map(file)}


def exact(height: int, width: int) -> torch.Tensor:
    return conditioning([read_depth_map(sample().depth.to_png())], height=height, width=width)


# --- loading and pictures ---------------------------------------------------------------------------------------------


def test_the_page_is_told_what_the_table_says(server: Server) -> None:
    inputs = server.get("/object_info/Depth2ImgApplyDepth")["Depth2ImgApplyDepth"]["input"]["required"]
    assert inputs["guidance"][0] == "FLOAT"
    assert inputs["guidance"][1].items() >= {"min": 1.0, "max": 30.0, "tooltip": OPTIONS["guidance"].help}.items()


def test_img2img_keeps_structure(server: Server) -> None:
    on = made(server, img2img("on"))[0]
    off = made(server, img2img("off", controls={"strength": 0.0}))[0]
    assert kept(on) > KEPT and kept(on) - kept(off) > ADDED
    assert changed(on, scene()) > 25


def test_the_model_alone_does_plain_img2img(server: Server) -> None:
    """Without "Apply depth" the picture is that of strength 0, to the bit."""
    graph = img2img("alone", steps=3)
    plain = sampler(model=["load", 0], positive=["yes", 0], negative=["no", 0], latent_image=["latent", 0], steps=3)
    alone = made(server, {**graph, "sample": plain})[0]
    off = made(server, img2img("alone-off", controls={"strength": 0.0}, steps=3))[0]
    assert np.array_equal(np.asarray(alone), np.asarray(off))


def test_estimated_depth_is_the_librarys(server: Server) -> None:
    graph = img2img("estimated", steps=1)
    made(server, graph)
    wanted = conditioning([engine().estimate(sample().picture)], height=16, width=16)
    # Two builds of torch convolve in different orders; 1e-4 is what parity with the WebUI's own is held to.
    assert torch.allclose(calls(server, "estimated")[0].half(0), wanted, rtol=0, atol=1e-4)


# --- the schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "controls",
    [
        {"strength": 0.5, "guidance": 3.0},
        {"strength": 0.75, "start": 0.25, "end": 0.75, "neutral": -0.5},
        {"guidance": 30.0, "end": 0.5},
    ],
    ids=["guidance", "part", "mirrored"],
)
def test_each_step_is_what_the_librarys_schedule_says(server: Server, controls: dict[str, float]) -> None:
    name = "rows-" + "-".join(controls)
    made(server, own_map(img2img(name, controls=controls, steps=8)))
    options, full = DepthOptions(**controls), exact(16, 16)
    found = calls(server, name)
    assert len(found) == 8
    for step, call in enumerate(found):
        assert set(call.order) == {0, 1}
        assert close(call.half(0), schedule.conditional(full, options, step, 8))
        assert close(call.half(1), schedule.unconditional(full, options, step, 8, cfg_scale=4.0))


def test_every_sampler(server: Server) -> None:
    """Rows are those of the step that the noise level belongs to, wherever between two levels a sampler looks."""
    controls = {"strength": 0.5, "guidance": 2.0, "start": 0.3}
    options, full = DepthOptions(**controls), exact(8, 8)
    names = server.get("/object_info/KSampler")["KSampler"]["input"]["required"]["sampler_name"][0]
    assert len(names) > 30
    for name in names:
        probe = f"sampler-{name}"
        graph = own_map(img2img(probe, controls=controls, steps=4, sampler_name=name, denoise=0.8))
        graph["latent"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
        made(server, graph)
        for call in calls(server, probe):
            step, total = place(call.sigmas, call.sigma)
            assert close(call.half(0), schedule.conditional(full, options, step, total)), name
            if 1 in call.order:
                assert close(call.half(1), schedule.unconditional(full, options, step, total, cfg_scale=4.0)), name


def test_in_a_part_of_the_steps(server: Server) -> None:
    """The advanced sampler's part counts its own steps."""
    graph = own_map(img2img("advanced", controls={"start": 0.5}))
    wired = {"model": ["probe", 0], "positive": ["apply", 1], "negative": ["apply", 2], "latent_image": ["apply", 3]}
    more = {"noise_seed": 3, "steps": 8, "start_at_step": 4, "end_at_step": 8, "cfg": 4.0}
    more |= {"sampler_name": "euler", "scheduler": "normal", "add_noise": "enable"}
    graph["sample"] = node("KSamplerAdvanced", **wired, **more, return_with_leftover_noise="disable")
    made(server, graph)
    assert [bool(call.depth.any()) for call in calls(server, "advanced")] == [False, False, True, True]


# --- sizes, batches, places -------------------------------------------------------------------------------------------


def test_a_second_pass_at_another_size(server: Server) -> None:
    """The same prompts serve a larger latent: its depth is made from the map again, not from the first pass's."""
    graph = own_map(img2img("hires", steps=6))
    graph["larger"] = node("LatentUpscale", samples=["sample", 0], upscale_method="bilinear", width=192, height=192)
    graph["larger"]["inputs"]["crop"] = "disabled"
    graph["second"] = sampler(latent_image=["larger", 0], denoise=0.6, steps=6)
    graph["decode"]["inputs"]["samples"] = ["second", 0]
    result = made(server, graph)[0]
    assert result.size == (192, 192) and kept(result) > KEPT
    assert close(calls(server, "hires")[-1].half(0), exact(24, 24))


def test_a_map_of_other_proportions_is_fitted(server: Server) -> None:
    graph = own_map(img2img("fitted", steps=1))
    graph["latent"] = node("EmptyLatentImage", width=192, height=64, batch_size=1)
    made(server, graph)
    assert close(calls(server, "fitted")[0].half(0), exact(8, 24))


def test_two_pictures_of_a_batch(server: Server) -> None:
    """Each keeps its own structure, and not the other's."""
    graph = img2img("batch")
    graph["one"], graph["two"] = node("LoadImage", image="scene.png"), node("LoadImage", image="mirrored.png")
    graph["picture"] = node("ImageBatch", image1=["one", 0], image2=["two", 0])
    first, second = made(server, graph)
    other = depth_of(mirrored())
    assert kept(first) > KEPT and kept(second, other) > KEPT
    assert kept(first) - kept(first, other) > 0.25 and kept(second, other) - kept(second) > 0.25


def test_prompts_for_areas(server: Server) -> None:
    """An area sees its part of the map; the whole sees all of it."""
    graph = own_map(img2img("areas", controls={"strength": 0.5}, steps=2))
    graph["left"] = node("ConditioningSetArea", conditioning=["yes", 0], width=64, height=128, x=64, y=0, strength=1.0)
    graph["both"] = node("ConditioningCombine", conditioning_1=["left", 0], conditioning_2=["yes", 0])
    graph["apply"]["inputs"]["positive"] = ["both", 0]
    made(server, graph)
    full = exact(16, 16) * 0.5
    seen = {call.x.shape[-1]: call for call in calls(server, "areas")}
    assert close(seen[8].half(0), full[..., 8:]) and close(seen[8].half(1), full[..., 8:])
    assert close(seen[16].half(0), full)


def test_prompts_with_depths_of_their_own(server: Server) -> None:
    graph = own_map(img2img("own", steps=1))
    graph["turned"] = ours("AdjustDepth", depth=["depth", 0], **{**ADJUST, "invert": True})
    graph["other"] = apply(depth=["turned", 0], model=["apply", 0], strength=0.25)
    graph["both"] = node("ConditioningCombine", conditioning_1=["apply", 1], conditioning_2=["other", 1])
    graph["sample"]["inputs"] |= {"positive": ["both", 0]}
    graph["probe"]["inputs"]["model"] = ["other", 0]
    made(server, graph)
    rows = torch.cat([call.half(0) for call in calls(server, "own")])
    first, second = sorted(rows, key=lambda row: -float(row.abs().max()))
    assert close(first[None], exact(16, 16)) and torch.allclose(second[None], -exact(16, 16) * 0.25, atol=1e-4)


def test_inside_a_region(server: Server) -> None:
    graph = own_map(img2img("region", steps=1, controls={"region": ["mask", 0], "neutral": 0.5}))
    graph["mask"] = node("LoadImageMask", image="mask.png", channel="red")
    made(server, graph)
    region = schedule.region_tensor(read_region(np.asarray(sample().mask)), height=16, width=16)
    wanted = schedule.inside(exact(16, 16), region, 0.5)
    assert close(calls(server, "region")[0].half(0), wanted)


def test_inpainting_keeps_depth(server: Server) -> None:
    graph = img2img("inpaint")
    graph["yes"]["inputs"]["text"] = sample().prompts["repainted"]
    graph["encode"] = graph["latent"]
    graph["mask"] = node("LoadImageMask", image="mask.png", channel="red")
    graph["latent"] = node("SetLatentNoiseMask", samples=["encode", 0], mask=["mask", 0])
    result = made(server, graph)[0]
    inside = sample().mask > 0
    far = np.asarray(Image.fromarray(sample().mask).resize((16, 16), Image.BOX).resize((128, 128))) == 0
    assert kept(result) > KEPT
    assert changed(result, scene(), inside) > 20 and changed(result, scene(), far) < 8


def test_ignoring_colours(server: Server) -> None:
    """Two pictures give one result: nothing but the map's shape and the noise counts."""
    results = []
    for picture in ("scene.png", "mirrored.png"):
        for ignore in (True, False):
            graph = img2img(f"ignore-{ignore}", picture=picture, controls={"ignore_colours": ignore}, steps=4)
            results.append(np.asarray(made(server, own_map(graph))[0]).astype(int))
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(results[1], results[3])


# --- files, memory, errors --------------------------------------------------------------------------------------------


def test_a_map_is_read_shown_and_saved_at_full_precision(server: Server) -> None:
    wanted = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    server.upload("fine.png", wanted)
    graph = {
        "load": load_map("fine.png"),
        "text": node("PreviewAny", source=["load", 1]),
        "show": ours("PreviewDepth", depth=["load", 0], colour_map="inferno"),
        "save": ours("SaveDepthMap", depth=["load", 0], filename_prefix="maps/fine", format="png"),
        "raw": ours("SaveDepthMap", depth=["load", 0], filename_prefix="maps/fine", format="tiff"),
    }
    shown = server.run(graph)
    assert shown["text"]["text"][0] == "PNG, 40 x 24, 16 bits, values 0 to 65535."
    saved = read_depth_map(server.content(shown["save"]["images"][0]))
    assert np.array_equal(saved.values, wanted) and saved.bits == 16
    assert np.array_equal(read_depth_map(server.content(shown["raw"]["files"][0])).values, wanted)
    colours = DepthMap(values=wanted.astype(np.float32)).to_image("inferno")
    assert np.array_equal(server.pictures(shown["show"])[0], np.asarray(colours))


def test_the_host_frees_the_depth_network(server: Server) -> None:
    """It is loaded by the host's manager, and leaves when the host is asked to free its memory."""
    made(server, img2img("memory", steps=1))
    before = server.log.read_text(errors="replace").count("Requested to load TinyDepthNet")
    made(server, img2img("memory", picture="mirrored.png", steps=1))
    assert server.log.read_text(errors="replace").count("Requested to load TinyDepthNet") == before
    server.post("/free", unload_models=True)
    time.sleep(2)  # the host does it between two jobs, and says nothing about it
    made(server, img2img("memory", steps=1, picture="example.png"))
    assert server.log.read_text(errors="replace").count("Requested to load TinyDepthNet") == before + 1


def test_a_colour_picture_is_not_a_map(server: Server) -> None:
    with pytest.raises(Failed, match=re.escape("The depth map is a colour picture.")) as failed:
        server.run(own_map(img2img("colour"), "scene.png"))
    assert failed.value.node == "Depth2ImgLoadDepthMap"


def test_another_checkpoint_is_refused(server: Server) -> None:
    (server.base / "models" / "checkpoints" / "page.safetensors").write_bytes(b"<!doctype html><p>log in")
    graph = img2img("refused")
    graph["load"]["inputs"]["checkpoint"] = "page.safetensors"
    with pytest.raises(Failed, match=re.escape("page.safetensors is an HTML page, not a checkpoint")) as failed:
        server.run(graph)
    assert failed.value.node == "Depth2ImgLoadDepthCheckpoint"


def test_a_file_outside_the_folder_is_refused(server: Server) -> None:
    with pytest.raises(Failed, match="Value not in list"):
        server.run(own_map(img2img("outside"), "../log.png"))


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        ({"model": ["load", 0]}, "The prompts come from 'Apply depth', but the model does not."),
        (
            {"positive": ["yes", 0], "negative": ["no", 0]},
            "The model comes from 'Apply depth', but the prompts do not.",
        ),
    ],
    ids=["model", "prompts"],
)
def test_a_forgotten_wire_is_named(server: Server, wire: dict[str, Any], sentence: str) -> None:
    graph = img2img("wire", steps=1)
    graph["sample"]["inputs"] |= wire
    with pytest.raises(Failed, match=re.escape(sentence)) as failed:
        server.run(graph)
    assert failed.value.node == "KSampler"


def test_a_range_that_is_none(server: Server) -> None:
    with pytest.raises(Failed, match=re.escape("Depth option 'start' must not be greater than 'end'.")) as failed:
        server.run(img2img("start", controls={"start": 0.8, "end": 0.2}))
    assert failed.value.node == "Depth2ImgApplyDepth"
