"""Depth models of `transformers` as estimators: DPT, ZoeDepth and their kind, from a folder.

The folder has the layout of the hub, see `hub_folder`. Nothing in it is executed: the class is chosen from the list
below, other kinds of weights are not read, nothing is downloaded. `files` decides which models come this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import EstimatorError
from .hub_folder import CONFIG, PROCESSOR, check, is_metric, key_of, plain, read_json, refused, weight_files
from .network import NetworkEstimator

if TYPE_CHECKING:
    import torch

UNUSED_WEIGHTS: Final = "neck.fusion_stage.layers.0.residual_layer1."
"""Never used, and missing from the published DPT files."""


class Family(NamedTuple):
    """One kind of depth model.

    Attributes:
        network, processor: classes in `transformers`.
        since: the first version of `transformers` that has them.
    """

    network: str
    processor: str
    since: str


FAMILIES: Final[Mapping[str, Family]] = {
    "dpt": Family("DPTForDepthEstimation", "DPTImageProcessor", "4.25"),
    "zoedepth": Family("ZoeDepthForDepthEstimation", "ZoeDepthImageProcessor", "4.43"),
    "glpn": Family("GLPNForDepthEstimation", "GLPNImageProcessor", "4.25"),
    "depth_pro": Family("DepthProForDepthEstimation", "DepthProImageProcessor", "4.49"),
}
"""`model_type` of a configuration -> its classes; MiDaS is a `dpt`."""


class TransformersEstimator(NetworkEstimator):
    """A depth model of `transformers`.

    Args:
        network: a `...ForDepthEstimation`: pixel values (1, 3, h, w) -> `predicted_depth` (1, h', w').
        processor: its image processor: uint8 (H, W, 3) -> pixel values.
        metric, key, name: see `NetworkEstimator`.
    """

    def __init__(self, network: Any, processor: Any, *, metric: bool, key: str, name: str) -> None:
        super().__init__(network, metric=metric, key=key, name=name)
        self._processor = processor

    @property
    def _whole(self) -> bool:
        return bool(getattr(self._processor, "do_pad", False)) or not self._processor.do_resize

    def _pixels(self, seen: npt.NDArray[np.uint8]) -> torch.Tensor:
        pixels: torch.Tensor = self._processor(images=seen, return_tensors="pt")["pixel_values"]
        return pixels

    def _map(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Leave out the border that ZoeDepth's processor adds."""
        output = self._network(pixels)
        depth: torch.Tensor = output.predicted_depth[0]
        if type(self._processor).__name__.startswith("ZoeDepth") and self._processor.do_pad:
            depth = self._processor.post_process_depth_estimation(output, source_sizes=[size])[0]["predicted_depth"]
        return depth


def open_folder(folder: Path, *, device: torch.device | str, name: str) -> TransformersEstimator:
    """Load the depth model in a folder.

    Args:
        folder: in the layout of the hub.
        device: the device that it runs on.
        name: its name in messages and maps.

    Raises:
        EstimatorError: it is not a depth model, is damaged, is of a kind that is not known here or that the installed
            `transformers` is too old for, has weights in another format than safetensors, or does not fit into memory.
    """
    config, processing = read_json(folder / CONFIG), read_json(folder / PROCESSOR)
    network_class, processor_class = _classes(str(config.get("model_type")), name)
    weight_files(folder, name)
    unfit = f"The weights of the depth estimator {name} do not fit its configuration."
    with refused(f"The depth estimator {name} cannot be loaded.", "Get its files again, or choose another."):
        for described in (config, processing):
            check(described, name)
        processor = processor_class.from_dict(plain(processing))
        network, found = network_class.from_pretrained(
            str(folder),
            config=network_class.config_class.from_dict(plain(config)),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        missing = [key for key in found["missing_keys"] if not key.startswith(UNUSED_WEIGHTS)]
        if missing:
            raise EstimatorError(
                unfit, got=f"{len(missing)} missing, such as {missing[0]}", fix="A newer transformers may be needed."
            )
        network = network.float().to(device).eval().requires_grad_(False)
    return TransformersEstimator(network, processor, metric=is_metric(config), key=key_of(folder), name=name)


def _classes(kind: str, name: str) -> tuple[Any, Any]:
    family = FAMILIES.get(kind)
    if family is None:
        raise EstimatorError(
            f"The depth estimator {name} is of a kind that is not known here.",
            got=f"model_type '{kind[:40]}'",
            fix=f"Known are: {', '.join(FAMILIES)} and depth_anything.",
        )
    try:
        import transformers
    except ModuleNotFoundError as problem:
        raise EstimatorError(
            f"The depth estimator {name} needs the package transformers.",
            fix="Run: pip install 'sd-webui-depth2img[estimators]'.",
        ) from problem
    classes = getattr(transformers, family.network, None), getattr(transformers, family.processor, None)
    if None in classes:
        raise EstimatorError(
            f"The depth estimator {name} needs transformers {family.since} or newer.",
            got=f"transformers {transformers.__version__}",
            fix="Use Depth Anything or a DPT model instead. In the WebUI leave transformers as it is: "
            "the WebUI needs its own version.",
        )
    return classes
