"""Masks as users give them: grey, in colour, with transparent parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depth2img import PictureError
from depth2img.depth.masks import read_mask, read_region

COLOUR = np.array([[[10, 11, 11], [255, 255, 255]], [[0, 0, 0], [0, 255, 1]], [[90, 90, 91], [7, 7, 7]]], np.uint8)


def test_an_inpaint_mask_is_rounded_to_whole_values() -> None:
    """The sampler's masks are 8-bit pictures."""
    assert read_mask(COLOUR).tolist() == [[11, 255], [0, 85], [90, 7]]
    assert read_mask(COLOUR).dtype == np.uint8


def test_a_region_is_not_rounded() -> None:
    values = read_region(COLOUR).values
    np.testing.assert_array_equal(values, (COLOUR.astype(np.float32) / np.float32(255)).mean(axis=2))
    assert abs(float(values[0, 0]) * 255 - 32 / 3) < 1e-4
    assert values.min() == 0 and values.max() == 1


def test_a_region_that_was_read_stays_as_it_is() -> None:
    region = read_region(COLOUR)
    assert read_region(region) is region


@pytest.mark.parametrize("read", [read_mask, read_region])
def test_transparent_parts_are_outside(tmp_path: Path, read) -> None:
    picture = Image.new("RGBA", (4, 3), (255, 255, 255, 255))
    picture.paste((255, 255, 255, 0), (0, 0, 2, 3))
    picture.save(tmp_path / "mask.png")
    found = read(tmp_path / "mask.png")
    found = getattr(found, "values", found)
    assert found.shape == (3, 4) and not found[:, :2].any() and (found[:, 2:] == found.max()).all() and found.max() > 0


@pytest.mark.parametrize("read", [read_mask, read_region])
def test_what_is_no_picture_is_refused(read) -> None:
    with pytest.raises(PictureError):
        read(b"no picture")
