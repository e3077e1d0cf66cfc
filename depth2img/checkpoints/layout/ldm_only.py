"""Tensors that only the single-file layout has, and their values where no file has them.

None of them is run when a picture is generated. They are there so that a written file has every name that `ldm`
expects, and so that strict loaders take it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import torch

from ..storage.tensors import Lazy
from . import keys
from .config import ModelConfig
from .key_map import text_layer_rows
from .keys import Shape

LOGIT_SCALE: Final = math.log(1 / 0.07)
"""CLIP's logit scale before training."""

MIDAS_CLASSES: Final = 1000
"""Outputs of the classifier that MiDaS' backbone keeps from timm and never runs."""


def schedule(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the buffers of `ldm`'s noise schedule, float32 (steps,), by name.

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


def recreated(config: ModelConfig, dtype: torch.dtype) -> list[Lazy]:
    """Make the tensors that only the single file has.

    They are the noise schedule; the text encoder's projection (identity) and logit scale; its last layer where that
    is never run ("penultimate"; weights 0 and norms 1, which passes its input through); and the classifier that
    MiDaS' backbone never runs (zeros).

    Args:
        config: the model's.
        dtype: element type of all but the schedule.
    """
    width = int(config.text_encoder["hidden_size"])
    lazies = [
        Lazy(name, value.dtype, tuple(value.shape), partial(torch.clone, value))
        for name, value in schedule(config.scheduler).items()
    ]

    def add(name: str, shape: Shape, make: Callable[[], torch.Tensor]) -> None:
        lazies.append(Lazy(name, dtype, shape, lambda: make().to(dtype)))

    add(keys.TEXT + "text_projection", (width, width), lambda: torch.eye(width))
    add(keys.TEXT + "logit_scale", (), lambda: torch.tensor(LOGIT_SCALE))
    if config.penultimate:
        inner = int(config.text_encoder["intermediate_size"])
        layer = keys.text_layer(int(config.text_encoder["num_hidden_layers"]))
        for name, _, shape, _ in text_layer_rows(width, inner):
            fill = torch.ones if name in ("ln_1.weight", "ln_2.weight") else torch.zeros
            add(layer + name, shape, partial(fill, shape))
    if config.is_midas:
        hidden = int(config.depth_estimator["hidden_size"])
        for name, shape in {"weight": (MIDAS_CLASSES, hidden), "bias": (MIDAS_CLASSES,)}.items():
            add(f"{keys.MIDAS}pretrained.model.head.{name}", shape, partial(torch.zeros, shape))
    return lazies


def unused(config: ModelConfig) -> dict[str, Shape]:
    """Return the shapes of what `ldm` has besides and never runs, by name."""
    return {lazy.key: lazy.shape for lazy in recreated(config, torch.float32)}
