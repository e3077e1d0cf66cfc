"""Declarations of the nodes, and the work of those that need no host."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from depth2img import OPTIONS, DepthMap, DepthMapError, DepthOptions, OptionError, PictureError, adjust
from depth2img.depth.adjustments import fill_under, replace_under
from depth2img_comfy import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from depth2img_comfy.apply_node import ApplyDepth
from depth2img_comfy.depth_batch import DepthBatch, image, pictures, regions
from depth2img_comfy.depth_nodes import AdjustDepth, DepthFidelity, DepthFromImage, DepthUnderMask, EstimateDepth
from depth2img_comfy.estimators import Managed
from depth2img_comfy.widgets import widget

STORED = {
    "Depth2ImgLoadDepthCheckpoint",
    "Depth2ImgLoadDepthEstimator",
    "Depth2ImgLoadDepthMap",
    "Depth2ImgEstimateDepth",
    "Depth2ImgDepthFromImage",
    "Depth2ImgAdjustDepth",
    "Depth2ImgDepthUnderMask",
    "Depth2ImgApplyDepth",
    "Depth2ImgPreviewDepth",
    "Depth2ImgSaveDepthMap",
    "Depth2ImgDepthFidelity",
}
"""Names in workflows and pictures that people have saved."""

HOSTLESS = [AdjustDepth, ApplyDepth, DepthFidelity, DepthFromImage, DepthUnderMask, EstimateDepth]


def a_map(seed: int, height: int = 12, width: int = 20, *, scale: float = 1.0) -> DepthMap:
    values = np.random.default_rng(seed).uniform(1, 9, (height, width)) * scale
    return DepthMap(values=values.astype(np.float32))


def an_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_stored_names_stay() -> None:
    assert set(NODE_CLASS_MAPPINGS) == set(NODE_DISPLAY_NAME_MAPPINGS) == STORED


@pytest.mark.parametrize("node", HOSTLESS)
def test_the_inputs_are_the_functions_parameters(node: type) -> None:
    inputs = {name for part in node.INPUT_TYPES().values() for name in part}
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    named = {name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD} - {"self"}
    rest = inputs - named
    assert named <= inputs
    assert rest <= set(OPTIONS) and bool(rest) == ("values" in parameters)


@pytest.mark.parametrize("node", HOSTLESS)
def test_widgets_are_rows_of_the_table(node: type) -> None:
    for name, spec in node.INPUT_TYPES()["required"].items():
        if spec[0] in ("FLOAT", "BOOLEAN", "INT") or isinstance(spec[0], list):
            row, settings = OPTIONS[name], spec[1]
            assert settings["default"] == row.default and settings["tooltip"] == row.help
            if row.kind == "number":
                assert (settings["min"], settings["max"]) == (row.minimum, row.maximum)
                assert settings["step"] == (row.step or 0.001)
            if row.kind == "choice":
                assert spec[0] == [*row.choices]


def test_a_picture_has_no_widget() -> None:
    assert widget(OPTIONS["map_channel"])[0] == "STRING"
    with pytest.raises(ValueError, match="region"):
        widget(OPTIONS["region"])


def test_pictures_come_apart() -> None:
    tensor = an_image(2, 6, 8, 4)
    tensor[0, 0, 0, 0], tensor[0, 0, 1, 0] = -0.001, 1.001
    one, two = pictures(tensor)
    assert one.shape == (6, 8, 3) and one.dtype == np.float32
    assert (one[0, 0, 0], one[0, 1, 0]) == (0.0, 1.0)
    assert np.array_equal(two, tensor[1, ..., :3].numpy())


@pytest.mark.parametrize("tensor", [torch.zeros(1, 4, 4, 1), torch.zeros(0, 4, 4, 3), torch.full((1, 4, 4, 3), np.nan)])
def test_what_is_not_an_image(tensor: torch.Tensor) -> None:
    with pytest.raises(PictureError):
        pictures(tensor)


def test_an_image_of_pictures_of_several_sizes() -> None:
    made = image([np.full((4, 6, 3), 0.25, np.float32), np.full((8, 12, 3), 0.75, np.float32)])
    assert made.shape == (2, 4, 6, 3) and made.dtype == torch.float32
    assert made[0].unique().tolist() == [0.25] and made[1].unique().tolist() == [0.75]


def test_a_mask_with_and_without_a_batch() -> None:
    mask = an_image(2, 5, 7) * 1.5
    many, one = regions(mask), regions(mask[1])
    assert [found.values.shape for found in many] == [(5, 7)] * 2 and len(one) == 1
    assert np.array_equal(one[0].values, mask[1].clamp(0, 1).numpy()) and np.array_equal(one[0].values, many[1].values)


class Mean:
    """Estimates a map of the picture's brightness."""

    key = "mean"

    def estimate(self, picture: np.ndarray) -> DepthMap:
        return DepthMap(values=picture.mean(axis=2))


def test_each_picture_has_its_own_depth() -> None:
    tensor = an_image(2, 6, 8, 3)
    (found,) = EstimateDepth().estimate(Managed(Mean()), tensor)
    for one, picture in zip(found.maps, tensor, strict=True):
        assert np.array_equal(one.values, picture.numpy().mean(axis=2))


def test_a_grey_image_is_a_map() -> None:
    grey = an_image(2, 6, 8, 1).repeat(1, 1, 1, 3)
    (found,) = DepthFromImage().take(grey)
    assert [one.origin for one in found.maps] == ["image"] * 2
    assert np.array_equal(found.maps[1].values, grey[1, ..., 0].numpy())
    with pytest.raises(DepthMapError, match="colour"):
        DepthFromImage().take(an_image(1, 6, 8, 3))


def test_without_adjustments_nothing_changes() -> None:
    depth = DepthBatch((a_map(1), a_map(2)))
    values = {name: OPTIONS[name].default for name in AdjustDepth.INPUT_TYPES()["required"] if name in OPTIONS}
    (found,) = AdjustDepth().adjust(depth, **values)
    assert found.maps == depth.maps and found.span is None


def test_adjustments_are_the_librarys() -> None:
    (found,) = AdjustDepth().adjust(DepthBatch((a_map(1),)), gamma=2.0, invert=True, far=0.2, near=0.9, blur=3.0)
    wanted = adjust(a_map(1), DepthOptions(gamma=2.0, invert=True, far=0.2, near=0.9, blur=3.0))
    assert np.array_equal(found.maps[0].values, wanted.values)


def test_a_shared_range() -> None:
    """Two maps keep their difference in scale, adjusted or not, and down to the conditioning."""
    depth = DepthBatch((a_map(1), a_map(1, scale=0.5)))
    for more in ({}, {"gamma": 2.0}):
        (found,) = AdjustDepth().adjust(depth, range="shared", **more)
        near, half = found.conditioning(2, height=6, width=10)
        assert float(near.max()) == pytest.approx(1, abs=0.3)  # the bicubic resizing takes the peaks off
        assert float(half.max()) < float(near.max()) - 0.5
        assert found.stretched()[1].max() < found.stretched()[0].max()


def test_outliers_do_not_take_the_range() -> None:
    values = a_map(1).values.copy()
    values[0, 0] = 1000.0
    depth = DepthBatch((DepthMap(values=values),))
    (found,) = AdjustDepth().adjust(depth, range="percentile", range_clip=2.0)
    assert found.maps[0].range[1] < 10 and found.span is None


def test_a_bad_range_is_a_sentence() -> None:
    with pytest.raises(OptionError, match="'range_near' must be greater than 'range_far'"):
        AdjustDepth().adjust(DepthBatch((a_map(1),)), range="fixed")


def test_under_a_mask() -> None:
    mask = torch.zeros(1, 12, 20)
    mask[:, 3:8, 5:11] = 1
    hole, depth = mask[0].numpy(), DepthBatch((a_map(1), a_map(2)))
    (filled,) = DepthUnderMask().change(depth, mask, "fill")
    (replaced,) = DepthUnderMask().change(depth, mask, "map", own=DepthBatch((a_map(3),)))
    (kept,) = DepthUnderMask().change(depth, mask, "keep")
    for row, one in enumerate(depth.maps):
        assert np.array_equal(filled.maps[row].values, fill_under(one, hole).values)
        assert np.array_equal(replaced.maps[row].values, replace_under(one, a_map(3), hole).values)
    assert kept.maps == depth.maps
    with pytest.raises(OptionError, match="no depth map to put under the mask"):
        DepthUnderMask().change(depth, mask, "map")


def test_fidelity_of_each_result() -> None:
    tensor = an_image(2, 6, 8, 3)
    (asked,) = EstimateDepth().estimate(Managed(Mean()), tensor[:1])
    found = DepthFidelity().score(Managed(Mean()), asked, tensor)
    mean, text = found["result"]
    scores = [float(one) for one in text.removeprefix("Depth fidelity: ").split(", ")]
    assert scores[0] == 1.0 and abs(scores[1]) < 0.5
    assert mean == pytest.approx(sum(scores) / 2, abs=0.001)
    assert found["ui"]["text"] == (text,)


def test_a_flat_result_is_named() -> None:
    asked = DepthBatch((a_map(1),))
    found = DepthFidelity().score(Managed(Mean()), asked, torch.full((1, 6, 8, 3), 0.5))
    assert found["result"] == (0.0, "Depth fidelity: 0.000 (a flat map scores 0)")
