"""Show depth maps in the panel: of the picture in the open tab, and of the latest job."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import OrderedDict
from typing import Any, Final

import numpy as np
import torch
from modules import call_queue, devices, images, shared
from PIL import Image

from depth2img import Depth2ImgError, PictureError
from depth2img.depth.adjustments import sequence_span
from depth2img.depth.hints import noteworthy
from depth2img.depth.placement import ResizeMode
from depth2img.depth.resolve import Basis, resolve
from depth2img.gui import panel, view
from depth2img.io.images import FloatPicture, Picture, read_picture
from depth2img.options import ADJUSTMENTS, OPTIONS

from ..hosts import host
from ..jobs import maps, results
from ..jobs.host_frame import HostFrame
from ..jobs.request import frame_of, load, read_options, request_of
from .form import Framed

PREVIEWS: Final = view.Previews()
"""The previews that the pages of this WebUI show."""


def show(framed: Framed, args: tuple[Any, ...]) -> tuple[str, str]:
    """Estimate a map, or take the user's own, and return data and message for the panel.

    Args:
        framed: the picture of the open tab and its frame.
        args: the script's arguments, as in a job.
    """
    try:
        return call_queue.wrap_queued_call(_show)(framed, args)
    except Depth2ImgError as error:
        return failed(error)


def failed(error: Depth2ImgError) -> tuple[str, str]:
    """Return data and message of an error."""
    return view.to_html(None, sentence=str(error)), panel.note(str(error), "bad")


def _show(framed: Framed, args: tuple[Any, ...]) -> tuple[str, str]:
    started = time.perf_counter()
    options = read_options((True, *args[1:]))
    # With the adjustments at their defaults the raw map is what the page adjusts.
    plain = dataclasses.replace(options, **{name: OPTIONS[name].default for name in ADJUSTMENTS})
    request, frame = load(plain), framed.frame
    resolved = resolve(plain, frame.framings[0])
    if resolved is None or (framed.picture is None and resolved.basis in (Basis.ORIGINAL, Basis.ENTERING)):
        raise PictureError("There is no picture in the open tab.", fix="Put one there first.")
    pictures = [] if framed.picture is None else [_exact(framed.picture)]
    [raw] = maps.depths_of(request, frame, resolved.basis, pictures, host().ready())
    placed = resolved.place(raw, request.sources.own, sequence_span(plain, [raw]))
    given = resolved.basis in (Basis.OWN_MAP, Basis.REFERENCE)
    remark = frame.placement.remark(raw, "depth map") if given else ""
    devices.torch_gc()
    picture = framed.picture if framed.picture is not None else _in_frame(frame, request.sources.reference)
    shown = view.View(
        placed.raw,
        picture,
        _whole(frame),
        frame.placement,
        own=resolved.basis is Basis.OWN_MAP,
        cut=placed.whole is not None,
        span=placed.span,
    )
    told = noteworthy(request.sources.own, options)
    text = " ".join(filter(None, [view.describe(raw, seconds=time.perf_counter() - started), remark, *told]))
    return PREVIEWS.show(shown), panel.note(text)


def _in_frame(frame: HostFrame, picture: Picture | None) -> Picture | None:
    """Bring another picture into the frame like its map, so that both lie over each other."""
    if picture is None:
        return None
    return read_picture(images.resize_image(ResizeMode.CROP_AND_RESIZE, Image.fromarray(picture), *frame.size))


def _whole(frame: HostFrame) -> Picture | None:
    """Return the whole picture, if only a part of it enters the sampler."""
    return None if frame.placement.box is None else frame.originals[0]


def _exact(picture: Picture) -> FloatPicture:
    """Convert a picture to the last bit as it reaches a job, so that the job finds the map in the cache."""
    channels = np.moveaxis(picture.astype(np.float32) / 255.0, 2, 0)
    return maps.pictures_of(torch.from_numpy(channels)[None].to(devices.dtype_vae) * 2 - 1)[0]


class Jobs:
    """The maps of the latest jobs, by the details that the host sends to the page."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._views: OrderedDict[str, dict[int, view.View]] = OrderedDict()

    @staticmethod
    def name(timestamp: str, seeds: Any) -> str:
        """Make the key of a job from the time when it began, and its seeds."""
        return json.dumps([timestamp, list(map(int, seeds))])

    def put(self, name: str, shown: dict[int, view.View]) -> None:
        """Keep the maps of one job, at least one: place of the picture in the gallery -> map."""
        self._views[name] = shown
        while len(self._views) > self._limit:
            self._views.popitem(last=False)

    def get(self, info: str, place: int = 0) -> view.View | None:
        """Return the map of a picture of the job that `generation_info` (JSON) describes.

        Args:
            info: what the host tells the page about the job.
            place: of the picture in the gallery; one without a map of its own, such as the grid, gets the first map.

        Returns:
            The map; None if there was no job, it had no depth, or it is too long ago.
        """
        try:
            told = json.loads(info)
            found = self._views.get(self.name(told["job_timestamp"], told["all_seeds"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        if found is None:
            return None
        return found.get(place) or dataclasses.replace(next(iter(found.values())), result=False)


JOBS: Final = Jobs()

MOST: Final = 64
"""Pictures of a job whose maps are kept."""


def keep(p: Any, processed: Any) -> None:
    """Keep the maps of a finished job; `processed` is the host's result, before maps are appended to it."""
    request = request_of(p)
    if request is None or not request.used:
        return
    frame, reference = frame_of(p, request), request.sources.reference
    # One per sample of a batch, in the order of the results.
    seen = [np.round(np.clip(one, 0, 1) * 255).astype(np.uint8) for one in request.seen]
    pictures = seen or [_in_frame(frame, reference)]
    shown = {}
    for number, (place, placed) in enumerate(itertools.islice(results.made_with(p, processed, request), MOST)):
        shown[place] = view.View(
            placed.raw,
            pictures[number % len(pictures)],
            _whole(frame),
            frame.placement,
            cut=placed.whole is not None,
            span=sequence_span(request.options, []),
            result=True,
        )
    if shown:
        JOBS.put(Jobs.name(shared.state.job_timestamp, processed.all_seeds), shown)
