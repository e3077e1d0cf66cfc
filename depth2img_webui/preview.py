"""The button "Estimate depth": the depth map of the picture in the open tab, before anything is generated."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
import torch
from modules import call_queue, devices, images, shared
from PIL import Image

from depth2img import (
    Depth2ImgError,
    NoDepthError,
    PictureError,
    adjust,
    geometry,
    panel,
)
from depth2img.conditioning import FLAT
from depth2img.images import FloatPicture, Picture, read_picture

from . import hook, place, settings

IMAGE_IDS: Final = ("img2img_image", "img2img_sketch", "img2maskimg", "inpaint_sketch", "img_inpaint_base")
"""The host's picture components, by the number of the tab (`get_tab_index('mode_img2img')`)."""

FRAME_IDS: Final = ("resize_mode", "img2img_width", "img2img_height", "img2img_scale")
SCALE_TAB_SCRIPT: Final = (
    "(tab, by, ...rest) => [get_tab_index('mode_img2img'), get_tab_index('img2img_tabs_resize'), ...rest]"
)


def show(picture: Any, frame: tuple[int, int, int] | None, args: tuple[Any, ...]) -> tuple[Any, str]:
    """Map and message for the panel.

    Args:
        picture: what the open tab holds, None if it is empty.
        frame: resize mode, width and height that the picture will be brought to; None where there is no picture.
        args: the script's arguments, as in a job.

    Returns:
        A Pillow image (None if there is no map) and a line of HTML.
    """
    try:
        return call_queue.wrap_queued_call(_show)(picture, frame, args)
    except Depth2ImgError as error:
        return None, panel.note(str(error), "bad")


def _show(picture: Any, frame: tuple[int, int, int] | None, args: tuple[Any, ...]) -> tuple[Any, str]:
    started = time.perf_counter()
    job = hook.load(hook.read_options((True, *args[1:])))
    model = shared.sd_model
    if job.own is not None and job.options.source == "map":
        depth = job.own
    elif job.reference is not None:
        depth = hook.estimate(job.reference, model)
    else:
        depth = hook.estimate(_framed(picture, frame, job.options.estimate_on), model)
    raw = depth
    if frame is not None and (job.options.source != "picture" or job.options.estimate_on == "original"):
        depth = geometry.fit(depth, width=frame[1], height=frame[2], resize_mode=frame[0])
    shown = adjust(depth, job.options)
    if frame is not None:
        shown = shown.resized(frame[1], frame[2])
    low, high = raw.range
    bits = f", {raw.bits} bits" if raw.bits else ""
    is_flat = high - low <= FLAT * max(abs(low), abs(high))
    flat = " The map is flat: it says nothing about depth." if is_flat else ""
    text = (
        f"{raw.origin}, {raw.width} x {raw.height}{bits}, values {low:.6g} to {high:.6g}, "
        f"{time.perf_counter() - started:.2f} s.{flat}"
    )
    devices.torch_gc()
    return shown.to_image(settings.colour_map()), panel.note(text)


def _framed(picture: Any, frame: tuple[int, int, int] | None, estimate_on: str) -> Picture | FloatPicture:
    """The picture as the job will estimate it: as the host will bring it to the sampler, flattened and resized, or the
    original; to the last bit the same, so that the job finds the map in the cache."""
    if isinstance(picture, dict):
        picture = picture.get("image")
    if picture is None:
        if frame is None:
            raise NoDepthError(
                "There is nothing to estimate depth from.",
                fix="Choose another picture or a depth map under 'Depth from'.",
            )
        raise PictureError("There is no picture in the open tab.", fix="Put one there first.")
    if not isinstance(picture, Image.Image):
        return read_picture(picture)
    flat = images.flatten(images.fix_image(picture), shared.opts.img2img_background_color)
    if estimate_on == "original":
        return read_picture(flat)
    if frame is not None and frame[0] != geometry.RESIZE_MODES.index("Just resize (latent upscale)"):
        flat = images.resize_image(frame[0], flat, frame[1], frame[2])
    channels = np.moveaxis(np.asarray(flat).astype(np.float32) / 255.0, 2, 0)
    return hook.pictures_of(torch.from_numpy(channels)[None].to(devices.dtype_vae) * 2 - 1)[0]


def frame_of(
    picture: Any, scale_tab: int, resize_mode: Any, width: float, height: float, scale: float
) -> tuple[int, int, int]:
    """Resize mode, width and height as `img2img()` of the host derives them from the page."""
    if isinstance(picture, dict):
        picture = picture.get("image")
    if scale_tab == 1 and isinstance(picture, Image.Image):
        width, height = picture.width * scale, picture.height * scale
    mode = geometry.RESIZE_MODES.index(resize_mode) if isinstance(resize_mode, str) else int(resize_mode)
    return mode, int(width), int(height)


def connect(*, tab: str, built: panel.Panel, toggle: Any, host: dict[str, Any]) -> None:
    """Wire the panel's buttons; called when all components of the tab exist.

    Args:
        tab: `img2img` or `txt2img`.
        built: the panel.
        toggle: the header's switch, first of the script's arguments.
        host: the host's components by element id.
    """
    from depth2img_webui import status

    controls = [toggle, *built.controls.values()]
    outputs = [built.preview, built.message]
    if tab == "txt2img":
        size = [host["txt2img_width"], host["txt2img_height"]]

        def on_txt2img(width: float, height: float, *args: Any) -> tuple[Any, str]:
            own_frame = (place.CROP_AND_RESIZE, int(width), int(height))
            return show(None, None if args[1] == "picture" else own_frame, args)

        built.estimate.click(fn=on_txt2img, inputs=[*size, *controls], outputs=outputs)
    else:
        pictures = [host[elem_id] for elem_id in IMAGE_IDS]
        frame = [host[elem_id] for elem_id in FRAME_IDS]
        count = len(pictures)

        def on_img2img(mode: float, scale_tab: float, *values: Any) -> tuple[Any, str]:
            held, (resize_mode, width, height, scale) = values[:count], values[count : count + len(frame)]
            picture = held[int(mode)] if 0 <= int(mode) < count else None
            own_frame = frame_of(picture, int(scale_tab), resize_mode, width, height, scale)
            return show(picture, own_frame, values[count + len(frame) :])

        # The open tabs have no component of their own: the page fills in the first two values.
        numbers = [host["img2img_width"], host["img2img_height"]]
        built.estimate.click(
            fn=on_img2img, _js=SCALE_TAB_SCRIPT, inputs=[*numbers, *pictures, *frame, *controls], outputs=outputs
        )
    built.refresh.click(fn=status.status_html, inputs=[], outputs=[built.status], show_progress="hidden", queue=False)


HOST_IDS: Final = {
    "img2img": (*IMAGE_IDS, *FRAME_IDS),
    "txt2img": ("txt2img_width", "txt2img_height"),
}
"""The host's components that `connect` needs, by tab."""
