"""What the page needs to show a depth map: the map with all its bits, the picture, and what is known about both.

The page adjusts the map itself, so it gets the map as it is before `adjust`, once.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import io
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ..depth.conditioning import FLAT
from ..depth.depth_map import COLOUR_MAPS, DepthMap, Span
from ..errors import NoDepthError
from ..io.images import Picture

LONGEST_SIDE: Final = 1024
"""A larger map or picture is sent to the page at this size; jobs always use the whole one."""

THUMB_SIDE: Final = 160
"""Longest side of the small whole picture on which a crop box is drawn."""

FULL_SCALE: Final = 2**24 - 1
"""Three bytes per value: with the steepest gamma two are visibly too few."""

TEMPORARY: Final = "depth2img-map-"
"""How the names of temporary folders with a map begin."""

OLD_SECONDS: Final = 3600
"""After so long nobody uses what lies in such a folder."""

UPSIDE_DOWN: Final = 0.2
"""How much nearer the upper quarter must be than the lower one before a map is suspected to have black in front."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a frame lies in its picture: by these the page brings a painted region to the whole picture.

    Attributes:
        picture: width and height of the whole picture.
        frame: width and height of the sampler's frame.
        mode: number of the resize mode, see `geometry.RESIZE_MODES`.
        box: the part of the picture that the frame is made of, left, top, right, bottom in pixels; None for all of it.
    """

    picture: tuple[int, int]
    frame: tuple[int, int]
    mode: int
    box: tuple[int, int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """One preview.

    Attributes:
        depth: the map in the frame, before `adjust`.
        picture: uint8 (H, W, 3), the picture as it enters the sampler; None if there is none.
        whole: uint8 (H, W, 3), the whole picture, where only a part of it enters the sampler.
        box: that part: left, top, right, bottom in pixels of `whole`, ends excluded.
        own: whether the map is the user's.
        cut: whether the map covers `whole`, so that the page cuts the box out after it has adjusted the map.
        span: the values that are farthest and nearest, in the map's own; None for its extremes.
        place: where the frame lies; None if the map covers the whole picture.
        remark: a sentence for the user, empty for none.
    """

    depth: DepthMap
    picture: Picture | None = None
    whole: Picture | None = None
    box: tuple[int, int, int, int] | None = None
    own: bool = False
    cut: bool = False
    span: Span | None = None
    place: Place | None = None
    remark: str = ""


class Kept:
    """The latest previews by their id, which only the page that shows them knows."""

    def __init__(self, limit: int = 8) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._views: OrderedDict[str, View] = OrderedDict()

    def put(self, name: str, view: View) -> None:
        """Keep a view; the oldest goes where there are too many."""
        with self._lock:
            self._views[name] = view
            while len(self._views) > self._limit:
                self._views.popitem(last=False)

    def get(self, name: str) -> View | None:
        """The view of that id, None if it is gone."""
        with self._lock:
            return self._views.get(name)


KEPT: Final = Kept()


def looks_inverted(depth: DepthMap) -> bool:
    """Whether a map looks as if black were near: its upper quarter lies clearly nearer than its lower one.

    A guess, good enough to ask the user and not good enough to act upon: floors and tables are nearer below.
    """
    low, high = depth.range
    if high <= low:
        return False
    values = depth.normalised()
    quarter = max(1, depth.height // 4)
    return float(values[:quarter].mean() - values[-quarter:].mean()) > UPSIDE_DOWN


def to_html(view: View | None, *, sentence: str = "") -> str:
    """The hidden element that the page reads; a new one each time, so that the page notices it.

    Args:
        view: what to show, None if there is nothing.
        sentence: what went wrong, where something did.
    """
    content: dict[str, Any] = {"id": uuid.uuid4().hex, "error": sentence}
    if view is not None:
        KEPT.put(content["id"], view)
        low, high = view.depth.range if view.span is None else view.span
        small = bounded(view.depth)
        content |= {
            "depth": _url(encode_map(small, low, high), "png"),
            "size": [small.width, small.height],
            "range": [low, high],
            "inverted": view.own and looks_inverted(view.depth),
        }
        if view.place is not None:
            content["place"] = dataclasses.asdict(view.place)
        if view.picture is not None:
            content["picture"] = _url(_jpeg(view.picture, LONGEST_SIDE), "jpeg")
        if view.whole is not None and view.box is not None:
            height, width = view.whole.shape[:2]
            left, top, right, bottom = view.box
            content["whole"] = _url(_jpeg(view.whole, THUMB_SIDE), "jpeg")
            content["cut"] = view.cut
            content["box"] = [left / width, top / height, right / width, bottom / height]
    return f'<span hidden data-view="{html.escape(json.dumps(content))}"></span>'


def bounded(depth: DepthMap) -> DepthMap:
    """The map with no side longer than `LONGEST_SIDE`."""
    scale = LONGEST_SIDE / max(depth.width, depth.height)
    if scale >= 1:
        return depth
    return depth.resized(max(1, round(depth.width * scale)), max(1, round(depth.height * scale)))


def encode_map(depth: DepthMap, low: float, high: float) -> bytes:
    """The map as an RGB PNG, low..high stretched to 0..`FULL_SCALE`: red is the high byte, blue the low one.

    Browsers bring 16-bit PNGs down to 8 bits; three channels of 8 bits come through. A flat range gives the middle;
    values outside of the range are limited to it.
    """
    span = high - low
    unit = (depth.values.astype(np.float64) - low) / span if span > 0 else np.full(depth.values.shape, 0.5)
    codes = np.round(np.clip(unit, 0.0, 1.0) * FULL_SCALE).astype(np.uint32)
    blue, green, red = codes & 255, codes >> 8 & 255, codes >> 16
    done, content = cv2.imencode(".png", np.stack([blue, green, red], axis=2).astype(np.uint8))
    assert done
    return bytes(content.tobytes())


def colour_tables() -> dict[str, str]:
    """Colour map -> its 256 colours, far to near, as base64 of RGB bytes."""
    ramp = np.arange(256, dtype=np.uint8)[None]
    tables: dict[str, str] = {}
    for name, number in COLOUR_MAPS.items():
        colours: npt.NDArray[Any] = np.repeat(ramp[:, :, None], 3, axis=2)
        if number is not None:
            colours = np.asarray(cv2.applyColorMap(ramp, number))[:, :, ::-1]
        tables[name] = base64.b64encode(np.ascontiguousarray(colours).tobytes()).decode()
    return tables


def _jpeg(picture: Picture, longest: int) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92, subsampling=0)
    return content.getvalue()


def _url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def as_file(name: str) -> Path:
    """The map of a kept preview as a file with its raw values, in a temporary folder of its own.

    Whoever uses it takes a copy at once, as `gr.File` does. A server may be stopped without a word, so nothing goes
    with the process: each call removes what earlier ones left an hour ago.

    Only the part that was worked on is known where there is a box; it is put in its place, with the farthest around.

    Raises:
        NoDepthError: there is no such preview any more.
    """
    view = KEPT.get(name)
    if view is None:
        raise NoDepthError("No depth map is shown.", fix="Press 'Estimate depth' first.")
    depth = view.depth
    if view.box is not None and view.whole is not None and not view.cut:
        left, top, right, bottom = view.box
        values = np.full(view.whole.shape[:2], depth.range[0], np.float32)
        values[top:bottom, left:right] = depth.resized(right - left, bottom - top).values
        depth = dataclasses.replace(depth, values=values)
    _sweep()
    path = Path(tempfile.mkdtemp(prefix=TEMPORARY)) / "depth.tiff"
    depth.save(path)
    return path


def _sweep() -> None:
    """Remove the folders of `as_file` that are older than `OLD_SECONDS`, those of earlier processes too."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            # A link, or what another user has put there under our name, is left alone: only a folder is removed, with
            # what lies in it, and the system refuses where it is another's.
            with contextlib.suppress(OSError):
                folder = entry.name.startswith(TEMPORARY) and entry.is_dir(follow_symlinks=False)
                if folder and time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD_SECONDS:
                    shutil.rmtree(entry.path, ignore_errors=True)


def describe(depth: DepthMap, *, seconds: float | None = None) -> str:
    """One line: where the map comes from, its size, bits and range, and how long it took."""
    low, high = depth.range
    bits = f", {depth.bits} bits" if depth.bits else ""
    time = "" if seconds is None else f", {seconds:.2f} s"
    is_flat = high - low <= FLAT * max(abs(low), abs(high))
    flat = " The map is flat: it says nothing about depth." if is_flat else ""
    notice = f" {depth.notice}" if depth.notice else ""
    return f"{depth.origin}, {depth.width} x {depth.height}{bits}, values {low:.6g} to {high:.6g}{time}.{flat}{notice}"
