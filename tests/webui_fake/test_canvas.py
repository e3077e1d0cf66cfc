"""Forge's canvas as the current picture: which components are it, and what the host makes of picture and strokes."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from tests.webui_fake.standin import Host, blobs

SKETCH, INPAINT, INPAINT_SKETCH, UPLOAD = range(1, 5)
BOX = (30, 20, 60, 40)


def strokes(opacity: int = 255) -> Image.Image:
    """Red in a box, of that opacity; nothing elsewhere."""
    drawn = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    drawn.paste((255, 0, 0, opacity), BOX)
    return drawn


def picture() -> Image.Image:
    return blobs(5).convert("RGBA")


def canvas_page(host: Host, script: Any) -> gr.Blocks:
    """A tab of the page with Forge's canvases, in the order in which Forge makes its components."""
    wiring, canvas = host.ours("page.wiring"), host.ours("page.canvas")
    with gr.Blocks() as blocks:
        for name in wiring.HOST_IDS["img2img"]:
            if name not in canvas.TABS[:UPLOAD]:
                script.after_component(gr.Number(elem_id=name))
                continue
            script.after_component(gr.HTML(elem_id=name))
            for kind in ("foreground", "background"):
                script.after_component(gr.Textbox(elem_id="uuid", elem_classes=[f"logical_image_{kind}"]))
            script.after_component(gr.HTML())
        script.ui(True)
        script.after_component(gr.Textbox(elem_id="generation_info_img2img"))
    return blocks


@pytest.fixture
def script(host: Host) -> Any:
    made = host.ours("script").DepthToImage()
    made.is_img2img, made.is_txt2img = True, False
    return made


def test_picture_and_strokes_are_found_behind_the_canvas(host: Host, script: Any) -> None:
    blocks = canvas_page(host, script)
    canvas, found = host.ours("page.canvas"), script._host
    for name in canvas.TABS[:UPLOAD]:
        assert found[name].elem_classes == ["logical_image_background"]
        assert found[f"{name}_strokes"].elem_classes == ["logical_image_foreground"]
    assert canvas.SKETCH_ORIGINAL not in found
    (estimate,) = [one for one in blocks.dependencies if (one["js"] or "").startswith("(tab, by")]
    # two that the page fills in, five pictures, four strokes, eleven fields, and the options
    given = [found["img2img_width"], found["img2img_height"], *found.named(*canvas.TABS, *canvas.STROKES)]
    assert estimate["inputs"][:11] == [component._id for component in given]
    assert "i < 5 + 4 && i % 5 !== open" in estimate["js"]


def test_a_page_with_other_picture_fields_says_so(host: Host, script: Any) -> None:
    """As ersatzForge's, which has one canvas for all tabs."""
    with gr.Blocks() as blocks:
        script.after_component(gr.HTML(elem_id="img2img_image"))
        script.ui(True)
        script.after_component(gr.Textbox(elem_id="generation_info_img2img"))
    button = next(one for one in blocks.blocks.values() if getattr(one, "value", None) == "Estimate depth")
    (index,) = [i for i, one in enumerate(blocks.dependencies) if one["targets"] == [button._id]]
    assert "page are not known, so that there is nothing to estimate" in blocks.fns[index].fn()[1]


def test_sketch_is_composited(host: Host) -> None:
    image, mask = host.ours("page.canvas").opened(SKETCH, picture(), strokes(128))
    assert mask is None
    expected = Image.alpha_composite(picture(), strokes(128))
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_inpaint_takes_the_strokes_as_mask_alone(host: Host) -> None:
    image, mask = host.ours("page.canvas").opened(INPAINT, picture(), strokes(200))
    assert np.array_equal(np.asarray(image), np.asarray(picture()))
    assert mask.getpixel((45, 30)) == 200 and mask.getpixel((5, 5)) == 0


def test_inpaint_sketch_is_composited_and_its_mask_is_wider(host: Host) -> None:
    canvas = host.ours("page.canvas")
    big = picture().resize((480, 320)), strokes().resize((480, 320), Image.Resampling.NEAREST)
    image, mask = canvas.opened(INPAINT_SKETCH, *big)
    assert tuple(image.getpixel((225, 150))[:3]) == (255, 0, 0)
    # 1.5 % of 320 pixels, rounded down, to each side: from 150 to 146.
    assert [mask.getpixel((x, 150)) for x in (145, 146, 150)] == [0, 255, 255]


@pytest.mark.parametrize("tab", [0, SKETCH, INPAINT, INPAINT_SKETCH])
def test_nothing_drawn(host: Host, tab: int) -> None:
    given = picture()
    assert host.ours("page.canvas").opened(tab, given, None) == (given, None)
    assert host.ours("page.canvas").opened(tab, None, strokes()) == (None, None)


def framed(host: Host, tab: int, given: tuple[Any, ...], **fields: Any) -> Any:
    ours = host.ours("page.form")
    form = ours.Form(**{"width": 96, "height": 64, "mask_blur": 0, "strokes": given, **fields})
    return ours.frame(tab, int(fields.get("scale", 1) != 1), (picture(),) * 5, form)


def test_a_mask_has_no_greys(host: Host) -> None:
    """Strokes of up to half their opacity do not count, those above count wholly."""
    for opacity, expected in ((128, 0), (129, 255)):
        mask = framed(host, INPAINT, (None, None, strokes(opacity), None)).frame.mask
        assert mask.convert("L").getpixel((45, 30)) == expected
    grey = Image.new("L", (96, 64), 140)
    assert framed(host, UPLOAD, (None,) * 4, mask=grey).frame.mask.convert("L").getpixel((5, 5)) == 255


def test_only_masked_goes_by_the_strokes(host: Host) -> None:
    found = framed(host, INPAINT, (None, None, strokes(), None), only_masked=1, padding=0)
    left, top, right, bottom = found.frame.box
    assert left <= BOX[0] and top <= BOX[1] and right >= BOX[2] and bottom >= BOX[3] and right - left < 60


def test_resize_by_gives_multiples_of_eight_beside_canvases(host: Host) -> None:
    assert framed(host, 0, (None,) * 4, scale=1.3).frame.size == (120, 80)  # 124.8 x 83.2
    assert framed(host, 0, None, scale=1.3).frame.size == (124, 83)
