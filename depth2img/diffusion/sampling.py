"""The denoising loop: from noisy latents, conditioned on text and depth, to a picture's latents."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from ..depth.schedule import conditional, unconditional
from ..errors import Depth2ImgError
from ..options import DepthOptions
from . import libraries
from .courses import Course, webui_course
from .networks import Networks
from .settings import SAMPLERS, Settings, Steps
from .text import StepText, Text, Texts

Step = Callable[[int, int], None]
"""Progress callback: called with the steps done and the steps in all."""

SCHEDULE: Final = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "steps_offset")
"""Settings that every sampler takes over from the model's own scheduler."""


@dataclass(frozen=True)
class Batch:
    """The input of the denoising loop, for B pictures.

    Attributes:
        latents: float (B, 4, h, w), of the pictures, scaled; "masked content" has been applied to them.
        depth: float (B, 1, h, w), the conditioning at full strength.
        keep: float (B, 1, h, w), 1 where the picture stays; None without masks.
        text: one per picture.
        generators: one per picture, on the CPU, so that a seed means the same on every device.
        options: decide the conditioning at each step; see `schedule`.
        from_noise: start from noise alone, except where `keep` is not 0.
    """

    latents: torch.Tensor
    depth: torch.Tensor
    keep: torch.Tensor | None
    text: Sequence[Text]
    generators: Sequence[torch.Generator]
    options: DepthOptions = dataclasses.field(default_factory=DepthOptions)
    from_noise: bool = False

    def filled(self, rows: int) -> Batch:
        """Pad the batch to `rows` pictures by repeating the last one.

        Kernels are chosen by shape, so that the last bits of a result depend on the size of its batch, unless that is
        fixed.
        """
        more = rows - len(self.latents)
        if more <= 0:
            return self
        return dataclasses.replace(
            self,
            latents=repeated(self.latents, rows),
            depth=repeated(self.depth, rows),
            keep=None if self.keep is None else repeated(self.keep, rows),
            text=[*self.text, *[self.text[-1]] * more],
            generators=[*self.generators, *(torch.Generator() for _ in range(more))],
        )


def repeated(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Pad rows to `count`, which is at least their number, by repeating the last one."""
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])


def make_scheduler(networks: Networks, sampler: str) -> Any:
    """Make a diffusers scheduler with the model's noise schedule.

    Args:
        networks: the model.
        sampler: a key of `settings.SAMPLERS`.
    """
    with libraries.needed():
        import diffusers

    chosen = SAMPLERS[sampler]
    own = {key: networks.scheduler[key] for key in SCHEDULE if key in networks.scheduler}
    fixed: dict[str, Any] = {"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False}
    kind = getattr(diffusers, chosen.scheduler)
    known = inspect.signature(kind.__init__).parameters
    wanted = fixed | own | dict(chosen.arguments)
    return kind(**{key: value for key, value in wanted.items() if key in known})


def noise_like(latents: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Draw normal noise on the CPU, each sample from its own generator."""
    shape = (1, *latents.shape[1:])
    drawn = [torch.randn(shape, generator=generator, dtype=latents.dtype) for generator in generators]
    return torch.cat(drawn).to(latents.device)


def encode(networks: Networks, pictures: torch.Tensor, generators: Sequence[torch.Generator] | None) -> torch.Tensor:
    """Encode pictures into latents, drawn from the encoder's distribution and scaled.

    Args:
        networks: the model.
        pictures: float (B, 3, H, W), -1..1, on the model's device.
        generators: one per picture; None takes the distribution's mean.

    Returns:
        (B, 4, H/8, W/8).
    """
    if generators is None:
        return (
            torch.cat([networks.vae.encode(picture[None]).latent_dist.mode() for picture in pictures]) * networks.scale
        )
    each = [
        networks.vae.encode(picture[None]).latent_dist.sample(generator=generator)
        for picture, generator in zip(pictures, generators, strict=True)
    ]
    return torch.cat(each) * networks.scale


def enlarged(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize latents (B, 4, h, w) as the host's upscaler "Latent" does: bilinear, no antialiasing."""
    return torch.nn.functional.interpolate(latents, size=(height, width), mode="bilinear", antialias=False)


def decode(networks: Networks, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents (B, 4, h, w) into pictures, float32 (B, 3, 8h, 8w) on the CPU, -1..1 and beyond.

    Raises:
        Depth2ImgError: the result is not finite.
    """
    # One at a time: a decoder needs more memory than anything else, and one picture keeps it busy. One copy to the CPU
    # for all of them waits for the card once.
    each = [networks.vae.decode(latent[None] / networks.scale).sample for latent in latents]
    pictures = torch.cat(each).float().cpu()
    if not bool(torch.isfinite(pictures).all()):
        raise Depth2ImgError(
            "The model produced NaN instead of a picture.",
            got=f"type {str(networks.dtype).removeprefix('torch.')} on {networks.device.type}",
            fix="Use float32, or check the checkpoint.",
        )
    return pictures


def sample(
    networks: Networks, batch: Batch, settings: Settings, steps: Steps, on_step: Step | None = None
) -> torch.Tensor:
    """Add noise for the starting timestep, then run the denoising loop.

    Where a mask keeps the picture, its own latents at the noise level of the step are put back after every step, so
    that the kept part equals the picture's at the end.

    Args:
        networks: the model.
        batch: the latents and their conditioning.
        settings: `sampler`, `noise`, `schedule_type` and `cfg_scale` are read.
        steps: of this pass.
        on_step: called after each step.

    Returns:
        (B, 4, h, w).
    """
    if steps.run == 0:
        return batch.latents
    course = _course(networks, settings, steps)
    scheduler, timesteps = course.scheduler, course.timesteps
    of_unet = timesteps.to(networks.device)
    noise = noise_like(batch.latents, batch.generators)
    start = _start(batch)
    latents = scheduler.add_noise(start, noise, course.start.repeat(len(start)))
    extra = _step_arguments(scheduler, batch.generators)
    guidance = settings.cfg_scale if settings.cfg_scale is not None else networks.cfg_scale
    texts = Texts(batch.text)
    for index, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        depth = (
            conditional(batch.depth, batch.options, index, len(timesteps)),
            unconditional(batch.depth, batch.options, index, len(timesteps), guidance),
        )
        predicted = _predict(networks, scaled, of_unet[index], texts.at(index), depth, guidance)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False, **extra)[0]
        if batch.keep is not None:
            original = batch.latents
            if index + 1 < len(timesteps):
                original = scheduler.add_noise(original, noise, timesteps[index + 1 : index + 2])
            latents = latents * (1 - batch.keep) + original * batch.keep
        if on_step is not None:
            on_step(index + 1, len(timesteps))
    result: torch.Tensor = latents
    return result


def _course(networks: Networks, settings: Settings, steps: Steps) -> Course:
    """Set a scheduler to the steps of a pass."""
    scheduler = make_scheduler(networks, settings.sampler)
    if settings.noise == "webui":
        return webui_course(scheduler, settings, steps)
    count = min(steps.of, int(scheduler.config.num_train_timesteps))  # the number of noise levels
    # On the CPU, where a scheduler looks its numbers up: on a card it would wait for each of them.
    scheduler.set_timesteps(count, device="cpu")
    begin = (count - steps.run) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps: torch.Tensor = scheduler.timesteps[begin:]
    return Course(scheduler, timesteps, timesteps[:1])


def _start(batch: Batch) -> torch.Tensor:
    """Choose the latents that the first noise is added to."""
    if not batch.from_noise:
        return batch.latents
    # Noise alone, as in the WebUI adapter (`hook.start_from_noise`); what a mask keeps is put back at each step.
    return torch.zeros_like(batch.latents) if batch.keep is None else torch.where(batch.keep > 0, batch.latents, 0.0)


def _step_arguments(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if takes else {}


def _predict(
    networks: Networks,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: StepText,
    depth: tuple[torch.Tensor, torch.Tensor],
    guidance: float,
) -> torch.Tensor:
    """Run the UNet with classifier-free guidance; `depth` is conditional, then unconditional.

    Each part of a prompt pulls away from the negative prompt with its own weight (`combine_denoised`,
    modules/sd_samplers_cfg_denoiser.py, 1.10.1; Liu et al. 2022, Compositional Visual Generation).
    """
    count = len(text.weights[0])
    conditioned = torch.cat([latents, depth[0]], dim=1).repeat_interleave(count, dim=0)
    plain = all(weights == (1.0,) for weights in text.weights)
    if guidance <= 1 and plain:
        alone: torch.Tensor = networks.unet(conditioned, timestep, encoder_hidden_states=text.prompts).sample
        return alone
    unconditioned = torch.cat([latents, depth[1]], dim=1)
    without, with_text = _both(networks, (unconditioned, conditioned), timestep, (text.negative, text.prompts))
    if plain:
        return without + guidance * (with_text - without)
    pulls = with_text.reshape(-1, count, *with_text.shape[1:]) - without[:, None]
    factors = guidance * torch.tensor(text.weights, dtype=without.dtype, device=without.device)
    guided: torch.Tensor = without + (pulls * factors[..., None, None, None]).sum(dim=1)
    return guided


def _both(
    networks: Networks,
    inputs: tuple[torch.Tensor, torch.Tensor],
    timestep: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the UNet on two sets of rows: together, if their texts have one length."""
    if text[0].shape[1] == text[1].shape[1]:
        made = networks.unet(torch.cat(inputs), timestep, encoder_hidden_states=torch.cat(text)).sample
        return made[: len(inputs[0])], made[len(inputs[0]) :]
    first, second = (
        networks.unet(rows, timestep, encoder_hidden_states=states).sample
        for rows, states in zip(inputs, text, strict=True)
    )
    return first, second
