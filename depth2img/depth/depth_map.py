"""The DepthMap value: normalised, resized, cropped, shown and saved."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DepthMapError
from ..io import images
from ..io.atomic import write_file
from .colour_maps import COLOUR_MAPS, check_colour_map

FLAT: Final = 1e-5
"""See `is_flat`. Bicubic resizing makes ripples of up to 3e-6 of a constant, by rounding; one step of a 16-bit map,
which is not flat, is 1.5e-5."""

LARGEST: Final = 1e30
"""Largest magnitude of a depth value, so that differences and bicubic sums stay finite in float32."""

Span = tuple[float, float]
"""Two values of a map: what counts as farthest and as nearest."""


def is_flat(low: float, high: float) -> bool:
    """Tell whether a range says nothing about depth: it is at most `FLAT` of its largest magnitude."""
    return high - low <= FLAT * max(abs(low), abs(high))


@dataclasses.dataclass(frozen=True, eq=False)
class DepthMap:
    """Relative inverse depth, **larger = nearer** (MiDaS' sense, white = near).

    Attributes:
        values: float32 (H, W), finite, C-contiguous and read-only; an estimator's raw values at its own resolution,
            or a file's values at the file's.
        origin: where it came from: an estimator's name or a file format, for display.
        bits: bits per value of the file it was read from, None if it was estimated.
        notice: sentences on how it came about that the user should see, such as a fallback to the CPU; else empty.
        distances: why the values of a user's map seem to be distances, for `hints.hints`; empty if nothing says so.

    Raises:
        DepthMapError: the array is not two-dimensional, empty, too large or not finite.
    """

    values: npt.NDArray[np.float32]
    origin: str = "array"
    bits: int | None = None
    notice: str = ""
    distances: str = ""

    def __post_init__(self) -> None:
        values = self.values
        if values.ndim != 2:
            raise DepthMapError(
                "A depth map must have two dimensions, height and width.",
                got=f"shape {values.shape}",
                fix="Give one channel.",
            )
        images.check_size(values.shape[1], values.shape[0], DepthMapError)
        if not np.isfinite(values).all() or float(np.abs(values).max()) > LARGEST:
            raise DepthMapError(
                "The depth map contains NaN, infinity or values beyond 1e30.",
                got=f"{int((~np.isfinite(values)).sum()):,} values that are not finite out of {values.size:,}",
                fix="Replace them with the farthest finite value before using it.",
            )
        values = np.array(values, dtype=np.float32, order="C")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.values.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.values.shape[1])

    @property
    def range(self) -> tuple[float, float]:
        """Smallest (farthest) and largest (nearest) value."""
        return float(self.values.min()), float(self.values.max())

    def normalised(self, span: Span | None = None) -> npt.NDArray[np.float32]:
        """Stretch the values to 0 (farthest) .. 1 (nearest), float32 (H, W); a flat range gives 0.5 everywhere.

        Args:
            span: what is farthest and nearest, to which values are limited; None for the map's own extremes.
        """
        low, high = self.range if span is None else span
        if is_flat(low, high):
            return np.full(self.values.shape, 0.5, np.float32)
        stretched = (self.values.astype(np.float64) - low) / (high - low)
        return np.clip(stretched, 0.0, 1.0).astype(np.float32)

    def resized(self, width: int, height: int) -> DepthMap:
        """Resize the map: cubic when it grows, area average when it shrinks on both sides."""
        if (width, height) == (self.width, self.height):
            return self
        images.check_size(width, height, DepthMapError)
        shrinks = width <= self.width and height <= self.height
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        values = np.asarray(cv2.resize(self.values, (width, height), interpolation=method), np.float32)
        return dataclasses.replace(self, values=np.clip(values, *self.range))

    def cropped(self, left: int, top: int, right: int, bottom: int) -> DepthMap:
        """Cut out columns left..right and rows top..bottom, ends excluded.

        Raises:
            DepthMapError: the box is empty or reaches outside.
        """
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            raise DepthMapError(
                "The crop box does not lie inside the depth map.",
                got=f"box ({left}, {top}, {right}, {bottom}) in {self.width} x {self.height}",
            )
        return dataclasses.replace(self, values=self.values[top:bottom, left:right])

    def to_image(self, colour_map: str = "grey", span: Span | None = None) -> Image.Image:
        """Show the map as an 8-bit RGB picture, white (or the colour map's bright end) = near.

        Args:
            colour_map: a key of `COLOUR_MAPS`.
            span: see `normalised`.

        Raises:
            DepthMapError: `colour_map` is not in `COLOUR_MAPS`.
        """
        check_colour_map(colour_map)
        grey = np.round(self.normalised(span) * 255).astype(np.uint8)
        table = COLOUR_MAPS[colour_map]
        if table is None:
            return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
        return Image.fromarray(np.ascontiguousarray(cv2.applyColorMap(grey, table)[:, :, ::-1]))

    def to_png(self, span: Span | None = None) -> bytes:
        """Encode the map as a 16-bit grey PNG, the range stretched to 0..65535, 65535 = nearest.

        Args:
            span: see `normalised`.
        """
        sixteen = np.round(self.normalised(span).astype(np.float64) * 65535).astype(np.uint16)
        done, content = cv2.imencode(".png", sixteen)
        if not done:
            raise DepthMapError("The depth map cannot be written as PNG.", got=f"{self.width} x {self.height}")
        return bytes(content.tobytes())

    def save(self, path: str | os.PathLike[str], span: Span | None = None) -> None:
        """Write `.png` (16-bit, stretched), `.tiff`/`.tif` (float32, raw values) or `.npy` (float32, raw values).

        The file appears whole or not at all.

        Args:
            path: of the file.
            span: of a PNG, see `normalised`.

        Raises:
            DepthMapError: the suffix is another, or the folder cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            content = self.to_png(span)
        elif suffix in (".tif", ".tiff"):
            content = bytes(cv2.imencode(".tiff", self.values)[1].tobytes())
        elif suffix == ".npy":
            buffer = io.BytesIO()
            np.save(buffer, self.values, allow_pickle=False)
            content = buffer.getvalue()
        else:
            raise DepthMapError(
                "A depth map is written as .png, .tiff or .npy.", got=f"'{path.name}'", fix="Change the suffix."
            )
        write_file(path, content, DepthMapError, what="The depth map")
