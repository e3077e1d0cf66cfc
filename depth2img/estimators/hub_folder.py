"""A depth model's folder in the layout of the hub: its configurations and weights, read as numbers and names.

The folder holds `config.json`, `preprocessor_config.json`, and weights as safetensors. Nothing in it is executed, and
other kinds of weights are not read.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from ..errors import EstimatorError
from ..io.atomic import refusing

CONFIG: Final = "config.json"
PROCESSOR: Final = "preprocessor_config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
SHARD: Final = re.compile(r"[\w.-]+\.safetensors")
PATTERNS: Final = (CONFIG, PROCESSOR, WEIGHTS, INDEX, "model-*-of-*.safetensors")
"""The files of a folder, and those that are fetched from a repository on the hub."""

LARGEST_JSON: Final = 4 * 1024 * 1024
"""Bound of a configuration or an index of weights, in bytes."""

LARGEST_NUMBER: Final = 16384
"""Bound of the numbers in a configuration. The widest layer of any published depth model has 8,192 rows; a larger
number would fill the memory."""

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


def key_of(path: Path) -> str:
    """Name the model in a folder or file; the name changes with its weights and its configuration."""
    parts = []
    for one in [path / name for name in (CONFIG, PROCESSOR, WEIGHTS, INDEX)] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            found = one.stat()
            parts.append(f"{found.st_mtime_ns}:{found.st_size}")
    return f"{path.resolve()}|{'|'.join(parts)}"


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the files with a folder's weights.

    Raises:
        EstimatorError: there are none as safetensors, or their index is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise EstimatorError(
            f"The depth estimator {name} has no weights as safetensors.",
            got=", ".join(sorted(path.name for path in folder.glob("*model*"))[:4]) or "no weights",
            fix=f"Put {WEIGHTS} into its folder; other kinds of weights are not read.",
        )
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) and SHARD.fullmatch(s) for s in shards.values()):
        raise EstimatorError(f"{INDEX} of the depth estimator {name} is damaged.", fix="Get its files again.")
    return [folder / shard for shard in sorted(set(shards.values()))]


def read_json(path: Path) -> dict[str, Any]:
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


def check(described: Any, name: str) -> None:
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
            check(value, name)
    elif isinstance(described, int) and abs(described) > LARGEST_NUMBER:
        raise EstimatorError(
            f"The depth estimator {name} has a number in its configuration that no depth model has.",
            got=str(described)[:20],
            fix=f"The largest that is taken is {LARGEST_NUMBER}.",
        )


def plain(described: Any) -> Any:
    """Copy a configuration without the entries that name code, kernels or types."""
    notes = ("auto_map", "attn_implementation", "quantization_config", "torch_dtype", "dtype", "architectures")
    if isinstance(described, Mapping):
        return {
            key: plain(value)
            for key, value in described.items()
            if not key.startswith("_") and key not in (*notes, "transformers_version")
        }
    return [plain(value) for value in described] if isinstance(described, list) else described


def refused(what: str, fix: str) -> AbstractContextManager[None]:
    """Turn exceptions about a model's files into an `EstimatorError`."""
    from safetensors import SafetensorError

    def describe(problem: Exception) -> str:
        return f"{type(problem).__name__} {' '.join(str(problem).split())[:160]}".strip()

    return refusing(what, EstimatorError, on=(*FAILURES, SafetensorError), got=describe, fix=fix)
