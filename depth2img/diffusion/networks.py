"""The networks of a depth model in memory, in the classes of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn

from ..checkpoints.layout.config import Config
from ..checkpoints.layout.keys import Component
from ..checkpoints.layout.ldm_yaml import DEFAULT_SCALE
from ..checkpoints.model import Model
from ..embedded.depth_net import TinyDepthNet
from ..errors import CheckpointError
from ..estimators.midas import MidasEstimator
from . import libraries

LATENT_FACTOR: Final = 8
"""Pixels to a latent's cell, each way, of an autoencoder with four levels."""


@dataclass(frozen=True)
class Networks:
    """One depth model, ready to run.

    Attributes:
        name: the name that it was opened by.
        unet: `UNet2DConditionModel`: (B, 5, h, w), time steps, text states -> noise (B, 4, h, w).
        vae: `AutoencoderKL`: RGB (B, 3, H, W) in -1..1 <-> latents (B, 4, H/8, W/8).
        text_encoder: `CLIPTextModel`: ids (B, 77) -> states (B, 77, width).
        estimator: its own depth network, in float32.
        scheduler: configuration of a diffusers scheduler.
        scale: factor of latents, after the encoder and before the decoder.
        side: the side in pixels that it was trained at.
        cfg_scale: its default guidance.
        device, dtype: of the UNet, the autoencoder and the text encoder.
        settle: brings the weights to where changes of them last; called before they are changed.
        texts: chunk of a prompt -> its states (1, 77, width), the cache of `text.encode_text`.
    """

    name: str
    unet: Any
    vae: Any
    text_encoder: Any
    estimator: MidasEstimator
    scheduler: Config
    scale: float
    side: int
    cfg_scale: float
    device: torch.device
    dtype: torch.dtype
    settle: Callable[[], None] = lambda: None
    texts: dict[Hashable, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)


class DptNetwork(nn.Module):
    """transformers' DPT with the interface of Stability's MiDaS, for pictures of any proportions.

    Its own `forward` takes squares only: its embeddings refuse other sizes, and its neck would reshape the patches of
    32 x 128 pixels into a square. Here its parts are called one by one, with the grid's real sides.

    Args:
        estimator: `DPTForDepthEstimation`, hybrid.
    """

    def __init__(self, estimator: nn.Module) -> None:
        super().__init__()
        self.estimator: Any = estimator

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Map float (B, 3, h, w), -1..1, sides multiples of 32, to inverse depth (B, 1, h, w), larger = nearer."""
        network, size = self.estimator, (int(picture.shape[-2]), int(picture.shape[-1]))
        patch, taps = int(network.config.patch_size), network.config.backbone_out_indices[2:]
        network.dpt.embeddings.image_size = size  # compared with the picture, and used for nothing else
        seen = network.dpt(picture, output_hidden_states=True)
        # The first hidden state is the embeddings; a hybrid's first two taps are in its ResNet.
        features = [*seen.intermediate_activations, *(seen.hidden_states[tap + 1] for tap in taps)]
        depth = network.head(network.neck(features, size[0] // patch, size[1] // patch))[:, None]
        return torch.nn.functional.interpolate(depth, size=size, mode="bicubic", align_corners=False)


SD2_CFG_SCALE: Final = 7.0
TINY_CFG_SCALE: Final = 4.0
SD2_SIDE: Final = 512
"""Bound of `Networks.side`: the published folder's `sample_size` is the latent's side, 64."""


def build(model: Model, *, device: torch.device, dtype: torch.dtype) -> Networks:
    """Build the networks of a model, with its weights.

    The depth network stays in float32 regardless of `dtype`.

    Raises:
        CheckpointError: the weights do not fit their configurations.
        LibraryError: the installed diffusers or transformers does not fit.
    """
    with libraries.needed():
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

    config = model.config
    scale = float(config.vae.get("scaling_factor", DEFAULT_SCALE))
    with torch.device("meta"):
        empty: dict[Component, nn.Module] = {
            "unet": UNet2DConditionModel.from_config(public_config(config.unet)),
            "vae": AutoencoderKL.from_config(public_config(config.vae)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**public_config(config.text_encoder))),
        }
    for component, network in empty.items():
        _fill(network, model, component, device, dtype)
    return Networks(
        name=model.name,
        unet=empty["unet"],
        vae=empty["vae"],
        text_encoder=empty["text_encoder"],
        estimator=build_estimator(model, device=device),
        scheduler=config.scheduler,
        scale=scale,
        side=min(int(config.unet.get("sample_size") or 64) * LATENT_FACTOR, SD2_SIDE),
        cfg_scale=SD2_CFG_SCALE if config.is_midas else TINY_CFG_SCALE,
        device=device,
        dtype=dtype,
    )


def build_estimator(model: Model, *, device: torch.device) -> MidasEstimator:
    """Build the depth network of a model alone, in float32; nothing else of the model is read.

    Raises:
        CheckpointError: the weights do not fit their configuration.
    """
    midas = model.config.is_midas
    with torch.device("meta"):
        network = _empty_depth(model.config.depth_estimator)
    _fill(network, model, "depth_estimator", device, torch.float32)
    network = DptNetwork(network) if midas else network
    name = "MiDaS" if midas else "bundled network"
    return MidasEstimator(network, key=f"{model.name}:{id(network)}", name=name)


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a configuration without its metadata (names with an underscore, the types it was saved in)."""
    notes = ("torch_dtype", "dtype", "transformers_version", "architectures")
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in notes}


def _empty_depth(config: Config) -> nn.Module:
    if "target" in config:  # `config.checked` lets no other target through
        return TinyDepthNet(tuple(int(width) for width in config["channels"]))
    with libraries.needed():
        from transformers import DPTConfig, DPTForDepthEstimation

    network: nn.Module = DPTForDepthEstimation(DPTConfig(**public_config(config)))
    return network


def _fill(network: nn.Module, model: Model, component: Component, device: torch.device, dtype: torch.dtype) -> None:
    part, known = model.parts[component], network.state_dict().keys()
    state = {}
    for name in part.keys():
        tensor = part.get(name)
        kind = dtype if tensor.is_floating_point() else None
        state[libraries.stored_name(name, known)] = tensor.to(device=device, dtype=kind)
    libraries.check_names(network, state.keys())
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as problem:
        raise CheckpointError(
            f"The {component} of {model.name} does not fit its configuration.",
            got=" ".join(str(problem).split())[:160],
            fix="Get the checkpoint again, or put its own YAML next to it.",
        ) from problem
    for owner in network.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta:  # the only buffer that is not stored: CLIP's position ids
                owner.register_buffer(name, torch.arange(buffer.shape[-1], device=device)[None], persistent=False)
    network.eval().requires_grad_(False)
