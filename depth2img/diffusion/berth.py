"""Little memory on a card: a model's networks wait in the computer's own, and one at a time is on the card."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch
from torch import nn

from ..estimators.midas import MidasEstimator
from .networks import LATENT_FACTOR, Networks

TILE: Final = 512
"""Side in pixels up to which the autoencoder takes a picture whole; larger ones go through it in tiles of this side."""


class Berth:
    """The place on a card, for one network at a time.

    What leaves it is not copied back: the weights that stayed in the computer's memory take over again.

    Args:
        device: the card.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.guest: nn.Module | None = None
        self._originals: list[tuple[torch.Tensor, torch.Tensor]] = []

    def take(self, network: nn.Module) -> None:
        """Bring a network to the card, and the one that is there away.

        Raises:
            torch.cuda.OutOfMemoryError: it does not fit; then none is there.
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
        """Bring the network that is there away."""
        for tensor, data in self._originals:
            tensor.data = data
        self.guest, self._originals = None, []
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def invite(self, network: nn.Module) -> None:
        """Let a network come whenever a part of it is called that is asked for by name from outside."""
        for part in (network, *network.children()):
            part.register_forward_pre_hook(lambda *_: self.take(network))


class Visitor(nn.Module):
    """A network that computes on the card, wherever its weights are said to be.

    Args:
        network: with one input and one output.
        berth: the place on the card.
    """

    def __init__(self, network: nn.Module, berth: Berth) -> None:
        super().__init__()
        self.network = network
        self._berth = berth

    def forward(self, picture: torch.Tensor) -> Any:
        """See the network's own."""
        self._berth.take(self.network)
        return self.network.forward(picture.to(self._berth.device))


def visiting(networks: Networks, device: torch.device) -> Networks:
    """Networks that are on a card only while they compute, and an autoencoder that makes large pictures in tiles.

    Args:
        networks: in the computer's memory; changed in place.
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
    return dataclasses.replace(networks, estimator=estimator, device=device)
