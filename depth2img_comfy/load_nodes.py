"""Nodes that load: a depth checkpoint, a depth estimator, a depth map."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from depth2img import OPTIONS, DepthOptions
from depth2img.depth.hints import noteworthy
from depth2img.depth.reading import MapReader
from depth2img.io.pairing import MAPS

from .depth_batch import DepthBatch
from .widgets import widgets

TINY: Final = "tiny"
"""Name of the bundled model, as everywhere in the library."""

CATEGORY: Final = "depth2img"


class LoadDepthCheckpoint:
    """A depth checkpoint -> all of its networks, from one file, without a download."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads a depth checkpoint of Stable Diffusion 2 (512-depth-ema and what descends from it), its depth network "
        "included. Nothing is downloaded."
    )
    RETURN_TYPES = ("MODEL", "CLIP", "VAE", "DEPTH_ESTIMATOR")
    OUTPUT_TOOLTIPS = (
        "The UNet. Connect it with 'Apply depth'; without that, it does plain img2img.",
        "The text encoder.",
        "The autoencoder.",
        "The checkpoint's own depth network (MiDaS).",
    )
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        import folder_paths

        tip = f"A depth checkpoint in models/checkpoints. '{TINY}' is the small bundled model, to try things out."
        return {"required": {"checkpoint": ([TINY, *folder_paths.get_filename_list("checkpoints")], {"tooltip": tip})}}

    def load(self, checkpoint: str) -> tuple[Any, Any, Any, Any]:
        """Load the networks.

        Raises:
            CheckpointError: the file is not a depth checkpoint, or damaged.
        """
        import folder_paths

        from depth2img.diffusion.loader import find

        from . import estimators, networks

        path = TINY if checkpoint == TINY else Path(folder_paths.get_full_path_or_raise("checkpoints", checkpoint))
        model = find(path)
        embeddings = folder_paths.get_folder_paths("embeddings")
        return (
            networks.make_unet(model),
            networks.make_clip(model, embeddings),
            networks.make_vae(model),
            estimators.of_checkpoint(model),
        )


class LoadDepthEstimator:
    """A depth model in models/depth2img -> an estimator."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads another depth estimator than the checkpoint's own, such as Depth Anything V2: a published file in "
        "models/depth2img, or a folder with config.json, preprocessor_config.json and model.safetensors."
    )
    RETURN_TYPES = ("DEPTH_ESTIMATOR",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        from . import estimators

        return {"required": {"estimator": (estimators.names(), {"tooltip": "A depth model in models/depth2img."})}}

    def load(self, estimator: str) -> tuple[Any]:
        """Load the network.

        Raises:
            OptionError, EstimatorError: there is none of that name, or it cannot be used.
        """
        from . import estimators

        return (estimators.by_name(estimator),)


class LoadDepthMap:
    """A file of the input folder -> a depth map, at full precision."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Loads a depth map of your own; no bit is lost. " + OPTIONS["depth_map"].help
    RETURN_TYPES = ("DEPTH", "STRING")
    RETURN_NAMES = ("depth", "contents")
    OUTPUT_TOOLTIPS = ("The map.", "What the file holds, and what is noteworthy about it.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        import folder_paths

        folder = Path(folder_paths.get_input_directory())
        files = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix.lower() in MAPS.suffixes)
        tip = "A depth map in the input folder; upload pictures with the button, copy files of numbers there."
        chosen = (files, {"image_upload": True, "tooltip": tip})
        return {"required": {"file": chosen, **widgets("holds", "map_channel")}}

    @classmethod
    def IS_CHANGED(cls, file: str, **_: Any) -> str:
        """Tell the host by the content whether a file has changed."""
        return hashlib.sha256(_path(file).read_bytes()).hexdigest()

    def load(self, file: str, **values: Any) -> tuple[DepthBatch, str]:
        """Read the map.

        Raises:
            DepthMapError: the file is not a depth map, damaged or in colour.
        """
        from depth2img.gui.view import describe

        options = DepthOptions(**values)
        depth = MapReader.of(options)(_path(file))
        return DepthBatch((depth,)), " ".join([describe(depth), *noteworthy(depth, options)])


def _path(name: str) -> Path:
    import folder_paths

    return Path(folder_paths.get_annotated_filepath(name))
