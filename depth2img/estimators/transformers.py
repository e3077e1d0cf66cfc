"""Depth models of `transformers` as estimators: Depth Anything, DPT, ZoeDepth and their kind, from a folder.

The folder has the layout of the hub: `config.json`, `preprocessor_config.json`, and weights as safetensors. Nothing in
it is executed: the class is chosen from the list below, other kinds of weights are not read, nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..depth.depth_map import DepthMap
from ..errors import EstimatorError
from ..io import images
from ..io.atomic import refusing
from .base import maps_of
from .devices import in_float32, or_on_cpu, without_autocast

if TYPE_CHECKING:
    import torch

CONFIG: Final = "config.json"
PROCESSOR: Final = "preprocessor_config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
SHARD: Final = re.compile(r"[\w.-]+\.safetensors")
PATTERNS: Final = (CONFIG, PROCESSOR, WEIGHTS, INDEX, "model-*-of-*.safetensors")
"""The files that are fetched from a repository on the hub."""

LARGEST_JSON: Final = 4 * 1024 * 1024
"""Bound of a configuration or an index of weights, in bytes."""

LARGEST_NUMBER: Final = 16384
"""Bound of the numbers in a configuration. The widest layer of any published depth model has 8,192 rows; a larger
number would fill the memory."""

NEAREST: Final = 0.1
"""Metres. A metric model's nearer values are raised to this, so that one wrong pixel does not take up the whole range
of the inverse."""

SHORTEST_SIDE: Final = 32
LONGEST_SIDE: Final = 1024
"""Bounds of a picture's sides in pixels, for models that take or return pictures at their own size."""

STEEPEST: Final = 8
"""Bound of the proportions: the processors keep them and would let the longer side grow."""

UNUSED_WEIGHTS: Final = "neck.fusion_stage.layers.0.residual_layer1."
"""Never used, and missing from the published DPT files."""

FAILURES: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ImportError,
    RuntimeError,
    MemoryError,
)
"""Exceptions of transformers and torch for files that do not fit together, are damaged or are too large."""


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
    "depth_anything": Family("DepthAnythingForDepthEstimation", "DPTImageProcessor", "4.38"),
    "zoedepth": Family("ZoeDepthForDepthEstimation", "ZoeDepthImageProcessor", "4.43"),
    "glpn": Family("GLPNForDepthEstimation", "GLPNImageProcessor", "4.25"),
    "depth_pro": Family("DepthProForDepthEstimation", "DepthProImageProcessor", "4.49"),
}
"""`model_type` of a configuration -> its classes. Depth Anything V2 is a `depth_anything`, MiDaS a `dpt`."""


def family_of(folder: Path) -> str | None:
    """Return the key of `FAMILIES` for a folder; None if it holds no such model, or cannot be read."""
    try:
        kind = _read(folder / CONFIG).get("model_type")
    except EstimatorError:
        return None
    return kind if isinstance(kind, str) and kind in FAMILIES else None


def is_metric(config: Mapping[str, Any]) -> bool:
    """Tell whether a model returns distances, larger = farther, rather than inverse depth, larger = nearer.

    Args:
        config: its configuration. ZoeDepth and GLPN are metric; Depth Anything says which it is; of DPT only the models
            on DINOv2 are (trained on NYU and KITTI), and MiDaS' own are not. Depth Pro's network returns the inverse.
    """
    kind = config.get("model_type")
    if kind == "depth_anything":
        return bool(config.get("depth_estimation_type") == "metric")
    if kind == "dpt":
        backbone = config.get("backbone_config")
        return isinstance(backbone, Mapping) and backbone.get("model_type") == "dinov2"
    return kind in ("zoedepth", "glpn")


def key_of(folder: Path) -> str:
    """Name a folder's model; the name changes with its weights and its configuration."""
    parts = []
    for name in (CONFIG, PROCESSOR, WEIGHTS, INDEX):
        with contextlib.suppress(OSError):
            found = (folder / name).stat()
            parts.append(f"{found.st_mtime_ns}:{found.st_size}")
    return f"{folder.resolve()}|{'|'.join(parts)}"


class TransformersEstimator:
    """A depth model of `transformers`, in float32 where its weights are; on the CPU if memory runs out there.

    Args:
        network: a `...ForDepthEstimation`: pixel values (1, 3, h, w) -> `predicted_depth` (1, h', w').
        processor: its image processor: uint8 (H, W, 3) -> pixel values.
        metric: whether it returns metres rather than inverse depth.
        key: see `Estimator.key`.
        name: shown to the user as the map's origin.
    """

    def __init__(self, network: Any, processor: Any, *, metric: bool, key: str, name: str) -> None:
        self._network, self._processor, self._metric = network, processor, metric
        self._key, self._name = key, name

    @property
    def key(self) -> str:
        """See `Estimator.key`."""
        return self._key

    @property
    def network(self) -> torch.nn.Module:
        """The network, for a host that moves it between devices itself."""
        network: torch.nn.Module = self._network
        return network

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """See `Estimator.estimate`.

        The values are those of transformers' own depth estimation pipeline, at the network's resolution instead of the
        picture's, except where its padding has to be cut off again (ZoeDepth). Metres become 1 / metres.
        """
        whole = bool(getattr(self._processor, "do_pad", False)) or not self._processor.do_resize
        seen = prepared(images.to_float(picture), longest=LONGEST_SIDE if whole else None)
        with refused(f"The depth estimator {self._name} failed.", "Choose another estimator."):
            pixels = self._processor(images=seen, return_tensors="pt")["pixel_values"]
            size = seen.shape[0], seen.shape[1]
            depth, notice = or_on_cpu(lambda device: self._depth(pixels, size, device))
        [found] = maps_of(depth[None], 1, self._name, notice)
        if not self._metric:
            return found
        return dataclasses.replace(found, values=1.0 / np.maximum(found.values, NEAREST))

    def _depth(self, pixels: torch.Tensor, size: tuple[int, int], device: torch.device | None) -> torch.Tensor:
        """Run the network on the pixel values of a picture of that size, (h, w)."""
        import torch

        with torch.no_grad(), in_float32(self._network, device) as at, without_autocast(at):
            return self._unpadded(self._network(pixels.to(at, torch.float32)), size)

    def _unpadded(self, output: Any, size: tuple[int, int]) -> torch.Tensor:
        """Return depth (h, w) without the border that ZoeDepth's processor adds around a picture of that size."""
        depth: torch.Tensor = output.predicted_depth[0]
        if type(self._processor).__name__.startswith("ZoeDepth") and self._processor.do_pad:
            depth = self._processor.post_process_depth_estimation(output, source_sizes=[size])[0]["predicted_depth"]
        return depth


def prepared(picture: npt.NDArray[np.float32], *, longest: int | None) -> npt.NDArray[np.uint8]:
    """Convert a picture to uint8 (H, W, 3) for the processors, at its own size unless that is extreme.

    Args:
        picture: float32 (H, W, 3), 0..1; may reach beyond by rounding.
        longest: bound of the longer side; None leaves only that of the proportions, `STEEPEST`.
    """
    height, width = picture.shape[:2]
    scale = 1.0 if longest is None else min(1.0, longest / max(height, width))
    limit = STEEPEST * max(SHORTEST_SIDE, round(scale * min(height, width)))
    new_width, new_height = (max(SHORTEST_SIDE, min(limit, round(scale * side))) for side in (width, height))
    if (new_width, new_height) != (width, height):
        picture = np.asarray(cv2.resize(picture, (new_width, new_height), interpolation=cv2.INTER_AREA), np.float32)
    done: npt.NDArray[np.uint8] = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return done


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
    config, processing = _read(folder / CONFIG), _read(folder / PROCESSOR)
    network_class, processor_class = _classes(str(config.get("model_type")), name)
    _check_weights(folder, name)
    unfit = f"The weights of the depth estimator {name} do not fit its configuration."
    with refused(f"The depth estimator {name} cannot be loaded.", "Get its files again, or choose another."):
        for described in (config, processing):
            _check(described, name)
        processor = processor_class.from_dict(_plain(processing))
        network, found = network_class.from_pretrained(
            str(folder),
            config=network_class.config_class.from_dict(_plain(config)),
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
            fix=f"Known are: {', '.join(FAMILIES)}.",
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
            fix="Use a DPT model (MiDaS) instead. In the WebUI leave transformers as it is: the WebUI needs its own "
            "version.",
        )
    return classes


def _check_weights(folder: Path, name: str) -> None:
    if (folder / WEIGHTS).is_file():
        return
    if not (folder / INDEX).is_file():
        raise EstimatorError(
            f"The depth estimator {name} has no weights as safetensors.",
            got=", ".join(sorted(path.name for path in folder.glob("*model*"))[:4]) or "no weights",
            fix=f"Put {WEIGHTS} into its folder; other kinds of weights are not read.",
        )
    shards = _read(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) and SHARD.fullmatch(s) for s in shards.values()):
        raise EstimatorError(f"{INDEX} of the depth estimator {name} is damaged.", fix="Get its files again.")


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    Raises:
        EstimatorError: it cannot be read, or is not a JSON object.
    """
    fix = "A folder needs config.json, preprocessor_config.json and model.safetensors."
    with (
        refusing(f"{path.name} of a depth estimator cannot be read.", EstimatorError, fix=fix),
        path.open("rb") as file,
    ):
        content = file.read(LARGEST_JSON + 1)
    try:
        found = json.loads(content) if len(content) <= LARGEST_JSON else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EstimatorError(f"{path.name} of a depth estimator is damaged.", fix="Get its files again.")
    return found


def _check(described: Any, name: str) -> None:
    """Refuse what would fill the memory or fetch further files."""
    if isinstance(described, Mapping):
        for wanted in ("use_pretrained_backbone", "use_timm_backbone", "backbone"):
            if described.get(wanted):
                raise EstimatorError(
                    f"The depth estimator {name} asks for a further model.",
                    got=f"{wanted} {str(described[wanted])[:60]}",
                    fix="Use one whose folder holds all of it.",
                )
        described = [*described.values()]
    if isinstance(described, list):
        for value in described:
            _check(value, name)
    elif isinstance(described, int) and abs(described) > LARGEST_NUMBER:
        raise EstimatorError(
            f"The depth estimator {name} has a number in its configuration that no depth model has.",
            got=str(described)[:20],
            fix=f"The largest that is taken is {LARGEST_NUMBER}.",
        )


def _plain(described: Any) -> Any:
    """Copy a configuration without the entries that name code, kernels or types."""
    notes = ("auto_map", "attn_implementation", "quantization_config", "torch_dtype", "dtype", "architectures")
    if isinstance(described, Mapping):
        return {
            key: _plain(value)
            for key, value in described.items()
            if not key.startswith("_") and key not in (*notes, "transformers_version")
        }
    return [_plain(value) for value in described] if isinstance(described, list) else described


def refused(what: str, fix: str) -> AbstractContextManager[None]:
    """Turn exceptions about a model's files into an `EstimatorError`."""
    from safetensors import SafetensorError

    def describe(problem: Exception) -> str:
        return f"{type(problem).__name__} {' '.join(str(problem).split())[:160]}".strip()

    return refusing(what, EstimatorError, on=(*FAILURES, SafetensorError), got=describe, fix=fix)
