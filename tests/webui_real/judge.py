"""Judges pictures that the bundled model made in the real WebUI, by the sample scene that it came from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from depth2img import DepthMap
from depth2img.cli.demo import Sample, load_sample
from depth2img.depth.scores import structure
from depth2img.diffusion import Engine

SIDE = 128
FIELDS: dict[str, Any] = {"width": SIDE, "height": SIDE, "steps": 12, "sampler_name": "DDIM", "cfg_scale": 4, "seed": 3}
"""Settings of a job whose picture is to be judged."""


@functools.cache
def sample() -> Sample:
    return load_sample()


@functools.cache
def engine() -> Engine:
    return Engine.open("tiny")


def scene() -> Image.Image:
    return Image.fromarray(sample().picture)


def mirrored() -> Image.Image:
    """Another scene of the same kind."""
    return Image.fromarray(np.ascontiguousarray(sample().picture[:, ::-1]))


def depth_of(picture: Image.Image) -> DepthMap:
    """The depth that the model sees in a picture, on the scale of the sample's exact depth."""
    found = engine().estimate(np.array(picture.convert("RGB")))
    return dataclasses.replace(found, values=(np.polyval(scale(), found.values)).astype(np.float32))


@functools.cache
def scale() -> tuple[float, float]:
    """Factor and offset from the model's estimate to exact inverse depth, by least squares on the sample."""
    found = engine().estimate(sample().picture)
    exact = sample().depth.resized(found.width, found.height)
    factor, offset = np.polyfit(found.values.ravel(), exact.values.ravel(), 1)
    return float(factor), float(offset)


def kept(result: Image.Image, wanted: DepthMap | None = None) -> float:
    """Structure of a result: 1 = all of the sample's (or of another map's), 0 = that of any scene."""
    return structure(sample().depth if wanted is None else wanted, depth_of(result), sample().mean)


def tones(one: Image.Image, other: Image.Image) -> float:
    """Correlation of the blurred brightness of two pictures of one size."""
    both = [cv2.GaussianBlur(np.asarray(each.convert("L"), np.float32), (0, 0), SIDE / 16) for each in (one, other)]
    return float(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1])


def changed(one: Image.Image, other: Image.Image, where: np.ndarray | Sequence[slice] = np.s_[:]) -> float:
    """Mean difference of two pictures, 0..255; `where` is a mask or a part."""
    difference = np.abs(np.asarray(one.convert("RGB"), np.float32) - np.asarray(other.convert("RGB"), np.float32))
    return float(difference[where].mean())
