"""Take a group of jobs through the sampler: the first pass, and the hires pass where one is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from ..depth import schedule
from ..depth.adjustments import sequence_span
from ..depth.conditioning import conditioning, neutral
from ..depth.depth_map import DepthMap
from ..depth.placement import ResizeMode
from ..depth.resolve import PlacedMap, resolve
from ..depth.sources import Sources
from ..errors import Depth2ImgError
from ..estimators.devices import out_of_device_memory
from ..io.images import Picture, to_float
from ..prompts.tokens import PromptTokens
from . import levers, sampling
from .frames import Frame, latent_mask, resize
from .job import Generated, Job
from .library import LoraFile
from .networks import LATENT_FACTOR, Networks
from .sampling import Batch, Step
from .settings import Settings
from .text import Encoder, encode_text

Estimate: TypeAlias = Callable[[Mapping[int, tuple[Picture, str]], int], dict[int, DepthMap]]
"""Index -> (picture, estimator), and rows as in `Engine.run` -> index -> map."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A job that is ready for the sampler.

    Attributes:
        job: what was asked for.
        frame: its picture as it enters the sampler.
        sources: the payloads of its options.
        placed: its map in the frame; None where depth is off.
        prompts: as tokens, of each pass.
        loras: that the prompt asks for.
    """

    job: Job
    frame: Frame
    sources: Sources
    placed: PlacedMap | None
    prompts: tuple[PromptTokens, ...] = ()
    loras: tuple[LoraFile, ...] = ()


def run_passes(
    encoder: Encoder, group: Sequence[Prepared], rows: int, estimate: Estimate, on_step: Step | None
) -> list[Generated]:
    """Make the pictures of a group, without their infotext.

    Args:
        encoder: of the model.
        group: jobs of one kind, with frames of one size and prompts of one shape.
        rows: pictures in every pass of a network.
        estimate: estimates depth for a hires pass.
        on_step: called with the steps done and the steps in all, of both passes together.

    Raises:
        Depth2ImgError: the device has not enough memory.
    """
    networks, settings = encoder.networks, group[0].job.settings
    depth = _conditioning(group, group[0].frame.size)
    first, second = _steps_told(settings, on_step)
    try:
        with torch.no_grad():
            batch = _batch(encoder, group, depth).filled(rows)
            latents = sampling.sample(networks, batch, settings, settings.first_steps, first)
            if settings.hr_scale > 1:
                batch, group, depth = _enlarged(encoder, batch, latents, group, estimate)
                latents = sampling.sample(networks, batch, settings, settings.hires_steps, second)
            decoded = sampling.decode(networks, latents[: len(group)])
    except Exception as problem:
        if not out_of_device_memory(problem):
            raise
        levers.release(networks)
        width, height = group[0].frame.size
        raise Depth2ImgError(
            "There is not enough memory on the device.",
            got=f"{rows} pictures of {width} x {height}",
            fix="Make the pictures smaller, give fewer at a time, or ask for low memory.",
        ) from problem
    made = []
    for index, (one, result) in enumerate(zip(group, _pictures(decoded), strict=True)):
        placed = None if one.placed is None else one.placed.depth
        given = placed, depth[index : index + 1], one.job.settings.seed
        made.append(Generated(one.frame.finish(result), result, one.frame.picture, *given, infotext=""))
    return made


def _steps_told(settings: Settings, on_step: Step | None) -> tuple[Step | None, Step | None]:
    """Wrap a progress callback so that the two passes count as one."""
    if on_step is None or settings.hr_scale <= 1:
        return on_step, None
    count = settings.first_steps.run
    total = count + settings.hires_steps.run
    return lambda done, _: on_step(done, total), lambda done, _: on_step(count + done, total)


def _enlarged(
    encoder: Encoder, batch: Batch, latents: torch.Tensor, group: Sequence[Prepared], estimate: Estimate
) -> tuple[Batch, Sequence[Prepared], torch.Tensor]:
    """Enlarge the first pass's latents for the hires pass: its batch, its jobs with their maps, its conditioning.

    The steps and their order are the host's (`sample_hr_pass`, modules/processing.py, 1.10.1): the size is that of
    the first pass times the scale, cut to a multiple of 8; depth is estimated from the enlarged picture, or from the
    decoded enlarged latents.
    """
    settings, options, networks = group[0].job.settings, group[0].job.options, encoder.networks
    width, height = (int(side * settings.hr_scale) // LATENT_FACTOR * LATENT_FACTOR for side in group[0].frame.size)
    estimates = options.enabled and options.hires == "estimate"
    seen: list[Picture] = []
    if settings.hr_upscaler == "lanczos":
        decoded = _pictures(sampling.decode(networks, latents))
        seen = [resize(one, width, height, ResizeMode.JUST_RESIZE) for one in decoded]
        latents = sampling.encode(networks, _stacked(networks, seen), batch.generators)
    else:
        latents = sampling.enlarged(latents, height // LATENT_FACTOR, width // LATENT_FACTOR)
        if estimates:
            seen = _pictures(sampling.decode(networks, latents[: len(group)]))
    if estimates:
        wanted = {index: (seen[index], one.job.options.estimator) for index, one in enumerate(group)}
        group = _placed_again(group, [*estimate(wanted, len(latents)).values()])
    depth = _conditioning(group, (width, height))
    rows = sampling.repeated(depth.to(latents.device, latents.dtype), len(latents))
    text = [encode_text(encoder, one.prompts[-1]) for one in group]
    text += text[-1:] * (len(latents) - len(text))
    return dataclasses.replace(batch, latents=latents, depth=rows, text=text, from_noise=False), group, depth


def _placed_again(group: Sequence[Prepared], depths: Sequence[DepthMap]) -> list[Prepared]:
    """Give each job the map that was estimated for its hires pass."""
    placed = []
    for one, depth in zip(group, depths, strict=True):
        resolved = resolve(one.job.options, one.frame.framing, hires=True)
        span = sequence_span(one.job.options, depths)
        placed.append(one if resolved is None else dataclasses.replace(one, placed=resolved.place(depth, None, span)))
    return placed


def _conditioning(group: Sequence[Prepared], size: tuple[int, int]) -> torch.Tensor:
    """Make the conditioning, float32 (B, 1, h/8, w/8), for pictures of that width and height."""
    options = group[0].job.options  # jobs of one kind differ only in images
    width, height = size[0] // LATENT_FACTOR, size[1] // LATENT_FACTOR
    known = [one.placed for one in group if one.placed is not None]
    if not known:
        return neutral(len(group), height=height, width=width, level=options.neutral)
    depths, spans = [one.depth for one in known], [one.span for one in known]
    tensor = conditioning(depths, height=height, width=width, spans=spans)
    regions = [
        schedule.region_tensor(one.frame.placement.part(one.sources.region), height=height, width=width)
        for one in group
        if one.sources.region is not None
    ]
    return schedule.inside(tensor, torch.cat(regions) if regions else None, options.neutral)


def _batch(encoder: Encoder, group: Sequence[Prepared], depth: torch.Tensor) -> Batch:
    """Encode the pictures and the prompts of a group."""
    settings, options, networks = group[0].job.settings, group[0].job.options, encoder.networks
    device, dtype = networks.device, networks.dtype
    generators = [torch.Generator().manual_seed(one.job.settings.seed) for one in group]
    # The WebUI's noise is the generator's first; what it draws for the encoder comes from elsewhere, without a seed.
    of_encoder = None if settings.noise == "webui" else generators
    latents = sampling.encode(networks, _stacked(networks, [one.frame.picture for one in group]), of_encoder)
    keep = _keep([one.frame for one in group])
    if keep is not None:
        keep = keep.to(device, dtype)
        if settings.masked_content == "latent noise":
            latents = latents * keep + sampling.noise_like(latents, generators) * (1 - keep)
        elif settings.masked_content == "latent nothing":
            latents = latents * keep
    text = [encode_text(encoder, one.prompts[0]) for one in group]
    noise = options.enabled and options.ignore_colours and settings.denoising_strength == 1
    return Batch(latents, depth.to(device, dtype), keep, text, generators, options, noise)


def _stacked(networks: Networks, pictures: Sequence[Picture]) -> torch.Tensor:
    """Stack pictures of one size for the autoencoder: (B, 3, h, w), -1..1, on the model's device."""
    stacked = torch.from_numpy(np.stack([to_float(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return (2.0 * stacked - 1.0).to(networks.device, networks.dtype)


def _pictures(decoded: torch.Tensor) -> list[Picture]:
    """Convert float (B, 3, h, w), -1..1 and beyond, to uint8 (h, w, 3) each."""
    unit = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return [*(unit * 255).round().astype(np.uint8)]


def _keep(frames: Sequence[Frame]) -> torch.Tensor | None:
    """Make the mask of what stays of the pictures: float32 (B, 1, h, w) at the latent's size, 1 = stays."""
    width, height = frames[0].size[0] // LATENT_FACTOR, frames[0].size[1] // LATENT_FACTOR
    masks = [latent_mask(frame.mask, width, height) for frame in frames if frame.mask is not None]
    return 1 - torch.from_numpy(np.stack(masks))[:, None] if masks else None
