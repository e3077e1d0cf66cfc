"""Depth models in files, by name; the one place that decides how a model is run.

Depth Anything and DPT on DINOv2 run on timm, everywhere, so that results do not depend on the host; the other kinds on
transformers. See docs/estimators.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import EstimatorError
from . import depth_anything, hub_folder, transformers

if TYPE_CHECKING:
    import torch

    from .network import NetworkEstimator


FOLDER: Final = "depth2img"
"""Below a host's folder of models; each depth model in it, a folder or a file, is an estimator by its name."""


def runs_on_timm(config: Mapping[str, Any]) -> bool:
    """Tell whether a model in the hub's layout is one that `depth_anything` runs."""
    backbone = config.get("backbone_config")
    on_dinov2 = isinstance(backbone, Mapping) and backbone.get("model_type") == "dinov2"
    return config.get("model_type") == "depth_anything" or (config.get("model_type") == "dpt" and on_dinov2)


def kind_of(path: Path) -> str | None:
    """Return the `model_type` of the model in a folder or file; None if it is not one, or cannot be read."""
    try:
        if not _in_hub_layout(path):
            return None if depth_anything.named_file(path) is None else "depth_anything"
        kind = hub_folder.read_json(path / hub_folder.CONFIG).get("model_type")
    except (EstimatorError, OSError):
        return None
    known = isinstance(kind, str) and (kind in transformers.FAMILIES or kind == "depth_anything")
    return kind if known else None


def found_in(folder: Path | None) -> dict[str, Path]:
    """Map the name of each depth model in a folder to its own folder or file; names are never made into paths."""
    try:
        inside = [] if folder is None else sorted(folder.iterdir())
    except OSError:
        return {}
    models = [path for path in inside if kind_of(path) is not None]
    files = {path.stem: path for path in models if not path.is_dir()}
    return {**files, **{path.name: path for path in models if path.is_dir()}}


def is_given(path: Path) -> bool:
    """Tell whether a path names a depth model, known or not."""
    return _in_hub_layout(path) or depth_anything.named_file(path) is not None


def open_estimator(path: Path, *, device: torch.device | str, name: str) -> NetworkEstimator:
    """Load the depth model in a folder or file.

    Args:
        path: as `found_in` gives it.
        device: the device that it runs on.
        name: its name in messages and maps.

    Raises:
        EstimatorError: see `depth_anything.open_model` and `transformers.open_folder`.
    """
    named = None if _in_hub_layout(path) else depth_anything.named_file(path)
    if named is not None or runs_on_timm(hub_folder.read_json(path / hub_folder.CONFIG)):
        return depth_anything.open_model(named or path, device=device, name=name)
    return transformers.open_folder(path, device=device, name=name)


def key_of(path: Path) -> str:
    """Return the key of the estimator in a folder or file, without loading it."""
    return hub_folder.key_of(path if _in_hub_layout(path) else depth_anything.named_file(path) or path)


def _in_hub_layout(path: Path) -> bool:
    return (path / hub_folder.CONFIG).is_file()
