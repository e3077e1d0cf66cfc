"""Nodes for depth maps: estimated, taken from an image, adjusted, shown, saved, compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from depth2img import DepthOptions, OptionError, read_depth_map
from depth2img.depth.adjustments import under_mask
from depth2img.depth.colour_maps import COLOUR_MAPS
from depth2img.depth.depth_map import is_flat
from depth2img.depth.scores import structure
from depth2img.options import MAP_OPTIONS

from .depth_batch import DepthBatch, image, pictures, regions, repeated
from .load_nodes import CATEGORY
from .widgets import widgets

if TYPE_CHECKING:
    import torch

    from .estimators import Managed

READING: Final = ("holds", "map_channel")
"""Options that count when a map is read; the others of `MAP_OPTIONS` change one that is there."""


class EstimateDepth:
    """IMAGE -> the depth of each of its pictures."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Estimates the depth of each picture. Scale a picture to the size that you generate first."
    RETURN_TYPES = ("DEPTH",)
    FUNCTION = "estimate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        return {"required": {"estimator": ("DEPTH_ESTIMATOR",), "image": ("IMAGE",)}}

    def estimate(self, estimator: Managed, image: torch.Tensor) -> tuple[DepthBatch]:
        """Estimate.

        Raises:
            EstimatorError, PictureError: no map came out, or a picture is unusable.
        """
        return (DepthBatch(tuple(estimator.estimate_all(pictures(image)))),)


class DepthFromImage:
    """A grey IMAGE, white = near -> a depth map."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Takes a grey image as depth map, white = near, such as another node has made."
    RETURN_TYPES = ("DEPTH",)
    FUNCTION = "take"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        return {"required": {"image": ("IMAGE",)}}

    def take(self, image: torch.Tensor) -> tuple[DepthBatch]:
        """Take the pictures as maps.

        Raises:
            DepthMapError, PictureError: a picture is in colour, or unusable.
        """
        maps = (dataclasses.replace(read_depth_map(one), origin="image") for one in pictures(image))
        return (DepthBatch(tuple(maps)),)


class AdjustDepth:
    """DEPTH -> DEPTH with its distances bent, clipped, softened or turned round."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Changes a depth map before it is used; with the defaults it stays as it is, to the bit."
    RETURN_TYPES = ("DEPTH",)
    FUNCTION = "adjust"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        return {"required": {"depth": ("DEPTH",), **widgets(*(name for name in MAP_OPTIONS if name not in READING))}}

    def adjust(self, depth: DepthBatch, **values: Any) -> tuple[DepthBatch]:
        """Adjust.

        Raises:
            OptionError: 'near' is not above 'far', or a fixed range is empty.
        """
        return (depth.adjusted(DepthOptions(**values)),)


class DepthUnderMask:
    """DEPTH and MASK -> DEPTH with the part under the mask filled or replaced."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "For inpainting: fills the depth under the mask from its surroundings, to remove an object, or puts a depth "
        "map of your own there. Leave it out to keep the depth and change the content."
    )
    RETURN_TYPES = ("DEPTH",)
    FUNCTION = "change"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        own = {"tooltip": "What takes the place under the mask, with 'map'; within the range of the picture's depth."}
        required = {"depth": ("DEPTH",), "mask": ("MASK",), **widgets("under_mask")}
        return {"required": required, "optional": {"own": ("DEPTH", own)}}

    def change(
        self, depth: DepthBatch, mask: torch.Tensor, under_mask: str, own: DepthBatch | None = None
    ) -> tuple[DepthBatch]:
        """Change the maps.

        Raises:
            OptionError: a map of one's own is asked for, and none is connected.
        """
        if under_mask == "map" and own is None:
            raise OptionError(
                "under_mask",
                "There is no depth map to put under the mask.",
                fix="Connect one with 'own', or use 'fill'.",
            )
        options, holes = DepthOptions(under_mask=under_mask), regions(mask)
        return (DepthBatch(tuple(_changed(depth, own, holes, options))),)


def _changed(depth: DepthBatch, own: DepthBatch | None, holes: Any, options: DepthOptions) -> Any:
    for row, one in enumerate(depth.maps):
        other = None if own is None else repeated(own.maps, row)
        yield under_mask(one, options, other, repeated(holes, row).values)


class PreviewDepth:
    """DEPTH -> the pictures that show it, in the node and as IMAGE."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Shows depth maps, bright = near. The colours are for looking; the depth is not changed."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        tip = {"default": "grey", "tooltip": "Colours, from far to near."}
        return {"required": {"depth": ("DEPTH",), "colour_map": ([*COLOUR_MAPS], tip)}}

    def show(self, depth: DepthBatch, colour_map: str) -> dict[str, Any]:
        """Show the maps.

        Raises:
            DepthMapError: there is no such colour map.
        """
        import folder_paths

        shown = [one.to_image(colour_map, depth.span) for one in depth.maps]
        folder = folder_paths.get_temp_directory()
        path, name, counter, subfolder, _ = folder_paths.get_save_image_path("depth2img", folder, *shown[0].size)
        files = [f"{name}_{counter + row:05}_.png" for row in range(len(shown))]
        for picture, file in zip(shown, files, strict=True):
            picture.save(Path(path) / file, compress_level=1)
        results = [{"filename": file, "subfolder": subfolder, "type": "temp"} for file in files]
        arrays = (np.asarray(picture, np.float32) / np.float32(255) for picture in shown)
        return {"ui": {"images": results}, "result": (image(arrays),)}


class SaveDepthMap:
    """DEPTH -> files in the output folder, at full precision."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Saves depth maps: png has 16 bits, the map's range stretched over them; tiff and npy hold the raw values."
    )
    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        prefix = {"default": "depth/depth", "tooltip": "Where in the output folder, and how the files are named."}
        formats = {"default": "png", "tooltip": "png: 16 bits. tiff, npy: float32, the raw values."}
        return {
            "required": {
                "depth": ("DEPTH",),
                "filename_prefix": ("STRING", prefix),
                "format": (["png", "tiff", "npy"], formats),
            }
        }

    def save(self, depth: DepthBatch, filename_prefix: str, format: str) -> dict[str, Any]:
        """Save the maps.

        Raises:
            DepthMapError: the folder cannot be written.
        """
        import folder_paths

        first, folder = depth.maps[0], folder_paths.get_output_directory()
        path, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder, first.width, first.height
        )
        files = [f"{name}_{counter + row:05}_.{format}" for row in range(len(depth.maps))]
        for one, file in zip(depth.maps, files, strict=True):
            one.save(Path(path) / file, depth.span)
        return {"ui": {"images" if format == "png" else "files": [_saved(file, subfolder) for file in files]}}


def _saved(file: str, subfolder: str) -> dict[str, str]:
    return {"filename": file, "subfolder": subfolder, "type": "output"}


class DepthFidelity:
    """The depth that was asked for, and a result -> how well they agree."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Estimates the depth of each result and says how well it agrees with the depth asked for: 1 = everywhere, "
        "0 = by chance."
    )
    RETURN_TYPES = ("FLOAT", "STRING")
    RETURN_NAMES = ("fidelity", "text")
    OUTPUT_TOOLTIPS = ("The mean of all results.", "The score of each result.")
    FUNCTION = "score"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        return {"required": {"estimator": ("DEPTH_ESTIMATOR",), "depth": ("DEPTH",), "image": ("IMAGE",)}}

    def score(self, estimator: Managed, depth: DepthBatch, image: torch.Tensor) -> dict[str, Any]:
        """Score each result.

        Raises:
            EstimatorError, PictureError: a result's depth cannot be estimated.
        """
        found = estimator.estimate_all(pictures(image))
        scores = [structure(repeated(depth.maps, row), one) for row, one in enumerate(found)]
        flat = any(is_flat(*one.range) for one in (*depth.maps, *found))
        text = "Depth fidelity: " + ", ".join(f"{score:.3f}" for score in scores)
        text += " (a flat map scores 0)" if flat else ""
        return {"ui": {"text": (text,)}, "result": (float(np.mean(scores)), text)}
