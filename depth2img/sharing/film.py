"""The loop of the hover view as a film: GIF by Pillow, MP4 (H.264) and WebM (VP9) by PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import cv2
import numpy as np
from PIL import Image

from ..depth.depth_map import DepthMap
from ..io.images import Picture
from .relief import Relief, loop

SECONDS: Final = 3
"""Length of the loop, as the panel records it."""

CODECS: Final = {".mp4": ("mp4", "libx264", {"crf": "18"}), ".webm": ("webm", "libvpx-vp9", {"crf": "28", "b:v": "0"})}
"""Suffix -> container, encoder and its options: quality without a fixed rate."""

RATE: Final = 30
GIF_RATE: Final = 20
"""Frames a second; a GIF counts hundredths of a second, of which browsers take fewer than two for ten."""

LONGEST: Final = 1280
GIF_LONGEST: Final = 480
"""Longest side of the frames, in pixels; a GIF keeps each of them nearly whole."""

GIF_COLOURS: Final = 128


def film(picture: Picture, depth: DepthMap, suffix: str, *, movement: float = 1.0, focus: float = 0.5) -> bytes:
    """Encode one round of the hover view; the loop closes.

    Args:
        picture: uint8 (H, W, 3).
        depth: the map of the whole picture.
        suffix: one of `FILMS`.
        movement, focus: see `Relief`.

    Raises:
        ModuleNotFoundError: PyAV is missing, for anything but a GIF; the extra `film` installs it.
    """
    gif = suffix == ".gif"
    small = shrunk(picture, GIF_LONGEST if gif else LONGEST, even=not gif)
    relief = Relief.of(small, depth, movement=movement, focus=focus)
    count = SECONDS * (GIF_RATE if gif else RATE)
    frames = (relief.seen_from(*loop(index / count)) for index in range(count))
    return _gif(frames) if gif else _video(frames, suffix)


def shrunk(picture: Picture, longest: int, *, even: bool = False) -> Picture:
    """Shrink a picture, uint8 (H, W, 3), to a longest side; `even` cuts odd sides to what video encoders take."""
    height, width = picture.shape[:2]
    scale = min(1.0, longest / max(height, width))
    width, height = (max(2, round(side * scale)) for side in (width, height))
    if even:
        width, height = width // 2 * 2, height // 2 * 2
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _gif(frames: Iterator[Picture]) -> bytes:
    first, *rest = [Image.fromarray(frame) for frame in frames]
    # One palette, or colours would flicker; undithered, since the pattern would boil.
    palette = first.quantize(GIF_COLOURS)
    images = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in (first, *rest)]
    content = io.BytesIO()
    images[0].save(content, "GIF", save_all=True, append_images=images[1:], duration=1000 // GIF_RATE, loop=0)
    return content.getvalue()


def _video(frames: Iterator[Picture], suffix: str) -> bytes:
    import av

    form, codec, options = CODECS[suffix]
    content = io.BytesIO()
    with av.open(content, "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            drawn = av.VideoFrame.from_ndarray(frame, format="rgb24")
            drawn.pts, drawn.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(drawn))
        container.mux(stream.encode())
    return content.getvalue()
