"""Pictures and latents, and a sampler that only counts down."""

import torch

from modules import shared
from modules.prompt_parser import MulticondLearnedConditioning
from modules.sd_samplers_cfg_denoiser import CFGDenoiser


def images_tensor_to_samples(image, approximation=None, model=None):
    return (model or shared.sd_model).encode(image.float())


def decode_first_stage(model, x):
    """-1..1, and a little beyond as a VAE does."""
    return torch.nn.functional.interpolate(x[:, :3], scale_factor=8, mode="nearest") * 1.1


class Sampler:
    def __init__(self, funcname):
        self.funcname = self.func = funcname
        self.conditioning_key = shared.sd_model.model.conditioning_key
        self.sampler_extra_args = None
        self.p = None
        self.model_wrap_cfg = CFGDenoiser(self)
        assert self.model_wrap_cfg.inner_model is not None  # the host takes it at once

    def sample(self, p, x, conditioning, unconditional_conditioning, steps=None, image_conditioning=None):
        """The signature of `KDiffusionSampler.sample`."""
        denoiser = self.model_wrap_cfg
        denoiser.p, denoiser.step, denoiser.total_steps = p, 0, steps or p.steps
        self.sampler_extra_args = {
            "cond": MulticondLearnedConditioning(None, conditioning),
            "uncond": unconditional_conditioning,
            "image_cond": image_conditioning,
            "cond_scale": p.cfg_scale,
            "s_min_uncond": p.s_min_uncond or 0.0,
        }
        for step in range(denoiser.total_steps):
            sigma = torch.full((x.shape[0],), 10.0 * (1 - step / denoiser.total_steps))
            x = denoiser(x, sigma, **self.sampler_extra_args)
        return x
