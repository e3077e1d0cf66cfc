"""Depth estimators whose networks ComfyUI moves between card and memory, as it does with all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from depth2img import DepthMap, Estimator
from depth2img.checkpoints import Model
from depth2img.diffusion.networks import build_estimator
from depth2img.errors import OptionError, command
from depth2img.estimators import base, files

WORKING_MEMORY: Final = 2**30
"""Bytes that the host is asked to keep free beside the weights: DPT-hybrid takes about as much for 384 x 384."""


@dataclasses.dataclass(frozen=True, eq=False)
class Managed:
    """The value of a DEPTH_ESTIMATOR connection.

    Attributes:
        estimator: the library's.
        patcher: the host's handle on its network; None for an estimator that looks after itself.
    """

    estimator: Estimator
    patcher: Any = None

    def estimate_all(self, pictures: Sequence[npt.NDArray[np.float32]]) -> list[DepthMap]:
        """Estimate one map of each picture, float32 (H, W, 3), 0..1.

        Raises:
            EstimatorError: no map came out.
        """
        if self.patcher is not None:
            from comfy.model_management import load_models_gpu

            load_models_gpu([self.patcher], memory_required=WORKING_MEMORY, force_full_load=True)
        return [self.estimator.estimate(one) for one in pictures]


def of_checkpoint(model: Model) -> Managed:
    """Make the estimator of a checkpoint's own depth network.

    Raises:
        CheckpointError: its weights do not fit.
    """
    with torch.inference_mode(False):  # its weights are put aside and back, which inference tensors do not allow
        estimator = build_estimator(model, device=torch.device("cpu"))
    return Managed(estimator, _patcher(estimator.network))


def names() -> list[str]:
    """List the estimators that can be loaded by name."""
    return [*base.names(), *(name for name in sorted(_found()) if name not in base.names())]


def by_name(name: str) -> Managed:
    """Load an estimator.

    Raises:
        OptionError: there is none of that name.
        EstimatorError: it cannot be used.
    """
    if name in base.names():
        return Managed(base.get(name))
    path = _found().get(name)
    if path is None:
        raise OptionError(
            "estimator",
            "There is no such depth estimator.",
            got=f"'{name[:60]}'",
            fix=f"Put a depth model, such as Depth-Anything-V2-Small.safetensors, into models/{files.FOLDER}; "
            f"{command('estimator', 'fetch', '-o', f'models/{files.FOLDER}')} gets it.",
        )
    with torch.inference_mode(False):
        estimator = files.open_estimator(path, device="cpu", name=name)
    return Managed(estimator, _patcher(estimator.network))


def _found() -> dict[str, Path]:
    import folder_paths

    return files.found_in(Path(folder_paths.models_dir) / files.FOLDER)


def _patcher(network: torch.nn.Module) -> Any:
    from comfy import model_management
    from comfy.model_patcher import ModelPatcher

    return ModelPatcher(
        network,
        load_device=model_management.get_torch_device(),
        offload_device=model_management.unet_offload_device(),
    )
