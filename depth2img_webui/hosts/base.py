"""Values and functions that a host's adapter and the jobs exchange, independent of any host's layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from depth2img import Estimator


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One call of the denoising network, as a host is about to make it.

    Attributes:
        p: the job.
        latent: (N, C, h, w), one row per picture.
        given: the conditioning that the host has for it, (N, c, ...); not always of the latent's size.
        number: of the call, from 0 in each pass of the job.
        total: how many calls the pass makes.
        cfg_scale: weight of the prompt at this step.
    """

    p: Any
    latent: torch.Tensor
    given: torch.Tensor
    number: int
    total: int
    cfg_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """The network's depth conditioning at one step, each (N, 1, h, w).

    Attributes:
        job: the conditioning before it was weakened for this step: what the host has at the steps to come.
        with_prompt: for the rows with the prompt.
        without: for the unconditional rows.
    """

    job: torch.Tensor
    with_prompt: torch.Tensor
    without: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Jobs:
    """Functions that a host's adapter calls during its jobs.

    Attributes:
        running: encloses a whole job.
        has_request: whether depth has a part in a job.
        img2img_conditioning: makes the conditioning of a pass that starts from pictures. Called with the host's
            function, the job, and the arguments of that function.
        txt2img_conditioning: the same for a pass that starts from noise, or from an upscaled latent.
        at_step: decides what the network gets at a step of a depth checkpoint; None leaves what the host has.
    """

    running: Callable[[Any], AbstractContextManager[None]]
    has_request: Callable[[Any], bool]
    img2img_conditioning: Callable[..., torch.Tensor]
    txt2img_conditioning: Callable[..., torch.Tensor]
    at_step: Callable[[Step], Halves | None]


class Host(Protocol):
    """Interface to the WebUI that the extension runs in; nothing else knows which one it is.

    A `model` is what the host calls a checkpoint: one in memory (`shared.sd_model`), or an entry of its list.
    """

    def apply(self, jobs: Jobs) -> None:
        """Take part in the host's jobs, and make it load depth checkpoints. Safe to call twice."""

    def undo(self) -> None:
        """Undo the patches, if they are there; the host takes back its callbacks itself."""

    def is_depth(self, model: Any | None) -> bool:
        """Tell whether a model is a depth checkpoint."""

    def own_estimator(self, model: Any) -> Estimator:
        """Return the depth network of a depth checkpoint.

        Raises:
            NoDepthModelError: it is not a depth checkpoint.
            CheckpointError: its depth network cannot be read.
        """

    def known(self) -> Any | None:
        """Return the checkpoint that jobs will use, as far as that is known without loading one."""

    def ready(self) -> Any:
        """Return the checkpoint that estimates outside of a job; it is loaded where its network is part of it."""

    def selected_is_depth(self) -> bool:
        """Tell whether the checkpoint of the drop-down is a depth checkpoint."""
