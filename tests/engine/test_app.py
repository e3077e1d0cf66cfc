"""The page of `depth2img app`: its logic, and that it is served on this machine only."""

from __future__ import annotations

import html
import json
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import OptionError
from depth2img.diffusion import Engine
from depth2img.diffusion.networks import build
from depth2img.options import OPTIONS, WEBUI_ONLY
from tests.engine import small

gradio = pytest.importorskip("gradio", reason="the extra 'app' is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gradio 3 and its own dependencies
    from depth2img.gui import app, panel, versions

SETTINGS = {"prompt": "a red box", "steps": 2, "width": 96, "height": 64}
DEPTH = [option.default for option in OPTIONS.values()]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32))


def drawn(*, masked: bool) -> dict[str, Any]:
    """Imitate the value of Gradio's sketch: the picture, and white strokes on black, or since Gradio 4 on nothing."""
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[20:40, 30:60] = 255 * masked
    picture = Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8))
    return {"image": picture, "mask": Image.fromarray(mask)}


def test_strokes_of_every_gradio_are_the_same_mask() -> None:
    held = drawn(masked=True)
    layer = np.dstack([np.full((64, 96, 3), 255, np.uint8), np.asarray(held["mask"])[:, :, 0]])
    now = {"background": held["image"].convert("RGBA"), "layers": [Image.fromarray(layer)], "composite": held["mask"]}
    for value in (held, now):
        picture, mask = app.picture_and_mask(value)
        assert np.array_equal(picture, held["image"]) and mask is not None
        assert np.array_equal(mask, np.asarray(held["mask"])[:, :, 0])
    empty = {"background": held["image"], "layers": [], "composite": held["image"]}
    assert app.picture_and_mask(empty)[1] is None
    with pytest.raises(OptionError, match="no picture yet"):
        app.picture_and_mask({"background": None, "layers": [], "composite": None})


def sent(data: str) -> dict[str, Any]:
    """Parse the data of the page's hidden element."""
    return json.loads(html.unescape(data.partition('data-view="')[2].rpartition('"')[0]))


def test_estimate_shows_the_map(engine: Engine) -> None:
    data, text = app.Backend(engine, None).estimate(drawn(masked=False), SETTINGS, DEPTH)
    shown = sent(data)
    assert shown["depth"].startswith("data:image/png")
    assert shown["range"][0] < shown["range"][1]
    assert "values" in text


@pytest.mark.parametrize(("size", "told"), [((64, 96), True), ((48, 32), False)])
def test_a_map_of_other_proportions_is_brought_into_the_frame_and_says_so(
    engine: Engine, tmp_path: Path, size: tuple[int, int], told: bool
) -> None:
    Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[1], size[0])).save(tmp_path / "map.png")
    page, values = app.Backend(engine, None), dict(zip(OPTIONS, DEPTH, strict=True))
    depth = list((values | {"source": "map", "depth_map": (tmp_path / "map.png").read_bytes()}).values())
    settings = SETTINGS | {"resize_mode": "crop and resize"}
    _, text = page.estimate(drawn(masked=False), settings, depth)
    page.generate(drawn(masked=False), settings, depth, session="here")
    sentence = "The depth map has other proportions (64 x 96) than the picture (96 x 64)"
    assert (sentence in text) is (sentence in panel.recalled(page.previews, page.job("here"))[1]) is told


def test_only_masked_sends_the_whole_picture_and_the_box(engine: Engine) -> None:
    settings = SETTINGS | {"inpaint_area": "only masked", "only_masked_padding": 0, "mask_blur": 0}
    shown = sent(app.Backend(engine, None).estimate(drawn(masked=True), settings, DEPTH)[0])
    left, top, right, bottom = shown["box"]
    assert (left, right) == (30 / 96, 60 / 96)
    assert 0 <= top < bottom <= 1


def test_only_masked_is_shown_with_the_whole_pictures_range(engine: Engine) -> None:
    """As the job uses it: the page gets the whole map and cuts the box out of it."""
    settings = SETTINGS | {"inpaint_area": "only masked", "only_masked_padding": 0, "mask_blur": 0}
    held = drawn(masked=True)
    shown = sent(app.Backend(engine, None).estimate(held, settings, DEPTH)[0])
    whole = engine.estimate(np.asarray(held["image"]))
    assert shown["cut"]
    assert shown["range"] == list(whole.range)
    assert shown["size"] == [whole.width, whole.height]
    entering = [{"estimate_on": "entering"}.get(name, value) for name, value in zip(OPTIONS, DEPTH, strict=True)]
    native = sent(app.Backend(engine, None).estimate(held, settings, entering)[0])
    assert not native["cut"]
    assert native["range"] != shown["range"]


def test_a_shared_range_is_shown(engine: Engine) -> None:
    """The fill of a mask has another range than the picture; the job keeps the picture's."""
    changes: dict[str, Any] = {"under_mask": "fill", "range": "shared"}
    held = drawn(masked=True)
    held["mask"] = Image.fromarray(np.pad(np.full((56, 88, 3), 255, np.uint8), ((4, 4), (4, 4), (0, 0))))
    shown = {}
    for span in ("own", "shared"):
        options = [{**changes, "range": span}.get(name, option.default) for name, option in OPTIONS.items()]
        shown[span] = sent(app.Backend(engine, None).estimate(held, SETTINGS, options)[0])["range"]
    assert shown["shared"] == list(engine.estimate(np.asarray(held["image"])).range)
    assert shown["shared"][0] < shown["own"][0] or shown["own"][1] < shown["shared"][1]


def test_depth_of_the_latest_job(engine: Engine) -> None:
    page = app.Backend(engine, None)
    assert page.job("a") is None and "depth" not in sent(panel.recalled(page.previews, None)[0])
    page.generate(drawn(masked=False), SETTINGS, DEPTH, session="a")
    found = sent(panel.recalled(page.previews, page.job("a"))[0])
    assert found["range"] == sent(page.estimate(drawn(masked=False), SETTINGS, DEPTH)[0])["range"]
    assert found["result"]
    after = page.job("a", 1)  # an appended map, which is no result
    assert after is not None and not after.result
    assert page.job("b") is None


def test_interrupt_stops_the_job_of_its_session_only(engine: Engine) -> None:
    page = app.Backend(engine, None)
    for session, count in (("a", 0), ("b", 1)):
        pictures, text = page.generate(
            drawn(masked=False), SETTINGS, DEPTH, on_step=lambda *_: page.interrupt("a"), session=session
        )
        assert len(pictures) == count
        assert ("Interrupted" in text) == (count == 0)


def test_problems_are_messages(engine: Engine) -> None:
    data, text = app.Backend(engine, None).estimate(None, SETTINGS, DEPTH)
    assert "depth" not in sent(data) and "no picture yet" in sent(data)["error"]
    assert "no picture yet" in text
    with pytest.raises(gradio.Error, match="no picture yet"):
        app.Backend(engine, None).generate(None, SETTINGS, DEPTH)


def test_generate_saves_where_it_was_told(engine: Engine, tmp_path: Path) -> None:
    depth = [name in ("enabled", "append_map", "save_map") or option.default for name, option in OPTIONS.items()]
    pictures, text = app.Backend(engine, tmp_path).generate(drawn(masked=False), SETTINGS, depth)
    assert len(pictures) == 2
    assert "00001.png" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00001-depth.png", "00001.png"]
    with pytest.raises(gradio.Error, match="no folder to save into"):
        app.Backend(engine, None).generate(drawn(masked=False), SETTINGS, depth)


def test_the_map_of_a_part_keeps_its_proportions(engine: Engine, tmp_path: Path) -> None:
    """With "only masked" the map covers the frame, not the picture."""
    settings = SETTINGS | {"inpaint_area": "only masked", "only_masked_padding": 4, "width": 64, "height": 64}
    depth = [name in ("enabled", "append_map", "save_map") or option.default for name, option in OPTIONS.items()]
    pictures, _ = app.Backend(engine, tmp_path).generate(drawn(masked=True), settings, depth)
    assert pictures[0].shape == (64, 96, 3) and pictures[1].size == (64, 64)
    with Image.open(tmp_path / "00001-depth.png") as saved:
        assert saved.size == (64, 64)


def test_strokes_are_a_mask(engine: Engine) -> None:
    settings = SETTINGS | {"mask_blur": 0, "denoising_strength": 1.0}
    held = drawn(masked=True)
    [picture], _ = app.Backend(engine, None).generate(held, settings, DEPTH)
    kept = np.asarray(held["mask"])[:, :, 0] == 0
    assert np.array_equal(picture[kept], np.asarray(held["image"])[kept])
    assert not np.array_equal(picture, np.asarray(held["image"]))


def test_page_is_served_here_and_generates(engine: Engine) -> None:
    import requests

    with socket.socket() as probe:
        probe.bind((app.HOST, 0))
        port = probe.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = app.build(engine)
        versions.serve(blocks, server_name=app.HOST, server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        config: dict[str, Any] = requests.get(f"http://{app.HOST}:{port}/config", timeout=10).json()
        labels = {part["props"].get("label") for part in config["components"]}
        assert {option.label for option in OPTIONS.values()} <= labels
        assert {"Denoising strength", "Masked content", "Result"} <= labels
        shown = {part["props"].get("label") for part in config["components"] if part["props"].get("visible")}
        assert not shown & {OPTIONS[name].label for name in WEBUI_ONLY}
    finally:
        blocks.close(verbose=False)


def test_taken_port_and_missing_folder_are_refused(engine: Engine, tmp_path: Path) -> None:
    with socket.socket() as taken, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken.bind((app.HOST, 0))
        taken.listen()
        with pytest.raises(OptionError, match="port"):
            app.serve(engine, port=taken.getsockname()[1], folder=None, open_browser=False)
    with pytest.raises(OptionError, match="no folder"):
        app.serve(engine, port=7861, folder=tmp_path / "nowhere", open_browser=False)


def test_the_page_starts_where_depth_shows_what_it_can_do(engine: Engine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gradio 3 and its own dependencies
        blocks = app.build(engine).blocks.values()
    [strength] = [one for one in blocks if getattr(one, "elem_id", None) == "app-denoising_strength"]
    assert strength.value == 0.9
