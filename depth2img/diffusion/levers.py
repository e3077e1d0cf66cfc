"""What makes a model faster on a graphics card, or smaller: networks in, networks out.

On the CPU none of this is used unless somebody asks for it, and pictures stay the same to the bit.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .networks import Networks
from .replay import Replayed


def is_cuda(device: torch.device) -> bool:
    """Tell whether a device is an NVIDIA card: torch calls AMD's `cuda` too, and it behaves differently."""
    return device.type == "cuda" and torch.version.hip is None


def tuned(networks: Networks) -> Networks:
    """The networks as they run fastest on their device without any preparation that takes a user's time."""
    if not is_cuda(networks.device):
        return networks
    return replayed(innermost_norms(channels_last(fused(networks))))


def channels_last(networks: Networks) -> Networks:
    """UNet and autoencoder with their channels innermost, as tensor cores want them; changed in place."""
    for network in (networks.unet, networks.vae):
        network.to(memory_format=torch.channels_last)
    return networks


def innermost_norms(networks: Networks) -> Networks:
    """Norms that keep channels innermost, where torch's own for cards turns them outermost; changed in place."""
    for network in (networks.unet, networks.vae):
        for owner in list(network.modules()):
            for name, child in list(owner.named_children()):
                if type(child) is nn.GroupNorm:
                    setattr(owner, name, InnermostNorm(child))
    return networks


class InnermostNorm(nn.Module):
    """`GroupNorm` that reads and writes pictures with their channels innermost.

    Args:
        norm: with weight and bias, which are shared.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.num_groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Any float (B, C, h, w) -> the same, normed over each group of channels and all places."""
        if values.ndim != 4:
            return nn.functional.group_norm(values, self.num_groups, self.weight, self.bias, self.eps)
        count, channels, height, width = values.shape
        values = values.contiguous(memory_format=torch.channels_last)
        rows = values.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        # Of each channel first, along memory; the few numbers that come out are summed over the groups.
        groups = (count, self.num_groups, channels // self.num_groups)
        mean = rows.mean(1, dtype=torch.float32).view(groups).mean(2, keepdim=True)
        power = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).square() / (height * width)
        variance = (power.view(groups).mean(2, keepdim=True) - mean.square()).clamp_min(0)
        weight = self.weight.float().view(1, *groups[1:]) * (variance + self.eps).rsqrt()
        bias = self.bias.float().view(1, *groups[1:]) - mean * weight
        shape = (count, channels, 1, 1)
        return torch.addcmul(bias.view(shape).to(values.dtype), values, weight.view(shape).to(values.dtype))


def fused(networks: Networks) -> Networks:
    """The UNet's attention with one product for query, key and value (cross-attention: key and value); in place."""
    networks.unet.fuse_qkv_projections()
    for module in networks.unet.modules():
        if hasattr(module, "to_qkv"):
            del module.to_q, module.to_k, module.to_v
        elif hasattr(module, "to_kv"):
            del module.to_k, module.to_v
    networks.unet.requires_grad_(False)
    return networks


def replayed(networks: Networks) -> Networks:
    """Record the UNet's kernels at its first steps and replay them at the others; see `Replayed`."""
    return dataclasses.replace(networks, unet=Replayed(networks.unet))


def compiled(networks: Networks) -> Networks:
    """The UNet compiled at its first step for each size, which takes about a minute."""
    networks.unet.compile(dynamic=False)
    return networks


def release(networks: Networks) -> None:
    """Release the memory that is held only for speed."""
    if isinstance(networks.unet, Replayed):
        networks.unet.forget()
