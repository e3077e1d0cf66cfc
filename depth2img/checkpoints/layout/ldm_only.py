"""Tensors that only the single-file layout has, and their values where no file has them.

None of them is run when a picture is generated. They are there so that a written file has every name that `ldm`
expects, and so that strict loaders take it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..storage.tensors import Lazy
from . import keys
from .config import ModelConfig
from .key_map import text_layer_rows
from .keys import Shape

if TYPE_CHECKING:
    import torch

LOGIT_SCALE: Final = math.log(1 / 0.07)
"""CLIP's logit scale before training."""

MIDAS_CLASSES: Final = 1000
"""Outputs of the classifier that MiDaS' backbone keeps from timm and never runs."""


SCHEDULE: Final = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""Names of `ldm`'s buffers for the noise schedule, in the order in which `schedule` computes them."""


def schedule(config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the buffers of `ldm`'s noise schedule, float32 (steps,), by name.

    The formulas are those of Ho et al., "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), section 3, in
    float64; betas are linear in their square root between `beta_start` and `beta_end`.

    Args:
        config: of a diffusers scheduler; `beta_start`, `beta_end` and `num_train_timesteps` are read.
    """
    import torch

    start, end = (math.sqrt(float(config[name])) for name in ("beta_start", "beta_end"))
    betas = torch.linspace(start, end, _steps(config), dtype=torch.float64) ** 2
    alphas = 1.0 - betas
    kept = torch.cumprod(alphas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    variance = betas * (1.0 - before) / (1.0 - kept)
    values = (
        betas,
        kept,
        before,
        kept.sqrt(),
        (1.0 - kept).sqrt(),
        (1.0 - kept).log(),
        (1.0 / kept).sqrt(),
        (1.0 / kept - 1.0).sqrt(),
        variance,
        variance.clamp(min=1e-20).log(),
        betas * before.sqrt() / (1.0 - kept),
        (1.0 - before) * alphas.sqrt() / (1.0 - kept),
    )
    return {name: value.float() for name, value in zip(SCHEDULE, values, strict=True)}


def _steps(config: Mapping[str, Any]) -> int:
    return int(config["num_train_timesteps"])


def recreated(config: ModelConfig, dtype: torch.dtype) -> list[Lazy]:
    """Make the tensors that only the single file has.

    They are the noise schedule; the text encoder's projection (identity) and logit scale; its last layer where that
    is never run ("penultimate"; weights 0 and norms 1, which passes its input through); and the classifier that
    MiDaS' backbone never runs (zeros).

    Args:
        config: the model's.
        dtype: element type of all but the schedule.
    """
    import torch

    lazies = [
        Lazy(name, value.dtype, tuple(value.shape), partial(torch.clone, value))
        for name, value in schedule(config.scheduler).items()
    ]
    for name, (shape, fill) in _constants(config).items():
        make = partial(torch.eye, shape[0]) if fill is None else partial(torch.full, shape, fill)
        lazies.append(Lazy(name, dtype, shape, partial(_made, make, dtype)))
    return lazies


def _made(make: Callable[[], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    return make().to(dtype)


def _constants(config: ModelConfig) -> dict[str, tuple[Shape, float | None]]:
    """Return shape and value of the tensors besides the schedule, by name; the value None is the identity."""
    width = int(config.text_encoder["hidden_size"])
    found: dict[str, tuple[Shape, float | None]] = {
        keys.TEXT + "text_projection": ((width, width), None),
        keys.TEXT + "logit_scale": ((), LOGIT_SCALE),
    }
    if config.penultimate:
        inner = int(config.text_encoder["intermediate_size"])
        layer = keys.text_layer(int(config.text_encoder["num_hidden_layers"]))
        for name, _, shape, _ in text_layer_rows(width, inner):
            found[layer + name] = shape, 1.0 if name in ("ln_1.weight", "ln_2.weight") else 0.0
    if config.is_midas:
        hidden = int(config.depth_estimator["hidden_size"])
        head = f"{keys.MIDAS}pretrained.model.head."
        found |= {head + "weight": ((MIDAS_CLASSES, hidden), 0.0), head + "bias": ((MIDAS_CLASSES,), 0.0)}
    return found


def unused(config: ModelConfig) -> dict[str, Shape]:
    """Return the shapes of what `ldm` has besides and never runs, by name."""
    buffers = dict.fromkeys(SCHEDULE, (_steps(config.scheduler),))
    return {**buffers, **{name: shape for name, (shape, _) in _constants(config).items()}}
