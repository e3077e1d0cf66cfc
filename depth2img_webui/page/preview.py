"""The buttons of the panel: the depth map of the picture in the open tab, of the latest job, and once more."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any, Final

import cv2
import numpy as np
import torch
from modules import call_queue, devices, images, masking, processing, shared
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from depth2img import Depth2ImgError, NoDepthError, PictureError
from depth2img.depth import placement
from depth2img.depth.adjustments import sequence_span
from depth2img.gui import panel, view
from depth2img.io.images import FloatPicture, Picture, check_size, read_picture
from depth2img.options import ADJUSTMENTS, OPTIONS

from .. import estimators, settings
from ..jobs import maps, place
from ..jobs.job import JOB, Job, load, read_options

TABS: Final = ("img2img_image", "img2img_sketch", "img2maskimg", "inpaint_sketch", "img_inpaint_base")
"""The host's picture components, by the number of the tab (`get_tab_index('mode_img2img')`)."""

SKETCH_TAB: Final = TABS.index("inpaint_sketch")
SKETCH_ORIGINAL: Final = "inpaint_sketch_original"
"""Our own name for the state behind `inpaint_sketch`, which has no id."""

SETTINGS: Final = {
    "img_inpaint_mask": "mask",
    "img2img_mask_blur": "mask_blur",
    "img2img_mask_alpha": "mask_alpha",
    "img2img_mask_mode": "mask_invert",
    "img2img_inpainting_fill": "fill",
    "img2img_inpaint_full_res": "only_masked",
    "img2img_inpaint_full_res_padding": "padding",
    "resize_mode": "resize_mode",
    "img2img_width": "width",
    "img2img_height": "height",
    "img2img_scale": "scale",
    SKETCH_ORIGINAL: "original",
}
"""The host's other components -> field of `Form`."""

HOST_IDS: Final = {
    "img2img": (*TABS, *(name for name in SETTINGS if name != SKETCH_ORIGINAL)),
    "txt2img": ("txt2img_width", "txt2img_height"),
}
"""The host's components that `connect` needs, by tab, apart from `generation_info_...`, which comes last."""

# The open tabs have no component of their own: the page fills in the first two values. Only the open tab's picture is
# sent, since pictures travel as text with every event.
COLLECT: Final = f"""(tab, by, ...rest) => {{
    const open = get_tab_index('mode_img2img');
    const sent = rest.map((value, i) => i < {len(TABS)} && i !== open ? null : value);
    return [open, get_tab_index('img2img_tabs_resize'), ...sent];
}}"""

LATENT_UPSCALE: Final = placement.RESIZE_MODES.index("Just resize (latent upscale)")

PREVIEWS: Final = view.Previews()

PAGES: Final = {
    "img2img": panel.Surroundings(
        watch=[
            "#mode_img2img",
            "#resize_mode",
            "#img2img_tabs_resize",
            "#img2img_mask_mode",
            "#img2img_mask_blur",
            "#img2img_inpainting_fill",
            "#img2img_inpaint_full_res",
            "#img2img_inpaint_full_res_padding",
        ],
        width="img2img_width",
        height="img2img_height",
        result="#img2img_gallery .preview > img, #img2img_gallery img",
    ),
    "txt2img": panel.Surroundings(
        watch=["#txt2img_width", "#txt2img_height"],
        width="txt2img_width",
        height="txt2img_height",
        result="#txt2img_gallery .preview > img, #txt2img_gallery img",
    ),
}


def page(tab: str) -> panel.Surroundings:
    """What is around the panel of a tab."""
    return dataclasses.replace(PAGES[tab], colours=settings.colour_map(), estimators=estimators.POOL.names())


@dataclasses.dataclass(frozen=True)
class Form:
    """What the img2img page holds besides the pictures of its tabs; the values are the host's own."""

    mask: Any = None
    mask_blur: float = 4
    mask_alpha: float = 0
    mask_invert: int = 0
    fill: int = 1
    only_masked: int = 0
    padding: float = 32
    resize_mode: int = 0
    width: float = 512
    height: float = 512
    scale: float = 1
    original: Any = None


@dataclasses.dataclass(frozen=True)
class Framed:
    """A picture on its way into the sampler.

    Attributes:
        picture: uint8 (h, w, 3) as it enters; None without one.
        size: width and height of the sampler's frame.
        resize_mode: the host's.
        whole: uint8 (H, W, 3), the whole picture, where only a part enters.
        paste_to: that part as the host notes it: left, top, width, height.
        original: the picture as it was opened.
        mask: white = repaint, at the size of the frame, or of the whole picture where only a part enters.
    """

    picture: Picture | None
    size: tuple[int, int]
    resize_mode: int = place.CROP_AND_RESIZE
    whole: Picture | None = None
    paste_to: tuple[int, int, int, int] | None = None
    original: Image.Image | None = None
    mask: Image.Image | None = None


def frame(tab: int, scale_tab: int, pictures: tuple[Any, ...], form: Form) -> Framed:
    """The picture of the open tab as the host will bring it to the sampler.

    The steps are those of `img2img()` (modules/img2img.py) and `StableDiffusionProcessingImg2Img.init`
    (modules/processing.py) and call the same functions of the host.
    """
    held = pictures[tab] if 0 <= tab < len(pictures) else None
    image, mask = _opened(tab, held, form)
    width, height = int(form.width), int(form.height)
    if scale_tab == 1 and image is not None:
        width, height = int(image.width * form.scale), int(image.height * form.scale)
    check_size(width, height)
    if image is None:
        return Framed(None, (width, height), int(form.resize_mode))
    check_size(*_largest_on_the_way(image.size, width, height))
    flat = images.flatten(image, shared.opts.img2img_background_color)
    box = _crop_box(mask, form, width, height)
    whole = np.asarray(flat) if box is not None else None
    if box is not None:
        flat = images.resize_image(placement.RESIZE_AND_FILL, flat.crop(box), width, height)
        overlay = mask
        mask = images.resize_image(placement.RESIZE_AND_FILL, mask.convert("L").crop(box), width, height)
    elif form.resize_mode != LATENT_UPSCALE:
        flat = images.resize_image(int(form.resize_mode), flat, width, height)
    if mask is not None and box is None:
        mask = None if form.only_masked else images.resize_image(int(form.resize_mode), mask, width, height)
    if mask is not None and form.fill != 1:
        flat = masking.fill(flat, mask)
    paste_to = None if box is None else (box[0], box[1], box[2] - box[0], box[3] - box[1])
    shown = mask if box is None else overlay
    return Framed(read_picture(flat), (width, height), int(form.resize_mode), whole, paste_to, image, shown)


def _largest_on_the_way(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """What "Crop and resize" makes of a picture before it crops: a strip becomes very long."""
    scale = max(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _opened(tab: int, held: Any, form: Form) -> tuple[Any, Any]:
    """Picture and mask (blurred, None without one) of the open tab."""
    image, mask = held, None
    if isinstance(held, dict):
        image, mask = held["image"], held["mask"]
    elif tab == SKETCH_TAB and held is not None:
        original = form.original if isinstance(form.original, Image.Image) else held
        drawn = np.any(np.array(held) != np.array(original), axis=-1) if original.size == held.size else None
        if drawn is not None:
            mask = ImageEnhance.Brightness(Image.fromarray(drawn.astype(np.uint8) * 255, "L")).enhance(
                1 - form.mask_alpha / 100
            )
            blur = ImageFilter.GaussianBlur(form.mask_blur)
            image = Image.composite(held.filter(blur), original, mask.filter(blur))
    elif tab == TABS.index("img_inpaint_base"):
        mask = form.mask
    image, mask = images.fix_image(image), images.fix_image(mask)
    if mask is None or image is None:
        return image, None
    mask = processing.create_binary_mask(mask)
    if form.mask_invert:
        mask = ImageOps.invert(mask)
    if form.mask_blur > 0:
        side = 2 * int(2.5 * form.mask_blur + 0.5) + 1
        blurred = cv2.GaussianBlur(np.array(mask), (side, 1), form.mask_blur)
        mask = Image.fromarray(cv2.GaussianBlur(blurred, (1, side), form.mask_blur))
    return image, mask


def _crop_box(mask: Any, form: Form, width: int, height: int) -> tuple[int, int, int, int] | None:
    if mask is None or not form.only_masked:
        return None
    box = masking.get_crop_region_v2(mask.convert("L"), int(form.padding))
    if not box:
        return None
    left, top, right, bottom = masking.expand_crop_region(box, width, height, mask.width, mask.height)
    return left, top, right, bottom


def show(framed: Framed, args: tuple[Any, ...]) -> tuple[str, str]:
    """Data and message for the panel.

    Args:
        framed: the picture of the open tab and its frame.
        args: the script's arguments, as in a job.
    """
    try:
        return call_queue.wrap_queued_call(_show)(framed, args)
    except Depth2ImgError as error:
        return failed(error)


def failed(error: Depth2ImgError) -> tuple[str, str]:
    """Data and message of an error."""
    return view.to_html(None, sentence=str(error)), panel.note(str(error), "bad")


def _show(framed: Framed, args: tuple[Any, ...]) -> tuple[str, str]:
    started = time.perf_counter()
    job = load(read_options((True, *args[1:])))
    model, options = shared.sd_model, job.options
    comments: list[str] = []
    p = _like_a_job(framed, comments)
    whole = True
    if job.own is not None and options.source == "map":
        raw = job.own
    elif job.reference is not None:
        raw = maps.estimate(job.reference, model, options.estimator)
    elif framed.picture is None:
        raise PictureError("There is no picture in the open tab.", fix="Put one there first.")
    elif place.estimates_on_original(p, options):
        raw = maps.estimate(place.original(p, 0), model, options.estimator)
    else:
        raw, whole = maps.estimate(_exact(framed.picture), model, options.estimator), False
    own = job.own if options.under_mask == "map" else None
    # With the adjustments at their defaults `raw` is what the page adjusts.
    span = sequence_span(options, [raw])
    plain = dataclasses.replace(options, **{name: OPTIONS[name].default for name in ADJUSTMENTS})
    if whole:
        placed = place.of_picture(p, raw, plain, own, framed.mask, span=span)
        if options.source != "picture":
            place.tell_proportions(p, raw, "depth map")
    else:
        placed = place.of_frame(p, raw, plain, own, framed.mask, span)
    devices.torch_gc()
    picture = framed.picture if framed.picture is not None else _in_frame(p, job.reference)
    shown = view.View(
        placed.raw,
        picture,
        framed.whole,
        place.box_of(p),
        own=options.source == "map",
        cut=whole,
        span=placed.span,
        framing=_place(p),
    )
    text = " ".join([view.describe(raw, seconds=time.perf_counter() - started), *comments])
    return PREVIEWS.show(shown), panel.note(text)


def _in_frame(p: Any, picture: Picture | None) -> Picture | None:
    """Another picture as its map is brought into the frame, so that both lie over each other."""
    if picture is None:
        return None
    return read_picture(images.resize_image(place.CROP_AND_RESIZE, Image.fromarray(picture), p.width, p.height))


def _place(p: Any) -> view.Framing:
    """Where the frame of a job, or of what is like one, lies in its picture."""
    to, pictures = place.placement_of(p), getattr(p, "init_images", None)
    size = pictures[0].size if to.box is None and pictures else to.covers
    return view.Framing(size, to.frame, to.resize_mode, to.box)


def _exact(picture: Picture) -> FloatPicture:
    """The picture to the last bit as a job gets it, so that the job finds the map in the cache."""
    channels = np.moveaxis(picture.astype(np.float32) / 255.0, 2, 0)
    return maps.pictures_of(torch.from_numpy(channels)[None].to(devices.dtype_vae) * 2 - 1)[0]


def _like_a_job(framed: Framed, comments: list[str]) -> Any:
    """What `place` reads of a job."""
    job = SimpleNamespace(
        width=framed.size[0],
        height=framed.size[1],
        resize_mode=framed.resize_mode,
        paste_to=framed.paste_to,
        inpaint_full_res=framed.paste_to is not None,
        mask_for_overlay=framed.mask,
        comment=comments.append,
    )
    if framed.original is not None:
        job.init_images = [framed.original]
    return job


class Jobs:
    """The maps of the latest jobs, by what the host tells the page about a job."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._views: OrderedDict[str, view.View] = OrderedDict()

    @staticmethod
    def name(timestamp: str, seeds: Any) -> str:
        """The key of a job: when it began, and its seeds."""
        return json.dumps([timestamp, list(map(int, seeds))])

    def put(self, name: str, shown: view.View) -> None:
        """Keep one."""
        self._views[name] = shown
        while len(self._views) > self._limit:
            self._views.popitem(last=False)

    def get(self, info: str) -> view.View:
        """The maps of the job that `generation_info` (JSON) describes.

        Raises:
            NoDepthError: there was no job, it had no depth, or it is too long ago.
        """
        try:
            told = json.loads(info)
            found = self._views.get(self.name(told["job_timestamp"], told["all_seeds"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            found = None
        if found is None:
            raise NoDepthError("No depth map of a job is at hand.", fix="Generate with depth first.")
        return found


JOBS: Final = Jobs()


def keep(p: Any, processed: Any) -> None:
    """Keep what a finished job used, for `recall`; `processed` is the host's result."""
    job: Job | None = getattr(p, JOB, None)
    placed = None if job is None else next((one for used in job.used.values() for one in used), None)
    if job is None or placed is None:
        return
    picture = np.round(np.clip(job.seen[0], 0, 1) * 255).astype(np.uint8) if job.seen else _in_frame(p, job.reference)
    box = place.placement_of(p).box
    shown = view.View(
        placed.raw,
        picture,
        None if box is None else place.original(p, 0),
        box,
        cut=placed.whole is not None,
        span=sequence_span(job.options, []),
        framing=_place(p),
    )
    JOBS.put(Jobs.name(shared.state.job_timestamp, processed.all_seeds), shown)


def recall(info: str) -> tuple[str, str]:
    """Data and message for the map of the latest job."""
    try:
        shown = JOBS.get(info)
    except NoDepthError as error:
        return failed(error)
    return PREVIEWS.show(shown), panel.note("Of the latest job: " + view.describe(shown.depth))


def connect(*, tab: str, built: panel.Panel, toggle: Any, host: dict[str, Any]) -> None:
    """Wire the panel's buttons; called when all components of the tab exist.

    Args:
        tab: `img2img` or `txt2img`.
        built: the panel.
        toggle: the header's switch, first of the script's arguments.
        host: the host's components by element id.
    """
    from depth2img_webui.page import checkpoints, fetching, status

    controls = [toggle, *built.controls.values()]
    outputs = [built.data, built.message]
    if tab == "txt2img":
        size = [host["txt2img_width"], host["txt2img_height"]]

        def on_txt2img(width: float, height: float, *args: Any) -> tuple[str, str]:
            if args[1] == "picture":
                return failed(
                    NoDepthError(
                        "There is nothing to estimate depth from.",
                        fix="Choose another picture or a depth map under 'Depth from'.",
                    )
                )
            return show(Framed(None, (int(width), int(height))), args)

        asked = built.estimate.click(fn=on_txt2img, inputs=[*size, *controls], outputs=outputs, show_progress="hidden")
    else:
        pictures = [host[elem_id] for elem_id in TABS]
        names = [elem_id for elem_id in SETTINGS if elem_id in host]
        count, end = len(pictures), len(pictures) + len(names)

        def on_img2img(mode: float, scale_tab: float, *values: Any) -> tuple[str, str]:
            form = Form(**{SETTINGS[name]: value for name, value in zip(names, values[count:end], strict=True)})
            try:
                framed = frame(int(mode), int(scale_tab), values[:count], form)
            except Depth2ImgError as error:
                return failed(error)
            return show(framed, values[end:])

        numbers = [host["img2img_width"], host["img2img_height"]]
        inputs = [*numbers, *pictures, *(host[name] for name in names), *controls]
        asked = built.estimate.click(fn=on_img2img, _js=COLLECT, inputs=inputs, outputs=outputs, show_progress="hidden")
    built.interrupt.click(fn=None, inputs=[], outputs=[], cancels=[asked])
    info = host[f"generation_info_{tab}"]
    built.recall.click(fn=recall, inputs=[info], outputs=outputs, show_progress="hidden")
    panel.connect_reuse(built, tab, PREVIEWS)
    line = [built.status, built.install]
    known = [*line, built.controls["estimator"]]
    built.refresh.click(fn=status.show, inputs=[], outputs=known, show_progress="hidden", queue=False)
    built.install.click(fn=status.install, inputs=[], outputs=line)
    checkpoints.connect(built.below)
    fetching.connect(built.below.fetching)
