"""Forge and the relatives that have its backend.

Such a host takes the five-channel UNet of a depth checkpoint for an inpainting model's, and leaves out `depth_model`;
the network is read from the file instead. It loads a checkpoint when the first job needs it. The rows with the prompt
and those without go through the UNet with conditions of their own, and a conditioning of another size than the latent's
is dropped without a word: both are set here, at the function that runs the UNet, and checked.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from modules import patches, script_callbacks, sd_models, shared

from depth2img import Depth2ImgError, Estimator, embedded

from ..errors import stops_the_job
from . import compat, headers, sampling, sizes
from .base import Jobs, Step
from .networks import Networks

if TYPE_CHECKING:
    from depth2img.checkpoints.layout.config import ModelConfig

KEY: Final = __name__


class Forge:
    """See `base.Host`."""

    STEP: ClassVar = ("backend.sampling.sampling_function", "sampling_function_inner")
    """Module and function that run the UNet for both halves: (model, x, timestep, uncond, cond, cond_scale, ...)."""

    MODELS: ClassVar = "huggingface_guess.model_list"
    """Module with the list of models that the host recognises."""

    CONDITION: ClassVar = ("backend.sampling.condition", "Condition")
    """Module and class of a condition that is a tensor."""

    def __init__(self) -> None:
        self._networks = Networks()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def apply(self, jobs: Jobs) -> None:
        """See `base.Host.apply`."""
        self.undo()
        module = importlib.import_module(self.STEP[0])
        inner = getattr(module, self.STEP[1])

        def step(
            model: Any, x: Any, timestep: Any, uncond: Any, cond: Any, scale: float, *rest: Any, **named: Any
        ) -> Any:
            with stops_the_job("a step of the sampler"):
                self._at_step(jobs, x, uncond, cond, float(scale))
            return inner(model, x, timestep, uncond, cond, scale, *rest, **named)

        sampling.apply(jobs)
        sampling.note_the_denoiser()
        patches.patch(KEY, module, self.STEP[1], step)
        self._folder = tempfile.TemporaryDirectory(prefix="depth2img-")
        self.register_sizes(embedded.read_config(), Path(self._folder.name, "bundled"))
        script_callbacks.on_model_loaded(self._loaded)
        self._loaded(sd_models.model_data.sd_model)

    def undo(self) -> None:
        """See `base.Host.undo`."""
        sampling.undo()
        sampling.take_back(KEY, (importlib.import_module(self.STEP[0]), self.STEP[1]))
        self._networks.forget()
        sizes.forget(importlib.import_module(self.MODELS).models)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def register_sizes(self, config: ModelConfig, folder: Path) -> None:
        """Make the host recognise models of these sizes.

        Args:
            config: the sizes.
            folder: for what the host reads of them.
        """
        sizes.register_in_forge(config, folder)

    def is_depth(self, model: Any | None) -> bool:
        """See `base.Host.is_depth`."""
        config = self._unet_config(model)
        if config is not None:
            return bool(config.get("in_channels") == headers.DEPTH_CHANNELS)
        filename = getattr(model, "filename", None)
        return isinstance(filename, str) and headers.is_depth_file(filename)

    def _unet_config(self, model: Any | None) -> Any | None:
        """Return the UNet's configuration of a checkpoint in memory; None of an entry of the list."""
        return getattr(getattr(model, "model_config", None), "unet_config", None)

    def own_estimator(self, model: Any) -> Estimator:
        """See `base.Host.own_estimator`: it is read from the file."""
        if not self.is_depth(model):
            raise compat.no_depth_model(model)
        return self._networks.of(getattr(model, "sd_checkpoint_info", model).filename)

    def known(self) -> Any | None:
        """See `base.Host.known`: the checkpoint of the drop-down, which the next job loads."""
        return sd_models.select_checkpoint()

    def ready(self) -> Any:
        """See `base.Host.ready`."""
        return self.known()

    def selected_is_depth(self) -> bool:
        """See `base.Host.selected_is_depth`."""
        return self.is_depth(self.known())

    def _loaded(self, model: Any | None) -> None:
        """Tell the host that a depth checkpoint is not an inpainting model."""
        if model is not None and self.is_depth(model) and hasattr(model, "is_inpaint"):
            model.is_inpaint = False

    def _at_step(self, jobs: Jobs, x: torch.Tensor, uncond: Any, cond: Any, scale: float) -> None:
        """Set the depth of both halves of a step, lists of conditions; `uncond` is None where it is left out."""
        if not self.is_depth(shared.sd_model):
            return
        denoiser = sampling.DENOISER.get()
        if denoiser is None:
            raise sampling.unknown_job()
        extra = denoiser.sampler.sampler_extra_args
        given = extra["image_cond"]
        halves = jobs.at_step(
            Step(
                p=denoiser.p,
                latent=x,
                given=given,
                number=denoiser.step,
                total=sampling.calls(denoiser),
                cfg_scale=scale,
            )
        )
        if halves is not None:
            extra["image_cond"] = halves.job  # the sampler passes this on from the next step
        self._put(cond, given if halves is None else halves.with_prompt, x)
        self._put(uncond or [], given if halves is None else halves.without, x)

    def _put(self, half: Any, depth: torch.Tensor, x: torch.Tensor) -> None:
        wanted = (x.shape[0], 1, *x.shape[-2:])
        if tuple(depth.shape) != wanted:
            raise Depth2ImgError(
                "The depth conditioning does not fit the latent, and this WebUI would leave it out.",
                got=f"{tuple(depth.shape)} instead of {wanted}",
                fix="Please report this with the log and the names of other extensions.",
            )
        condition = getattr(importlib.import_module(self.CONDITION[0]), self.CONDITION[1])
        for one in half:
            one["model_conds"]["c_concat"] = condition(depth.to(x))
