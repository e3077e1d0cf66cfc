"""The button "Estimate depth"."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.webui_fake.page import Page
from tests.webui_fake.standin import Host, blobs, depth_of, map_file, ramp, stretched

HOST_TABS = 5
SKETCH_TAB = 3
"""img2img, sketch, inpaint, inpaint sketch, inpaint upload; batch, the sixth, shows no picture."""


@pytest.fixture
def page(host: Host) -> Page:
    return Page(host, "img2img")


def picture_of(tab: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    return blobs(20 + tab, *size)


def held(empty: tuple[int, ...] = ()) -> list[Any]:
    """Return the values of the tabs' five components: Inpaint's has a mask too, the first is RGBA."""
    pictures: list[Any] = [None if tab in empty else picture_of(tab) for tab in range(HOST_TABS)]
    if pictures[0] is not None:
        pictures[0] = pictures[0].convert("RGBA")
    if pictures[2] is not None:
        pictures[2] = {"image": pictures[2], "mask": Image.new("L", (96, 64), 255)}
    return pictures


def press(
    page: Page,
    tab: int = 0,
    pictures: list[Any] | None = None,
    *,
    scale_tab: int = 0,
    frame: tuple[Any, int, int, float] = (0, 96, 64, 1.0),
    only_masked: bool = False,
    padding: int = 32,
    **options: Any,
) -> tuple[Image.Image | None, str]:
    values = dict(zip(page_options(), page.defaults, strict=True)) | options
    around = (None, 4, 0, 0, 1, int(only_masked), padding)
    data, message = page.press(
        "Estimate depth", tab, scale_tab, *(pictures or held()), *around, *frame, *values.values()
    )
    size = frame[1:3]
    if scale_tab == 1 and (image := (pictures or held())[tab]) is not None:
        image = image["image"] if isinstance(image, dict) else image
        size = int(image.width * frame[3]), int(image.height * frame[3])
    return seen(data, size, values), message


def sent(data: str) -> dict[str, Any]:
    """Parse the data for the page."""
    return json.loads(html.unescape(data.partition('data-view="')[2].rpartition('"')[0]))


def seen(data: str, size: tuple[int, int], options: dict[str, Any]) -> Image.Image | None:
    """The map as the page shows it, at the frame's size; None if there is none."""
    from depth2img import DepthMap, DepthOptions, adjust
    from depth2img.options import ADJUSTMENTS

    url = sent(data).get("depth")
    if url is None:
        return None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(np.int64)
    depth = DepthMap(((pixels * (65536, 256, 1)).sum(axis=2) / (2**24 - 1)).astype(np.float32))
    depth = adjust(depth, DepthOptions(**{name: options[name] for name in ADJUSTMENTS}))
    return depth.resized(*size).to_image()


def same(shown: Image.Image | None, used: Image.Image) -> bool:
    """Within one of 255: the page gets 24 bits of each value."""
    assert shown is not None and shown.size == used.size
    return bool(np.abs(np.asarray(shown, int) - np.asarray(used, int)).max() <= 1)


def page_options() -> list[str]:
    from depth2img import OPTIONS

    return list(OPTIONS)


def shows(shown: Image.Image | None, picture: Image.Image, atol: float = 14) -> bool:
    assert shown is not None
    wanted = (stretched(depth_of(picture.resize(shown.size))) + 1) * 127.5
    return bool(np.abs(np.asarray(shown.convert("L"), float) - wanted).max() < atol)


def words(message: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", message))


@pytest.mark.parametrize("tab", range(HOST_TABS))
def test_each_tab_gives_its_own_picture(page: Page, tab: int) -> None:
    shown, message = press(page, tab)
    assert shows(shown, picture_of(tab))
    assert not any(shows(shown, picture_of(other)) for other in range(HOST_TABS) if other != tab)
    assert shown is not None and shown.size == (96, 64)
    assert words(message).startswith("MiDaS, 384 x 256, values ") and "depth2img-info" in message


@pytest.mark.parametrize("tab", [*range(HOST_TABS), 5, -1])
def test_an_empty_tab(page: Page, tab: int) -> None:
    shown, message = press(page, tab, held(empty=(tab,)))
    assert shown is None
    assert words(message) == "There is no picture in the open tab. Put one there first."
    assert "depth2img-bad" in message


def test_inpaint_with_an_empty_canvas(page: Page) -> None:
    pictures = held()
    pictures[2] = {"image": None, "mask": None}
    assert "no picture in the open tab" in press(page, 2, pictures)[1]


def test_the_toggle_does_not_matter(page: Page) -> None:
    """A look at the map is free even when depth is switched off."""
    assert shows(press(page, 1, enabled=False)[0], picture_of(1))


def test_transparent_parts_get_the_hosts_background(host: Host, page: Page) -> None:
    host.shared.opts.img2img_background_color = "#000000"
    pictures = held()
    pictures[0] = ramp().convert("RGBA")
    pictures[0].paste((255, 255, 255, 0), (0, 0, 48, 64))
    shown, _ = press(page, 0, pictures)
    flat = ramp()
    flat.paste((0, 0, 0), (0, 0, 48, 64))
    assert shows(shown, flat, atol=60)
    assert shown is not None and np.asarray(shown.convert("L"))[:, :46].max() < 10


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_the_frame_is_the_jobs(host: Host, page: Page, mode: int) -> None:
    """The map is the one that a job with this frame conditions on."""
    frame = (64, 96)
    shown, _ = press(page, 1, frame=(mode, *frame, 1.0), append_map=True)
    p = host.img2img(picture_of(1), resize_mode=mode, width=frame[0], height=frame[1], args=({"append_map": True},))
    used = host.run(p).images[-1]
    assert shown is not None and shown.size == used.size == frame
    assert same(shown, used)


def test_resize_by(page: Page) -> None:
    shown, _ = press(page, 1, scale_tab=1, frame=(1, 512, 512, 1.5))
    assert shown is not None and shown.size == (144, 96)
    shown, _ = press(page, 2, scale_tab=1, frame=(1, 512, 512, 0.5))
    assert shown is not None and shown.size == (48, 32)


@pytest.mark.parametrize(
    ("picture", "scale_tab", "mode", "expected"),
    [
        (ramp(100, 50), 0, 1, (1, 640, 480)),
        (ramp(100, 50), 1, 1, (1, 133, 66)),
        ({"image": ramp(100, 50), "mask": None}, 1, 2, (2, 133, 66)),
        ({"image": ramp(100, 50), "mask": None}, 0, 3, (3, 640, 480)),
        (None, 1, 0, (0, 640, 480)),
        (None, 0, 2.0, (2, 640, 480)),
    ],
)
def test_size_of_the_frame(host: Host, picture: Any, scale_tab: int, mode: Any, expected: tuple[int, int, int]) -> None:
    """Cut to whole pixels, not rounded: the host's `int(...)`."""
    ours = host.ours("page.form")
    form = ours.Form(resize_mode=mode, width=640.0, height=480.0, scale=1.339)
    framed = ours.frame(0, scale_tab, (picture,), form).frame
    assert (framed.resize_mode, *framed.size) == expected


def test_resize_by_with_an_empty_tab(page: Page) -> None:
    shown, message = press(page, 0, held(empty=(0,)), scale_tab=1)
    assert shown is None and "no picture in the open tab" in message


def upload(path: Path) -> Any:
    """Imitate the value of `gr.File` for a file that the page sends."""
    import gradio as gr

    data = "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()
    value = gr.File(type="file").preprocess({"name": path.name, "data": data})
    value.close()
    return value


def test_an_own_map(page: Page, tmp_path: Path) -> None:
    values = np.linspace(30_000, 30_200, 96).round().astype(np.uint16)
    path = tmp_path / "depth.png"
    Image.fromarray(np.repeat(values[None], 64, 0)).save(path)
    shown, message = press(page, 0, held(empty=(0,)), source="map", depth_map=upload(path))
    assert shown is not None and shown.size == (96, 64)
    row = np.asarray(shown.convert("L"), int)[30]
    assert row[0] == 0 and row[-1] == 255 and (np.diff(row) >= 0).all()
    assert "96 x 64, 16 bits, values 30000 to 30200" in words(message)


def test_an_own_map_is_placed_like_in_a_job(host: Host, page: Page, tmp_path: Path) -> None:
    path = map_file(depth_of(blobs(30, 192, 64)), tmp_path / "wide.npy")
    shown, message = press(page, 1, frame=(1, 96, 64, 1.0), source="map", depth_map=upload(path))
    args = ({"depth_map": path.read_bytes(), "append_map": True},)
    used = host.run(host.img2img(picture_of(1), resize_mode=1, args=args)).images[-1]
    assert same(shown, used)
    assert "192 x 64" in words(message)  # of the map as given


def test_a_reference(page: Page) -> None:
    shown, message = press(page, 0, held(empty=(0,)), source="reference", reference=blobs(31))
    assert shows(shown, blobs(31)) and words(message).startswith("MiDaS, ")


@pytest.mark.parametrize(("source", "sentence"), [("map", "Give a depth map."), ("reference", "Give a picture.")])
def test_a_chosen_source_that_is_empty(page: Page, source: str, sentence: str) -> None:
    shown, message = press(page, 0, source=source)
    assert shown is None and sentence in words(message)


def test_adjustments_are_shown(page: Page) -> None:
    plain, _ = press(page, 1)
    inverted, _ = press(page, 1, invert=True)
    assert plain is not None and inverted is not None
    total = np.asarray(plain.convert("L"), int) + np.asarray(inverted.convert("L"), int)
    assert np.abs(total - 255).max() <= 1


def test_a_fixed_range_is_shown(page: Page) -> None:
    """Values beyond it are clipped to its ends."""
    depth = depth_of(picture_of(1))
    far, near = np.quantile(depth, [0.3, 0.6])
    shown, _ = press(page, 1, range="fixed", range_far=float(far), range_near=float(near))
    assert shown is not None
    grey = np.asarray(shown.convert("L"), int)
    expected = np.clip((depth - far) / (near - far), 0, 1) * 255
    assert np.abs(grey - expected).mean() < 8 and 0.2 < (grey == 0).mean() < 0.4 and 0.3 < (grey == 255).mean() < 0.5


def test_contradicting_adjustments(page: Page) -> None:
    shown, message = press(page, 1, near=0.2, far=0.6)
    assert shown is None and "'near' must be greater than 'far'" in words(message)


def test_a_flat_map_is_called_flat(page: Page) -> None:
    pictures = held()
    pictures[0] = Image.new("RGB", (96, 64), (90, 90, 90))
    shown, message = press(page, 0, pictures)
    assert shown is not None and "The map is flat: it says nothing about depth." in words(message)


def test_a_plain_checkpoint(host: Host, page: Page, tmp_path: Path) -> None:
    host.select("plain")
    shown, message = press(page, 1)
    assert shown is None
    assert "Depth needs a depth checkpoint. Got the checkpoint 'plain'." in words(message)
    path = map_file(depth_of(ramp()), tmp_path / "map.npy")
    assert press(page, 1, source="map", depth_map=upload(path))[0] is not None  # needs no network


def test_a_message_cannot_carry_html(host: Host, page: Page) -> None:
    host.select("plain")
    host.model.sd_checkpoint_info.name_for_extra = "<script>alert(1)</script>"
    assert "<script>" not in press(page, 1)[1]


def test_it_waits_for_the_job_in_progress(host: Host, page: Page) -> None:
    """Under the host's lock while it works, and free again afterwards, also after an error."""
    locked: list[bool] = []
    inner = host.model.depth_model.forward

    def forward(x: Any) -> Any:
        locked.append(host.call_queue.queue_lock.locked())
        return inner(x)

    host.model.depth_model.forward = forward
    press(page, 1)
    press(page, 0, held(empty=(0,)))
    assert locked == [True] and not host.call_queue.queue_lock.locked()


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("tab", [0, 1, 2])
@pytest.mark.parametrize("estimate_on", ["auto", "original"])
def test_the_job_does_not_estimate_again(host: Host, page: Page, tab: int, kind: torch.dtype, estimate_on: str) -> None:
    host.devices.dtype_vae = kind
    runs = host.count_estimates()
    shown, _ = press(page, tab, frame=(1, 64, 96, 1.0), estimate_on=estimate_on)
    assert shown is not None and shown.size == (64, 96)
    picture = held()[tab]
    picture = picture["image"] if isinstance(picture, dict) else picture
    args = ({"estimate_on": estimate_on},)
    host.run(host.img2img(picture, resize_mode=1, width=64, height=96, args=args))
    assert len(runs) == 1


class TestTxt2img:
    """There is no picture: depth comes from another picture or a given map."""

    def sent(self, host: Host, **options: Any) -> str:
        page = Page(host, "txt2img")
        values = dict(zip(page_options(), page.defaults, strict=True)) | options
        return str(page.press("Estimate depth", 96, 64, *values.values())[0])

    def press(self, host: Host, **options: Any) -> tuple[Image.Image | None, str]:
        page = Page(host, "txt2img")
        values = dict(zip(page_options(), page.defaults, strict=True)) | options
        data, message = page.press("Estimate depth", 96, 64, *values.values())
        return seen(data, (96, 64), values), message

    def test_without_depth(self, host: Host) -> None:
        shown, message = self.press(host)
        assert shown is None
        assert words(message).startswith("There is nothing to estimate depth from.")
        assert "another picture or a depth map" in words(message)

    def test_a_reference(self, host: Host) -> None:
        content = sent(self.sent(host, source="reference", reference=blobs(32, 192, 64)))
        picture = Image.open(io.BytesIO(base64.b64decode(content["picture"].partition(",")[2])))
        assert picture.size == (96, 64)  # cut as its map is
        assert content["placement"] == {"picture": [96, 64], "frame": [96, 64], "box": None, "resize_mode": 1}
        shown, _ = self.press(host, source="reference", reference=blobs(32, 192, 64))
        assert shown is not None and shown.size == (96, 64)
        assert shows(shown, blobs(32, 192, 64).crop((48, 0, 144, 64)), atol=40)

    def test_as_in_a_job(self, host: Host) -> None:
        shown, _ = self.press(host, source="reference", reference=blobs(33, 192, 64))
        content = io.BytesIO()
        blobs(33, 192, 64).save(content, "PNG")
        p = host.txt2img(args=({"reference": content.getvalue(), "append_map": True},))
        assert same(shown, host.run(p).images[-1])


def test_the_refresh_button(page: Page) -> None:
    line, button, estimators = page.press("Refresh depth status")
    assert 'data-state="ready"' in line and not button["visible"]
    assert estimators["choices"] == ["checkpoint"]


@pytest.mark.parametrize("estimate_on", ["original", "entering"])
def test_only_masked_shows_where_it_is(page: Page, estimate_on: str) -> None:
    """The whole picture's map and the box to cut out of it; or the map of what was cut out."""
    pictures = held()
    mask = Image.new("L", (96, 64))
    mask.paste(255, (24, 16, 72, 48))
    pictures[2] = {"image": picture_of(2), "mask": mask}
    values = dict(zip(page_options(), page.defaults, strict=True)) | {"estimate_on": estimate_on}
    around = (None, 0, 0, 0, 1, 1, 0)
    data, _ = page.press("Estimate depth", 2, 0, *pictures, *around, 0, 96, 64, 1.0, *values.values())
    assert sent(data)["box"] == [24 / 96, 16 / 64, 72 / 96, 48 / 64]
    assert sent(data)["cut"] is (estimate_on == "original")
    expected = picture_of(2) if estimate_on == "original" else picture_of(2).crop((24, 16, 72, 48))
    assert shows(seen(data, (96, 64), values), expected, atol=40)


def test_inpaint_sketch_is_composited_like_in_a_job(host: Host) -> None:
    """Strokes are blended in by mask blur and mask transparency, over the picture without them."""
    ours = host.ours("page.form")
    original = picture_of(3)
    drawn = original.copy()
    drawn.paste((255, 0, 0), (30, 20, 60, 40))
    form = ours.Form(mask_blur=2, mask_alpha=0, original=original, width=96, height=64)
    picture = ours.frame(SKETCH_TAB, 0, (None, None, None, drawn), form).picture
    assert tuple(picture[30, 45]) == (255, 0, 0)
    assert np.abs(picture[30, 30].astype(int) - (255, 0, 0)).max() > 20  # the edge is soft
    faint = ours.frame(SKETCH_TAB, 0, (None, None, None, drawn), ours.Form(**{**vars(form), "mask_alpha": 100})).picture
    assert np.array_equal(faint, np.asarray(original))


class TestAfterAJob:
    def test_recall_shows_its_map(self, host: Host) -> None:
        page = Page(host, "img2img")
        result = host.run(host.img2img(picture_of(1), width=96, height=64))
        info = json.dumps({"job_timestamp": host.shared.state.job_timestamp, "all_seeds": result.all_seeds})
        data, message = page.press("Depth of the last job", info, "0")
        assert words(message).startswith("Of the latest job: MiDaS")
        values = dict(zip(page_options(), page.defaults, strict=True))
        assert shows(seen(data, (96, 64), values), picture_of(1))

    def test_each_picture_of_a_batch_has_its_own_map(self, host: Host) -> None:
        page = Page(host, "img2img")
        pictures = [picture_of(1), picture_of(2)]
        result = host.run(host.img2img(*pictures, batch_size=2, width=96, height=64))
        info = json.dumps({"job_timestamp": host.shared.state.job_timestamp, "all_seeds": result.all_seeds})
        values = dict(zip(page_options(), page.defaults, strict=True))
        first = result.index_of_first_image
        for number, picture in enumerate(pictures):
            for label in ("Depth of the last job", "Depth of the result"):
                data, _ = page.press(label, info, str(first + number))
                assert sent(data)["result"] and shows(seen(data, (96, 64), values), picture)
        for place in ("99", "-1", "one", "9" * 400):  # none of the pictures, or nonsense: the first map, of no result
            content = sent(page.press("Depth of the last job", info, place)[0])
            assert content["depth"] and content["result"] is (first == 0 and place != "99")

    def test_a_result_without_a_map_changes_nothing(self, host: Host) -> None:
        data, message = Page(host, "img2img").press("Depth of the result", "{}", "0")
        assert not isinstance(data, str) and not isinstance(message, str)

    def test_recall_of_only_masked_lays_map_and_picture_over_each_other(self, host: Host) -> None:
        """The whole picture's map with the box that the picture was cut from."""
        page = Page(host, "img2img")
        mask = Image.new("L", (96, 64))
        mask.paste(255, (24, 16, 72, 48))
        p = host.img2img(picture_of(1), mask=mask, inpaint_full_res=True, width=96, height=64)
        p.inpaint_full_res_padding, p.mask_blur_x, p.mask_blur_y = 0, 0, 0
        result = host.run(p)
        info = json.dumps({"job_timestamp": host.shared.state.job_timestamp, "all_seeds": result.all_seeds})
        content = sent(page.press("Depth of the last job", info, "0")[0])
        assert content["cut"] and content["box"] == [24 / 96, 16 / 64, 72 / 96, 48 / 64]
        assert content["placement"] == {
            "picture": [96, 64],
            "frame": [96, 64],
            "box": [24, 16, 72, 48],
            "resize_mode": 0,
        }
        values = dict(zip(page_options(), page.defaults, strict=True))
        assert shows(seen(page.press("Depth of the last job", info, "0")[0], (96, 64), values), picture_of(1), atol=40)

    @pytest.mark.parametrize("info", ["", "{}", '{"job_timestamp": "1999", "all_seeds": [1]}', "[]"])
    def test_without_a_job(self, host: Host, info: str) -> None:
        data, message = Page(host, "img2img").press("Depth of the last job", info, "0")
        assert "depth" not in sent(data) and "Generate with depth first" in words(message)

    def test_use_again(self, host: Host) -> None:
        from depth2img import read_depth_map

        page = Page(host, "img2img")
        values = dict(zip(page_options(), page.defaults, strict=True))
        around = (None, 4, 0, 0, 1, 0, 32)
        data, _ = page.press("Estimate depth", 1, 0, *held(), *around, 0, 96, 64, 1.0, *values.values())
        source, file, holds, channel, _ = page.press("Use this depth again", sent(data)["id"])
        assert (source["value"], holds["value"], channel["value"]) == ("map", "nearness", "")
        depth = read_depth_map(Path(file["value"]))
        assert depth.range == tuple(sent(data)["range"])
        assert "No depth map is shown" in words(page.press("Use this depth again", "another")[4])


@pytest.mark.parametrize("estimate_on", ["original", "entering"])
def test_fill_under_the_mask_of_only_masked_is_the_jobs(host: Host, estimate_on: str) -> None:
    """On the entering picture the mask is that of the frame, not that of the whole picture."""
    ours, preview = host.ours("page.form"), host.ours("page.preview")
    mask = Image.new("L", (96, 64))
    mask.paste(255, (34, 22, 58, 40))
    picture = picture_of(2)
    form = ours.Form(mask_blur=0, only_masked=1, padding=8, width=96, height=64)
    held_there = (None, None, {"image": picture, "mask": mask}, None, None)
    framed = ours.frame(2, 0, held_there, form)
    host.model.depth_model.forward = (lambda inner: lambda x: inner(x) + bump(x))(host.model.depth_model.forward)
    shown: list[Any] = []
    host.ours("page.preview").PREVIEWS.show = lambda view: shown.append(view) or ""
    options = {"estimate_on": estimate_on, "under_mask": "fill"}
    values = dict(zip(page_options(), Page(host, "img2img").defaults, strict=True)) | options
    preview.show(framed, tuple(values.values()))
    whole_mask, in_frame = framed.frame.whole_mask, framed.frame.mask
    assert whole_mask is not None and in_frame is not None
    placed = host.ours("jobs.maps").place_maps
    request = host.ours("jobs.request")
    from depth2img import DepthOptions

    asking = request.Request(DepthOptions(**options), frame=framed.frame)
    p = host.img2img(picture)
    used = placed(p, asking, [preview._exact(framed.picture)], 1, host.model)[0]
    assert np.array_equal(shown[0].depth.values, used.raw.values)
    plain = request.Request(DepthOptions(estimate_on=estimate_on), frame=framed.frame)
    kept = placed(p, plain, [preview._exact(framed.picture)], 1, host.model)[0]
    changed = np.abs(kept.raw.values - used.raw.values) > 1e-4
    mask_there = np.asarray(
        (whole_mask if estimate_on == "original" else in_frame).convert("L").resize(changed.shape[::-1])
    )
    assert changed.any() and not changed[mask_there == 0].any()


def bump(x: torch.Tensor) -> torch.Tensor:
    """Waves, so that what is filled differs from what was there."""
    return torch.sin(torch.arange(x.shape[-1]) / 3).expand(x.shape[0], 1, *x.shape[-2:]).squeeze(1)


@pytest.mark.parametrize(
    ("name", "holds", "offered"),
    [
        ("bl_Z.exr", "nearness", True),
        ("zinv.npy", "nearness", True),
        ("bl_Z.exr", "distance", False),
        ("hw.npy", "nearness", False),
    ],
)
def test_a_map_that_may_hold_distances_has_a_button(page: Page, name: str, holds: str, offered: bool) -> None:
    """It names the choice by its number, which is that of the table."""
    path = Path(__file__).parents[1] / "library" / "cases" / name
    values = dict(zip(page_options(), page.defaults, strict=True)) | {
        "source": "map",
        "depth_map": path,
        "holds": holds,
    }
    around = (None, 4, 0, 0, 1, 0, 32, 0, 96, 64, 1.0)
    _, message = page.press("Estimate depth", 0, 0, *held(), *around, *values.values())
    assert ("Use as distances</button>" in message) is offered
    if offered:
        from depth2img import OPTIONS

        [number] = re.findall(r'data-option="holds" data-choice="(\d)"', message)
        assert list(OPTIONS["holds"].choices)[int(number)] == "distance"
