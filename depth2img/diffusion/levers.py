"""Make models faster on a graphics card: networks in, networks out.

On the CPU none of this is used unless somebody asks for it, and pictures stay the same to the bit. What was tried on a
card and lost is in docs/performance.md.
"""

from __future__ import annotations

import dataclasses

import torch

from .networks import Networks
from .replay import Replayed


def is_cuda(device: torch.device) -> bool:
    """Tell whether a device is an NVIDIA card: torch calls AMD's `cuda` too, and it behaves differently."""
    return device.type == "cuda" and torch.version.hip is None


def tuned(networks: Networks) -> Networks:
    """Apply every optimisation for the networks' device that needs no noticeable preparation."""
    return replayed(networks) if is_cuda(networks.device) else networks


def replayed(networks: Networks) -> Networks:
    """Record the UNet's kernels at its first steps and replay them at the others; see `Replayed`."""
    return dataclasses.replace(networks, unet=Replayed(networks.unet))


def compiled(networks: Networks) -> Networks:
    """Compile the UNet at its first step for each size, which takes about a minute.

    Its weights have their channels innermost, as the compiler wants them for convolutions; changed in place.
    """
    networks.unet.to(memory_format=torch.channels_last)
    networks.unet.compile(dynamic=False)
    return networks


def release(networks: Networks) -> None:
    """Release the memory that is held only for speed."""
    if isinstance(networks.unet, Replayed):
        networks.unet.forget()
