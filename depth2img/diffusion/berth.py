"""Run on a card with little memory: the networks stay in host memory, and one at a time is on the card."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch
from torch import nn

from ..estimators.midas import MidasEstimator
from .networks import LATENT_FACTOR, Networks

TILE: Final = 512
"""Side in pixels up to which the autoencoder takes a whole picture; it processes larger ones in tiles of this side."""


class Berth:
    """The place on a card, for one network at a time.

    Nothing is copied back when a network leaves: its weights have stayed in host memory.

    Args:
        device: the card.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.guest: nn.Module | None = None
        self._originals: list[tuple[torch.Tensor, torch.Tensor]] = []

    def take(self, network: nn.Module) -> None:
        """Move a network to the card, and the one that is there off it.

        Raises:
            torch.cuda.OutOfMemoryError: it does not fit; then the place is empty.
        """
        if network is self.guest:
            return
        self.clear()
        self._originals = [(tensor, tensor.data) for tensor in (*network.parameters(), *network.buffers())]
        try:
            for tensor, data in self._originals:
                tensor.data = data.to(self.device)
        except BaseException:
            self.clear()
            raise
        self.guest = network

    def clear(self) -> None:
        """Move the network that is there off the card."""
        for tensor, data in self._originals:
            tensor.data = data
        self.guest, self._originals = None, []
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def invite(self, network: nn.Module) -> None:
        """Move a network to the card whenever it or one of its direct children is called."""
        for part in (network, *network.children()):
            part.register_forward_pre_hook(lambda *_: self.take(network))


class Visitor(nn.Module):
    """A network that moves to the card to compute.

    Args:
        network: with one input and one output.
        berth: the place on the card.
    """

    def __init__(self, network: nn.Module, berth: Berth) -> None:
        super().__init__()
        self.network = network
        self._berth = berth

    def forward(self, picture: torch.Tensor) -> Any:
        """See the network's own `forward`."""
        self._berth.take(self.network)
        return self.network.forward(picture.to(self._berth.device))


def visiting(networks: Networks, device: torch.device) -> Networks:
    """Make networks move to a card only while they compute, and the autoencoder process large pictures in tiles.

    Args:
        networks: in host memory; changed in place.
        device: the card.
    """
    berth = Berth(device)
    for network in (networks.unet, networks.vae, networks.text_encoder):
        berth.invite(network)
    vae = networks.vae
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = TILE, TILE // LATENT_FACTOR
    own = networks.estimator
    estimator = MidasEstimator(Visitor(own.network, berth), key=own.key, name=own.name)
    return dataclasses.replace(networks, estimator=estimator, device=device, settle=berth.clear)
