"""Jobs: the order of events is the host's, the arithmetic is as small as it can be."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from modules import devices, images, scripts, sd_models, shared
from modules.sd_samplers_common import Sampler, decode_first_stage, images_tensor_to_samples
from modules.shared import opts


@dataclass(repr=False)
class StableDiffusionProcessing:
    prompt: str = ""
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 2
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    extra_generation_params: dict[str, Any] = None
    s_min_uncond: float = None
    override_settings: dict[str, Any] = None
    refiner_checkpoint: str = None
    refiner_switch_at: float = None
    firstpass_image: Image = None
    scripts: Any = field(default=None, init=False)
    script_args: Any = field(default=(), init=False)
    sampler: Any = field(default=None, init=False)
    paste_to: tuple | None = field(default=None, init=False)
    is_api: bool = field(default=False, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    iteration: int = field(default=0, init=False)
    all_prompts: list = field(default=None, init=False)

    def __post_init__(self):
        self.comments = {}
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        self.refiner_checkpoint_info = None

    @property
    def sd_model(self):
        return shared.sd_model

    def comment(self, text):
        self.comments[text] = 1

    def depth2img_image_conditioning(self, source_image):
        raise AssertionError("the host's own depth-to-image ran")

    def txt2img_image_conditioning(self, x, width=None, height=None):
        self.fake_native = ("txt2img", width, height)
        return x.new_zeros(x.shape[0], 5, 1, 1)

    def img2img_image_conditioning(self, source_image, latent_image, image_mask=None, round_image_mask=True):
        if self.sd_model.depth_model is not None:
            return self.depth2img_image_conditioning(source_image)
        self.fake_native = ("img2img", image_mask, round_image_mask)
        return latent_image.new_zeros(latent_image.shape[0], 5, 1, 1)

    def init(self, all_prompts, all_seeds, all_subseeds):
        pass

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        raise NotImplementedError


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    enable_hr: bool = False
    hr_upscaler: str = None
    hr_checkpoint_name: str = None
    hr_upscale_to_x: int = field(default=0, init=False)
    hr_upscale_to_y: int = field(default=0, init=False)
    truncate_x: int = field(default=0, init=False)
    truncate_y: int = field(default=0, init=False)
    latent_scale_mode: dict = field(default=None, init=False)
    hr_checkpoint_info: dict = field(default=None, init=False)

    def init(self, all_prompts, all_seeds, all_subseeds):
        if self.enable_hr and self.hr_checkpoint_name:
            self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        self.sampler = Sampler("Euler")
        x = torch.randn(len(prompts), 4, self.height // 8, self.width // 8)
        if self.firstpass_image is not None and self.enable_hr:
            samples = images_tensor_to_samples(fake_tensor([self.firstpass_image]))
        else:
            samples = self.sampler.sample(
                self, x, conditioning, unconditional_conditioning, image_conditioning=self.txt2img_image_conditioning(x)
            )
            if not self.enable_hr:
                return samples
        decoded = decode_first_stage(self.sd_model, samples)
        sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        self.is_hr_pass = True
        size = (self.hr_upscale_to_y, self.hr_upscale_to_x)
        if self.latent_scale_mode is not None:
            samples = torch.nn.functional.interpolate(samples, size=(size[0] // 8, size[1] // 8), mode="bilinear")
            image_conditioning = self.txt2img_image_conditioning(samples)
        else:
            pixels = torch.clamp((decoded + 1) / 2, 0, 1)
            pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear").to(devices.dtype_vae)
            samples = images_tensor_to_samples(pixels)
            image_conditioning = self.img2img_image_conditioning(pixels, samples)
        above, left = self.truncate_y // 2, self.truncate_x // 2
        below, right = (self.truncate_y + 1) // 2, (self.truncate_x + 1) // 2
        samples = samples[:, :, above : samples.shape[2] - below, left : samples.shape[3] - right]
        self.sampler = Sampler("Euler")
        samples = self.sampler.sample(
            self, samples, conditioning, unconditional_conditioning, image_conditioning=image_conditioning
        )
        self.is_hr_pass = False
        return samples


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    init_images: list = None
    resize_mode: int = 0
    denoising_strength: float = 0.75
    mask: Any = None
    inpaint_full_res: bool = True

    def __post_init__(self):
        super().__post_init__()
        self.image_mask, self.mask = self.mask, None
        self.mask_for_overlay = None
        self.init_latent = None
        self.image_conditioning = None

    def init(self, all_prompts, all_seeds, all_subseeds):
        self.sampler = Sampler("Euler")
        if self.image_mask is not None:
            self.mask_for_overlay = self.image_mask
            box = self.image_mask.getbbox()
            if self.inpaint_full_res and box is None:
                self.inpaint_full_res, self.mask_for_overlay = False, None
            elif self.inpaint_full_res:
                self.paste_to = (box[0], box[1], box[2] - box[0], box[3] - box[1])
        crop = self.inpaint_full_res and self.mask_for_overlay is not None
        pictures = []
        for picture in self.init_images:
            picture = images.flatten(picture, opts.img2img_background_color)
            if crop:
                left, top, width, height = self.paste_to
                picture = picture.crop((left, top, left + width, top + height))
                picture = images.resize_image(2, picture, self.width, self.height)
            elif self.resize_mode != 3:
                picture = images.resize_image(self.resize_mode, picture, self.width, self.height)
            pictures.append(picture)
        if len(pictures) == 1:
            pictures = pictures * self.batch_size
        self.batch_size = len(pictures)
        image = fake_tensor(pictures).to(devices.dtype_vae)
        self.init_latent = images_tensor_to_samples(image)
        if self.resize_mode == 3:
            size = (self.height // 8, self.width // 8)
            self.init_latent = torch.nn.functional.interpolate(self.init_latent, size=size, mode="bilinear")
        source = image * 2 - 1
        self.image_conditioning = self.img2img_image_conditioning(source, self.init_latent, self.image_mask, True)

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        return self.sampler.sample(
            self,
            self.init_latent,
            conditioning,
            unconditional_conditioning,
            image_conditioning=self.image_conditioning,
        )


def create_binary_mask(image, round=True):
    grey = image.getchannel("A") if image.mode == "RGBA" and image.getextrema()[3] != (255, 255) else image.convert("L")
    return grey.point(lambda value: 255 if value > 128 else 0) if round else grey


class Processed:
    def __init__(
        self,
        p,
        images_list,
        seed=-1,
        info="",
        subseed=None,
        all_prompts=None,
        all_negative_prompts=None,
        all_seeds=None,
        all_subseeds=None,
        index_of_first_image=0,
        infotexts=None,
        comments="",
    ):
        self.images = images_list
        self.all_seeds = all_seeds or [seed]
        self.index_of_first_image = index_of_first_image
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.extra_generation_params = p.extra_generation_params


def fake_tensor(pictures):
    """(B, 3, H, W), 0..1."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255


fake_save_to = None
"""Folder in which jobs save their pictures; None: they do not."""


def process_images(p):
    if p.scripts is not None:
        p.scripts.before_process(p)
    before = {key: opts.data.get(key) for key in p.override_settings}
    try:
        if sd_models.checkpoint_aliases.get(p.override_settings.get("sd_model_checkpoint")) is None:
            p.override_settings.pop("sd_model_checkpoint", None)
            sd_models.reload_model_weights()
        for key, value in p.override_settings.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
            if key == "sd_model_checkpoint":
                sd_models.reload_model_weights()
        return process_images_inner(p)
    finally:
        opts.data.update(before)  # the checkpoint itself stays loaded, as in the host


def process_images_inner(p):
    if p.refiner_checkpoint:
        p.refiner_checkpoint_info = sd_models.get_closet_checkpoint_match(p.refiner_checkpoint)
    p.all_prompts = [p.prompt] * (p.batch_size * p.n_iter)
    if p.scripts is not None:
        p.scripts.process(p)
    p.init(p.all_prompts, [], [])
    output = []
    for iteration in range(p.n_iter):
        p.iteration = iteration
        sd_models.reload_model_weights()
        prompts = [p.prompt] * p.batch_size
        conditioning = [prompt.split(" AND ") for prompt in prompts]
        samples = p.sample(conditioning, torch.zeros(len(prompts), 77, 8), [], [], 0, prompts)
        for index, latent in enumerate(decode_first_stage(p.sd_model, samples)):
            p.batch_index = index
            output.append(fake_picture(p, latent, len(output)))
            if p.scripts is not None:
                p.scripts.postprocess_image(p, scripts.PostprocessImageArgs(output[-1]))
            if getattr(p, "mask_for_overlay", None) is not None:
                extras = (opts.return_mask, opts.return_mask_composite)
                output += [p.mask_for_overlay.convert("RGB")] * sum(extras)
    result = Processed(p, images_list=output)
    if p.scripts is not None:
        p.scripts.postprocess(p, result)
    return result


def fake_picture(p, latent, number):
    values = ((latent.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy().astype(np.uint8)
    picture = Image.fromarray(values)
    if p.paste_to is not None and opts.overlay_inpaint:
        left, top, width, height = p.paste_to
        whole = p.init_images[0].convert("RGB")
        whole.paste(picture.resize((width, height)), (left, top))
        picture = whole
    if fake_save_to is not None:
        path = fake_save_to / f"{number:05}.png"
        picture.save(path)
        picture.already_saved_as = str(path)
    return picture
