"""Tensors that only the single-file layout has: how they are made where no file has them.

None of them is run when a picture is generated. They are there so that a written file has every name that `ldm`
expects, and so that strict loaders take it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from ..storage.writing import Lazy
from . import keys
from .config import Anatomy

LOGIT_SCALE: Final = math.log(1 / 0.07)
"""CLIP's logit scale before training."""

MIDAS_CLASSES: Final = 1000
"""Outputs of the classifier that MiDaS' backbone keeps from timm and never runs."""


def schedule(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The buffers of `ldm`'s noise schedule, float32 (steps,), by name.

    The formulas are those of Ho et al., "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), section 3, in
    float64; betas are linear in their square root between `beta_start` and `beta_end`.

    Args:
        config: of a diffusers scheduler; `beta_start`, `beta_end` and `num_train_timesteps` are read.
    """
    start, end = (math.sqrt(float(config[name])) for name in ("beta_start", "beta_end"))
    betas = torch.linspace(start, end, int(config["num_train_timesteps"]), dtype=torch.float64) ** 2
    alphas = 1.0 - betas
    kept = torch.cumprod(alphas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    variance = betas * (1.0 - before) / (1.0 - kept)
    values = {
        "betas": betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1.0 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1.0 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1.0 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1.0 / kept - 1.0).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1.0 - kept),
        "posterior_mean_coef2": (1.0 - before) * alphas.sqrt() / (1.0 - kept),
    }
    return {name: value.float() for name, value in values.items()}


def recreated(anatomy: Anatomy, dtype: torch.dtype) -> list[Lazy]:
    """The tensors that only the single file has.

    They are the noise schedule; the text encoder's projection (identity) and logit scale; its last layer where that
    is never run ("penultimate"; weights 0 and norms 1, which passes its input through); and the classifier that
    MiDaS' backbone never runs (zeros).

    Args:
        anatomy: the model's.
        dtype: element type of all but the schedule.
    """
    width = int(anatomy.text_encoder["hidden_size"])
    lazies = [Lazy(name, value.dtype, tuple(value.shape), _constant(value)) for name, value in _schedule(anatomy)]

    def add(name: str, shape: tuple[int, ...], make: Callable[[], torch.Tensor]) -> None:
        lazies.append(Lazy(name, dtype, shape, lambda: make().to(dtype)))

    add(keys.TEXT + "text_projection", (width, width), lambda: torch.eye(width))
    add(keys.TEXT + "logit_scale", (), lambda: torch.tensor(LOGIT_SCALE))
    if anatomy.penultimate:
        inner = int(anatomy.text_encoder["intermediate_size"])
        layer = keys.text_layer(int(anatomy.text_encoder["num_hidden_layers"]))
        for name, shape in text_layer_shapes(width, inner).items():
            fill = torch.ones if name in ("ln_1.weight", "ln_2.weight") else torch.zeros
            add(layer + name, shape, _filled(fill, shape))
    if anatomy.is_midas:
        hidden = int(anatomy.depth_estimator["hidden_size"])
        for name, shape in {"weight": (MIDAS_CLASSES, hidden), "bias": (MIDAS_CLASSES,)}.items():
            add(f"{keys.MIDAS}pretrained.model.head.{name}", shape, _filled(torch.zeros, shape))
    return lazies


def _schedule(anatomy: Anatomy) -> list[tuple[str, torch.Tensor]]:
    return list(schedule(anatomy.scheduler).items())


def _constant(value: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: value


def _filled(fill: Callable[[tuple[int, ...]], torch.Tensor], shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    return lambda: fill(shape)


def text_layer_shapes(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of one layer of OpenCLIP's text transformer, behind `keys.text_layer`."""
    return {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (inner, width),
        "mlp.c_fc.bias": (inner,),
        "mlp.c_proj.weight": (width, inner),
        "mlp.c_proj.bias": (width,),
    }
