"""A picture's way into Depth Anything and DPT: the numbers of transformers' `DPTImageProcessor`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

BICUBIC: Final = 3
"""Number of Pillow's bicubic filter, as configurations have it."""

DEPTH_ANYTHING: Final[Mapping[str, Any]] = {
    "size": {"height": 518, "width": 518},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": BICUBIC,
}
"""`preprocessor_config.json` of all published Depth Anything models, for files that come without one."""


@dataclass(frozen=True)
class Processor:
    """`DPTImageProcessor`'s settings, under its names and with its defaults.

    Attributes:
        size: (height, width) in pixels that resizing aims at.
        keep_aspect_ratio: scale both sides by the factor that is nearer to 1.
        ensure_multiple_of: both sides are rounded to multiples of this.
        resample: number of Pillow's filter.
        rescale_factor, image_mean, image_std: values become (value * factor - mean) / std.
        size_divisor: with `do_pad`, zeros are added on all sides up to a multiple of this.
    """

    size: tuple[int, int] = (384, 384)
    keep_aspect_ratio: bool = False
    ensure_multiple_of: int = 1
    resample: int = BICUBIC
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    do_resize: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    do_pad: bool = False
    size_divisor: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Processor:
        """Read a `preprocessor_config.json`; entries of other names are left aside.

        Raises:
            ValueError, TypeError, LookupError: a value is not what the name says.
        """
        given = {name: config[name] for name in cls.__dataclass_fields__ if config.get(name) is not None}
        if "size" in given:
            size = given["size"]
            given["size"] = (size["height"], size["width"]) if isinstance(size, Mapping) else (size, size)
        for name in ("image_mean", "image_std"):
            if name in given:
                given[name] = _three(given[name])
        made = cls(**given)
        for side in (*made.size, made.ensure_multiple_of, made.size_divisor):
            if not isinstance(side, int) or side < 1:
                raise ValueError(f"a size of {side!r:.40}")
        return made

    @property
    def whole(self) -> bool:
        """True if a picture is taken at its own size."""
        return self.do_pad or not self.do_resize

    def __call__(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Turn a picture, uint8 (H, W, 3), into pixel values, float32 (1, 3, h, w)."""
        if self.do_resize:
            height, width = self.size_of(picture.shape[0], picture.shape[1])
            resized = Image.fromarray(picture).resize((width, height), resample=Image.Resampling(self.resample))
            picture = np.asarray(resized)
        values = (picture.astype(np.float64) * self.rescale_factor if self.do_rescale else picture).astype(np.float32)
        if self.do_normalize:
            mean, std = np.array(self.image_mean, np.float32), np.array(self.image_std, np.float32)
            values = (values - mean) / std
        if self.do_pad:
            values = np.pad(values, [*(_border(side, self.size_divisor) for side in values.shape[:2]), (0, 0)])
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) after resizing."""
        scale_height, scale_width = self.size[0] / height, self.size[1] / width
        if self.keep_aspect_ratio:
            nearer = scale_width if abs(1 - scale_width) < abs(1 - scale_height) else scale_height
            scale_height = scale_width = nearer
        multiple = self.ensure_multiple_of

        def side(length: float) -> int:
            return round(length / multiple) * multiple or multiple

        return side(scale_height * height), side(scale_width * width)


def _border(side: int, multiple: int) -> tuple[int, int]:
    missing = math.ceil(side / multiple) * multiple - side
    return missing // 2, missing - missing // 2


def _three(value: Any) -> tuple[float, ...]:
    """Read one number, or three, as three."""
    found = tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * 3
    if len(found) != 3:
        raise ValueError(f"{len(found)} values for 3 channels")
    return found
