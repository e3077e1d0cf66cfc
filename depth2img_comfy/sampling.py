"""Bring depth into ComfyUI's sampling, by two wrappers of a MODEL; nothing of the host is changed.

When a run begins, each prompt gets its conditioning at the size of the run's latent, whatever latent the node saw, and
each of its rows a mark that says which prompt it is of. Before the UNet, rows are weakened as the schedule says. Order
and number of the rows are the host's business: it makes the batches, cuts areas and leaves out halves.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch

from depth2img import NoDepthError, NoDepthModelError, neutral

from .applied import KEY, Applied, Part, constant, is_unconditional, place, scheduled

MARK: Final = "depth2img_part"
"""Name of the marks among what the host batches: float (rows, 1) on the CPU, so that reading them waits for nothing."""

DEPTH_CHANNELS: Final = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of a sampler.

    Attributes:
        parts: what the marks mean.
        sigmas: the noise levels.
        guider: asked for its CFG scale at each step.
    """

    parts: tuple[Part, ...]
    sigmas: tuple[float, ...]
    guider: Any

    def rows(self, concat: torch.Tensor, marks: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Return the conditioning of one call of the UNet; see `applied.scheduled`."""
        if constant(self.parts):
            return concat
        step, total = place(self.sigmas, float(sigma.flatten()[0]))
        marked = [int(mark) for mark in marks.flatten().tolist()]
        return scheduled(concat, marked, self.parts, step=step, total=total, cfg_scale=float(self.guider.cfg))


def with_depth(model: Any) -> Any:
    """Return a MODEL that does what prompts with depth ask for; one that does so already is not wrapped twice.

    Raises:
        NoDepthModelError: its UNet does not take depth.
    """
    channels = int(model.model.model_config.unet_config.get("in_channels", 0))
    if channels != DEPTH_CHANNELS:
        raise NoDepthModelError(
            "This model does not take depth.",
            got=f"a UNet with {channels} input channels",
            fix="Use 'Load depth checkpoint' with a depth checkpoint, such as 512-depth-ema.",
        )
    from comfy.patcher_extension import WrappersMP

    model = model.clone()
    for kind, wrapper in ((WrappersMP.SAMPLER_SAMPLE, _sample), (WrappersMP.APPLY_MODEL, _apply_model)):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def _sample(
    executor: Any,
    guider: Any,
    sigmas: torch.Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: torch.Tensor,
    latent_image: torch.Tensor | None = None,
    denoise_mask: torch.Tensor | None = None,
    disable_pbar: bool = False,
) -> Any:
    """Wrap a sampler's run: conditioning at its latent's size, and the noise alone where colours are ignored."""
    applied = [cond[KEY] for prompts in guider.conds.values() for cond in prompts if KEY in cond]
    if not applied:
        raise NoDepthError(
            "The model comes from 'Apply depth', but the prompts do not.",
            fix="Connect positive and negative of 'Apply depth' with the sampler, too.",
        )
    guider.conds, parts = _conditioned(guider.conds, noise)
    options = extra_args["model_options"].setdefault("transformer_options", {})
    options[KEY] = Run(parts, tuple(sigmas.tolist()), guider)
    if any(one.options.ignore_colours for one in applied) and executor.class_obj.max_denoise(guider, sigmas):
        latent_image = without_colours(latent_image, denoise_mask)
    return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)


def _conditioned(
    conds: dict[str, list[dict[str, Any]]], noise: torch.Tensor
) -> tuple[dict[str, list[dict[str, Any]]], tuple[Part, ...]]:
    from comfy.conds import CONDNoiseShape, CONDRegular

    batch, height, width = int(noise.shape[0]), int(noise.shape[-2]), int(noise.shape[-1])
    made: dict[int, torch.Tensor] = {}
    parts: list[Part] = []

    def conditioned(name: str, cond: dict[str, Any]) -> dict[str, Any]:
        applied: Applied | None = cond.get(KEY)
        size = {"height": height, "width": width}
        if id(applied) not in made:
            concat = neutral(batch, **size) if applied is None else applied.conditioning(batch, **size)
            made[id(applied)] = concat.to(noise.device)
        mark = -1 if applied is None else len(parts)
        if applied is not None:
            parts.append(Part(applied.options, is_unconditional(name)))
        more = {"c_concat": CONDNoiseShape(made[id(applied)]), MARK: CONDRegular(torch.tensor([[float(mark)]]))}
        return {**cond, "model_conds": {**cond["model_conds"], **more}}

    found = {name: [conditioned(name, cond) for cond in prompts] for name, prompts in conds.items()}
    return found, tuple(parts)


def without_colours(latent: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
    """Take the picture out of a latent where all of it is repainted: everywhere, or where the mask is fully white."""
    if latent is None or mask is None:
        return None if latent is None else torch.zeros_like(latent)
    return torch.where(mask >= 1, torch.zeros_like(latent), latent)


def _apply_model(
    executor: Any,
    x: torch.Tensor,
    t: torch.Tensor,
    c_concat: torch.Tensor | None = None,
    c_crossattn: Any = None,
    control: Any = None,
    transformer_options: Any = None,
    **more: Any,
) -> Any:
    """Wrap a call of the UNet: weaken the rows of the conditioning as the schedule says."""
    transformer_options = transformer_options or {}
    marks, run = more.pop(MARK, None), transformer_options.get(KEY)
    if run is not None and marks is not None and c_concat is not None:
        c_concat = run.rows(c_concat, marks, t)
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **more)
