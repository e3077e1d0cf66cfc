"""The loop: noisy latents, conditioned on text and depth, to a picture's latents."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from ..checkpoints.layout.tokenizer import token_ids
from ..depth.schedule import conditional, unconditional
from ..errors import Depth2ImgError
from ..options import DepthOptions
from .networks import Networks
from .settings import SAMPLERS, Settings, Steps

Step = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

MOST_TEXTS: Final = 64
"""Prompts whose states are kept; of Stable Diffusion 2 in float16 they take 160 kB each."""

SCHEDULE: Final = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "steps_offset")
"""What every sampler takes over from the model's own scheduler."""


@dataclass(frozen=True)
class Batch:
    """What goes through the loop together.

    Attributes:
        latents: float (B, 4, h, w), of the pictures, scaled; what "masked content" asks for is in them already.
        depth: float (B, 1, h, w), the conditioning at full strength.
        keep: float (B, 1, h, w), 1 where the picture stays; None without masks.
        text: float (B, 77, width) and the same of the negative prompt.
        generators: one per picture, on the CPU, so that a seed means the same on every device.
        options: say what becomes of the conditioning at each step; see `schedule`.
        from_noise: start from noise alone, except where `keep` keeps anything.
    """

    latents: torch.Tensor
    depth: torch.Tensor
    keep: torch.Tensor | None
    text: tuple[torch.Tensor, torch.Tensor]
    generators: Sequence[torch.Generator]
    options: DepthOptions = dataclasses.field(default_factory=DepthOptions)
    from_noise: bool = False

    def filled(self, rows: int) -> Batch:
        """The batch with its last picture repeated until there are so many.

        Kernels are chosen by the shape, so that a result depends in its last bits on how many pictures go along; with
        a fixed number of them it does not.
        """
        more = rows - len(self.latents)
        if more <= 0:
            return self
        return dataclasses.replace(
            self,
            latents=repeated(self.latents, rows),
            depth=repeated(self.depth, rows),
            keep=None if self.keep is None else repeated(self.keep, rows),
            text=(repeated(self.text[0], rows), repeated(self.text[1], rows)),
            generators=[*self.generators, *(torch.Generator() for _ in range(more))],
        )


def repeated(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Rows with the last one repeated until there are `count`, which is no less than there are."""
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])


def make_scheduler(networks: Networks, sampler: str) -> Any:
    """A diffusers scheduler with the model's noise schedule.

    Args:
        networks: the model.
        sampler: a key of `settings.SAMPLERS`.
    """
    import diffusers

    chosen = SAMPLERS[sampler]
    own = {key: networks.scheduler[key] for key in SCHEDULE if key in networks.scheduler}
    fixed: dict[str, Any] = {"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False}
    kind = getattr(diffusers, chosen.scheduler)
    known = inspect.signature(kind.__init__).parameters
    wanted = fixed | own | dict(chosen.arguments)
    return kind(**{key: value for key, value in wanted.items() if key in known})


def noise_like(latents: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Normal noise, each sample from its own generator, drawn on the CPU."""
    shape = (1, *latents.shape[1:])
    drawn = [torch.randn(shape, generator=generator, dtype=latents.dtype) for generator in generators]
    return torch.cat(drawn).to(latents.device)


def encode(networks: Networks, pictures: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Pictures as latents, drawn from the encoder's distribution and scaled.

    Args:
        networks: the model.
        pictures: float (B, 3, H, W), -1..1, on the model's device.
        generators: one per picture.

    Returns:
        (B, 4, H/8, W/8).
    """
    each = [
        networks.vae.encode(picture[None]).latent_dist.sample(generator=generator)
        for picture, generator in zip(pictures, generators, strict=True)
    ]
    return torch.cat(each) * networks.scale


def enlarged(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Latents (B, 4, h, w) at another size, as the host's upscaler "Latent" makes them: bilinear, no antialiasing."""
    return torch.nn.functional.interpolate(latents, size=(height, width), mode="bilinear", antialias=False)


def decode(networks: Networks, latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, 4, h, w) as pictures, float32 (B, 3, 8h, 8w) on the CPU, -1..1 and beyond.

    Raises:
        Depth2ImgError: the result is not finite.
    """
    # One at a time: a decoder needs more memory than all else, and is busy with one. All are waited for once.
    each = [networks.vae.decode(latent[None] / networks.scale).sample for latent in latents]
    pictures = torch.cat(each).float().cpu()
    if not bool(torch.isfinite(pictures).all()):
        raise Depth2ImgError(
            "The model produced NaN instead of a picture.",
            got=f"type {str(networks.dtype).removeprefix('torch.')} on {networks.device.type}",
            fix="Use float32, or check the checkpoint.",
        )
    return pictures


def text_states(networks: Networks, prompts: Sequence[str]) -> torch.Tensor:
    """Prompts as the UNet takes them, (B, 77, width); words beyond 75 tokens are cut off.

    Each prompt is encoded once and alone, so that its states do not depend on the others, and kept for later calls.
    """
    states: dict[str, torch.Tensor] = {}
    for prompt in dict.fromkeys(prompts):
        found = networks.texts.get(prompt)
        if found is None:
            ids = token_ids([prompt]).to(networks.device)
            found = networks.text_encoder(ids).last_hidden_state.to(networks.dtype)
        states[prompt] = found
    networks.texts.update(states)
    for prompt in list(networks.texts)[:-MOST_TEXTS]:
        networks.texts.pop(prompt, None)
    return torch.cat([states[prompt] for prompt in prompts])


def sample(
    networks: Networks, batch: Batch, settings: Settings, steps: Steps, on_step: Step | None = None
) -> torch.Tensor:
    """Noise latents as far as the steps say, and take the noise off again.

    Where a mask keeps the picture, the picture's own latents with the noise of the moment are put back after every
    step, so that the kept part is exactly the picture's at the end.

    Args:
        networks: the model.
        batch: what to work on.
        settings: `sampler` and `cfg_scale` are read.
        steps: of this pass.
        on_step: told the steps done and the steps in all.

    Returns:
        (B, 4, h, w).
    """
    if steps.run == 0:
        return batch.latents
    scheduler = make_scheduler(networks, settings.sampler)
    count = min(steps.of, int(scheduler.config.num_train_timesteps))  # there are no more noise levels than that
    # On the CPU, where a scheduler looks its numbers up: on a card each of them would be waited for.
    scheduler.set_timesteps(count, device="cpu")
    begin = count - steps.run
    timesteps = scheduler.timesteps[begin * scheduler.order :]
    of_unet = timesteps.to(networks.device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin * scheduler.order)
    noise = noise_like(batch.latents, batch.generators)
    start = batch.latents
    if batch.from_noise:
        # Noise alone, as in the WebUI adapter (`hook.start_from_noise`); what a mask keeps is put back at each step.
        start = torch.zeros_like(start) if batch.keep is None else torch.where(batch.keep > 0, start, 0.0)
    latents = scheduler.add_noise(start, noise, timesteps[:1].repeat(len(start)))
    extra = _step_arguments(scheduler, batch.generators)
    guidance = settings.cfg_scale if settings.cfg_scale is not None else networks.cfg_scale
    for index, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        depth = (
            conditional(batch.depth, batch.options, index, len(timesteps)),
            unconditional(batch.depth, batch.options, index, len(timesteps), guidance),
        )
        predicted = _predict(networks, scaled, of_unet[index], batch.text, depth, guidance)
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


def _step_arguments(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if takes else {}


def _predict(
    networks: Networks,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
    depth: tuple[torch.Tensor, torch.Tensor],
    guidance: float,
) -> torch.Tensor:
    """The network's output with classifier-free guidance; `text` and `depth` are of the conditional half, then of the
    other."""
    (text_rows, negative), (depth_rows, other_depth) = text, depth
    conditioned = torch.cat([latents, depth_rows], dim=1)
    if guidance <= 1:
        plain: torch.Tensor = networks.unet(conditioned, timestep, encoder_hidden_states=text_rows).sample
        return plain
    unconditioned = torch.cat([latents, other_depth], dim=1)
    both = networks.unet(
        torch.cat([unconditioned, conditioned]), timestep, encoder_hidden_states=torch.cat([negative, text_rows])
    ).sample
    without, with_text = both.chunk(2)
    guided: torch.Tensor = without + guidance * (with_text - without)
    return guided
