"""Depth Anything (1 and 2, relative and metric) and DPT on DINOv2 as estimators, on timm.

timm is in every WebUI, whereas the transformers that the WebUI needs is too old for these models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError, EstimatorError
from .devices import without_tf32
from .dinov2_layout import config_by_name, sizes_of, stored_names, version_of
from .hub_folder import CONFIG, PROCESSOR, check, is_metric, key_of, read_json, refused, weight_files
from .network import NetworkEstimator
from .preprocessing import DEPTH_ANYTHING, Processor

if TYPE_CHECKING:
    import torch

    from ..checkpoints.storage.tensors import Tensors

SUFFIXES: Final = (".safetensors", ".pth", ".pt")
"""Endings of the authors' own files, and of those that others made of them."""

UNFIT: Final = "The weights of the depth estimator {} do not fit its configuration."


class DepthAnythingEstimator(NetworkEstimator):
    """Depth Anything or DPT on DINOv2.

    Args:
        network: a `dinov2.DepthNetwork`.
        processor: prepares a picture for it.
        metric, key, name: see `NetworkEstimator`.
    """

    def __init__(self, network: Any, processor: Processor, *, metric: bool, key: str, name: str) -> None:
        super().__init__(network, metric=metric, key=key, name=name)
        self._processor = processor

    @property
    def _whole(self) -> bool:
        return self._processor.whole

    def _pixels(self, seen: npt.NDArray[np.uint8]) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._processor(seen))

    def _map(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        with without_tf32(pixels.device):
            depth: torch.Tensor = self._network(pixels)[0]
        return depth


def named_file(path: Path) -> Path | None:
    """Return a file whose name tells which Depth Anything it is: the path itself, or one in that folder."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    fitting = (one for one in inside if one.suffix.lower() in SUFFIXES and version_of(one.stem) and one.is_file())
    return next(fitting, None)


def open_model(path: Path, *, device: torch.device | str, name: str) -> DepthAnythingEstimator:
    """Load a model.

    Args:
        path: a folder in the layout of the hub, or a file of either layout whose name is a published one.
        device: the device that it runs on.
        name: its name in messages and maps.

    Raises:
        EstimatorError: it is damaged, is not such a model, is of a kind that is not built here, or does not fit into
            memory; or timm is missing.
    """
    from ..checkpoints.storage.opening import open_checkpoint
    from ..checkpoints.storage.tensors import joined

    folder = path if (path / CONFIG).is_file() else None
    config = None if folder is None else read_json(folder / CONFIG)
    processing = DEPTH_ANYTHING if folder is None else read_json(folder / PROCESSOR)
    files = [path] if folder is None else weight_files(folder, name)
    fix = "Get its files again, or choose another."
    with refused(f"The depth estimator {name} cannot be loaded.", fix):
        for described in (config, processing):
            check(described, name)
        try:
            tensors = joined(*map(open_checkpoint, files))
            network, metric = _network(tensors, config, files[0].stem, name, device)
        except CheckpointError as problem:
            raise EstimatorError(f"The depth estimator {name} cannot be loaded. {problem}") from problem
        processor = Processor.of(processing)
    return DepthAnythingEstimator(network, processor, metric=metric, key=key_of(path), name=name)


def _network(
    tensors: Tensors, config: Mapping[str, Any] | None, stem: str, name: str, device: torch.device | str
) -> tuple[torch.nn.Module, bool]:
    """Build the network and fill it; return it, and whether it is metric."""
    import torch

    try:
        from .dinov2 import DepthNetwork
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] != "timm":
            raise
        raise EstimatorError(
            f"The depth estimator {name} needs the package timm.",
            fix="Run: pip install 'sd-webui-depth2img[estimators]'.",
        ) from problem

    stored = stored_names(tensors.keys())
    shapes = {ours: _joined_shape([tensors.shape(key) for key in keys]) for ours, keys in stored.items()}
    known = config_by_name(stem, shapes) if config is None else config
    sizes = sizes_of(shapes, known, name)
    with torch.device("meta"):
        network = DepthNetwork(sizes)
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    unfit = [key for key, shape in wanted.items() if shapes.get(key) != shape]
    if unfit:
        raise EstimatorError(
            UNFIT.format(name), got=f"{len(unfit)} missing or of another shape, such as {unfit[0]}", fix="Get it again."
        )
    network = network.to_empty(device=torch.device(device)).eval().requires_grad_(False)
    for ours, value in network.state_dict().items():
        parts = [tensors.get(key) for key in stored[ours]]
        value.copy_(parts[0] if len(parts) == 1 else torch.cat(parts))
    return network, is_metric(known)


def _joined_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of tensors that are concatenated along their first side."""
    first, *others = shapes
    if any(other[1:] != first[1:] for other in others):
        raise ValueError(f"queries, keys and values of shapes {shapes}")
    return (sum(shape[0] for shape in shapes), *first[1:]) if others else first
