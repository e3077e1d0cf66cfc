"""One step: the rows for the UNet, the callback, the steps without unconditional rows."""

import torch

from modules import sd_models, shared
from modules.script_callbacks import CFGDenoiserParams, cfg_denoiser_callback


class FakeWrap:
    def __init__(self, model):
        self.inner_model = model


class CFGDenoiser(torch.nn.Module):
    def __init__(self, sampler):
        super().__init__()
        self.sampler = sampler
        self.p = None
        self.model_wrap = None
        self.step = 0
        self.total_steps = None
        self.init_latent = None
        self.cond_scale_miltiplier = 1.0

    @property
    def inner_model(self):
        """Made once, and again after a switch to the refiner."""
        if self.model_wrap is None:
            self.model_wrap = FakeWrap(shared.sd_model)
        return self.model_wrap

    def forward(self, x, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond):
        self.fake_switch_to_refiner()
        counts = [len(subprompts) for subprompts in cond.batch]
        order = [index for index, count in enumerate(counts) for _ in range(count)] + list(range(len(counts)))
        text = torch.zeros(sum(counts), 77, 8)
        params = CFGDenoiserParams(
            x[order], image_cond[order], sigma[order], self.step, self.total_steps, text, uncond, self
        )
        cfg_denoiser_callback(params)
        rows, conditioning = params.x, params.image_cond
        early = shared.opts.skip_early_cond
        skip = bool(early) and self.step / self.total_steps <= early
        odd = self.step % 2 == 1 or shared.opts.s_min_uncond_all
        if skip or (odd and s_min_uncond > 0 and sigma[0] < s_min_uncond):
            rows = rows[: -len(counts)]  # and not the conditioning: that is the host's defect
        out = self.inner_model.inner_model.model(rows, conditioning)
        self.step += 1
        return torch.stack([out[order.index(index)] for index in range(len(counts))])

    def fake_switch_to_refiner(self):
        info = self.p.refiner_checkpoint_info
        if info is not None and self.step / self.total_steps >= self.p.refiner_switch_at:
            sd_models.reload_model_weights(info=info)
            self.model_wrap = None
