"""Previews: the data that the page needs to show a depth map at full precision, with its picture.

The page adjusts the map itself, so it receives the map once, before `adjust`.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
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

from ..depth.colour_maps import COLOUR_MAPS
from ..depth.depth_map import DepthMap, Span, is_flat
from ..depth.hints import looks_inverted
from ..depth.placement import Box, Placement
from ..errors import NoDepthError
from ..io.images import Picture

LONGEST_SIDE: Final = 1024
"""A larger map or picture is sent to the page at this size; jobs always use the whole one."""

THUMB_SIDE: Final = 160
"""Longest side of the thumbnail of the whole picture, on which the crop box is drawn."""

FULL_SCALE: Final = 2**24 - 1
"""Three bytes per value: with the steepest gamma, two are visibly too few."""

TEMPORARY: Final = "depth2img-map-"
"""Prefix of temporary folders that hold a map."""

OLD_SECONDS: Final = 3600
"""Age, in seconds, after which a temporary folder counts as abandoned."""


@dataclasses.dataclass(frozen=True)
class View:
    """One preview.

    Attributes:
        depth: the map in the frame, before `adjust`.
        picture: uint8 (H, W, 3), the picture as it enters the sampler; None if there is none.
        whole: uint8 (H, W, 3), the whole picture, if only a part of it, the box of `placement`, enters the sampler.
        placement: where the frame lies, by which the page maps a painted region back to the whole picture; None if the
            map covers the whole picture.
        own: whether the user supplied the map.
        cut: whether the map covers `whole`, so that the page crops it to the box after adjusting it.
        span: farthest and nearest value, in the map's own units; None for its extremes.
        remark: a sentence for the user; empty for none.
        result: whether the result that the page shows was made with this map.
    """

    depth: DepthMap
    picture: Picture | None = None
    whole: Picture | None = None
    placement: Placement | None = None
    own: bool = False
    cut: bool = False
    span: Span | None = None
    remark: str = ""
    result: bool = False

    @property
    def box(self) -> Box | None:
        """The part of `whole` that enters the sampler; None for all of it."""
        return None if self.placement is None else self.placement.box


class Previews:
    """The latest previews by their id, which only the page that shows them knows."""

    def __init__(self, limit: int = 8) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._views: OrderedDict[str, View] = OrderedDict()

    def put(self, name: str, view: View) -> None:
        """Keep a view; beyond the limit, the oldest is dropped."""
        with self._lock:
            self._views[name] = view
            while len(self._views) > self._limit:
                self._views.popitem(last=False)

    def get(self, name: str) -> View | None:
        """Return the view with that id, None if it has been dropped."""
        with self._lock:
            return self._views.get(name)

    def show(self, view: View) -> str:
        """Keep a view under a new id, and return the element that shows it; see `to_html`."""
        name = _new_id()
        self.put(name, view)
        return to_html(view, name=name)

    def as_file(self, name: str) -> Path:
        """Write the map of a kept view to a TIFF with its raw values, in a temporary folder of its own.

        The caller copies it at once, as `gr.File` does. A server may be killed, so nothing relies on a clean exit:
        each call removes the folders that earlier ones left more than an hour ago.

        If only the part inside a box is known, it is pasted into a map of the whole picture whose other values are the
        farthest one.

        Raises:
            NoDepthError: there is no such preview any more.
        """
        view = self.get(name)
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


def to_html(view: View | None, *, sentence: str = "", name: str = "") -> str:
    """Make the hidden element that the page reads.

    Args:
        view: what to show; None to show nothing.
        sentence: what went wrong, if anything did.
        name: the id under which the view is kept; by default a new one, so that the page notices the change.
    """
    content: dict[str, Any] = {"id": name or _new_id(), "error": sentence}
    if view is not None:
        low, high = view.depth.range if view.span is None else view.span
        small = bounded(view.depth)
        content |= {
            "depth": _url(encode_map(small, low, high), "png"),
            "size": [small.width, small.height],
            "range": [low, high],
            "result": view.result,
            "inverted": view.own and not view.depth.distances and looks_inverted(view.depth),
        }
        if view.placement is not None:
            content["placement"] = dataclasses.asdict(view.placement)
        if view.picture is not None:
            content["picture"] = _url(_jpeg(view.picture, LONGEST_SIDE), "jpeg")
        if view.whole is not None and view.box is not None:
            height, width = view.whole.shape[:2]
            left, top, right, bottom = view.box
            content["whole"] = _url(_jpeg(view.whole, THUMB_SIDE), "jpeg")
            content["cut"] = view.cut
            content["box"] = [left / width, top / height, right / width, bottom / height]
    return f'<span hidden data-view="{html.escape(json.dumps(content))}"></span>'


@functools.cache
def sample() -> str:
    """Return the sample scene as a data URL."""
    return _url((Path(__file__).parents[1] / "embedded" / "sample" / "scene.png").read_bytes(), "png")


def _new_id() -> str:
    return uuid.uuid4().hex


def bounded(depth: DepthMap) -> DepthMap:
    """Shrink a map so that no side is longer than `LONGEST_SIDE`."""
    scale = LONGEST_SIDE / max(depth.width, depth.height)
    if scale >= 1:
        return depth
    return depth.resized(max(1, round(depth.width * scale)), max(1, round(depth.height * scale)))


def encode_map(depth: DepthMap, low: float, high: float) -> bytes:
    """Encode a map as an RGB PNG, low..high stretched to 0..`FULL_SCALE`: red is the high byte, blue the low one.

    Browsers reduce 16-bit PNGs to 8 bits, but keep three channels of 8 bits. A flat range (`is_flat`) gives the middle;
    values outside the range are clipped.
    """
    flat = is_flat(low, high)
    unit = np.full(depth.values.shape, 0.5) if flat else (depth.values.astype(np.float64) - low) / (high - low)
    codes = np.round(np.clip(unit, 0.0, 1.0) * FULL_SCALE).astype(np.uint32)
    blue, green, red = codes & 255, codes >> 8 & 255, codes >> 16
    done, content = cv2.imencode(".png", np.stack([blue, green, red], axis=2).astype(np.uint8))
    assert done
    return bytes(content.tobytes())


def colour_tables() -> dict[str, str]:
    """Return colour map -> its 256 colours, far to near, as base64 of RGB bytes."""
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


def _sweep() -> None:
    """Remove folders of `as_file` that are older than `OLD_SECONDS`, including those of earlier processes."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            # Links are left alone, and the system refuses to remove folders of other users.
            with contextlib.suppress(OSError):
                folder = entry.name.startswith(TEMPORARY) and entry.is_dir(follow_symlinks=False)
                if folder and time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD_SECONDS:
                    shutil.rmtree(entry.path, ignore_errors=True)


def describe(depth: DepthMap, *, seconds: float | None = None) -> str:
    """Describe a map in one line: its origin, size, bits and range, and how long it took."""
    low, high = depth.range
    bits = f", {depth.bits} bits" if depth.bits else ""
    time = "" if seconds is None else f", {seconds:.2f} s"
    flat = " The map is flat: it says nothing about depth." if is_flat(low, high) else ""
    notice = f" {depth.notice}" if depth.notice else ""
    return f"{depth.origin}, {depth.width} x {depth.height}{bits}, values {low:.6g} to {high:.6g}{time}.{flat}{notice}"
