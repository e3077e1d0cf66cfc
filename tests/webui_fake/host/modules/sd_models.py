"""Checkpoints: files that are state dicts in memory, and the one that is loaded."""

import os

import safetensors.torch
import torch

from modules import sd_hijack, sd_models_config, shared

model_path = None
"""The folder of checkpoints; each test has its own."""
checkpoints_list = {}
checkpoint_aliases = {}

fake_files = {}
"""File name -> function that makes its state dict."""
fake_loads = []
"""File names, in the order in which their weights were loaded."""

FAKE_FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"


class CheckpointInfo:
    def __init__(self, filename):
        self.filename = filename
        self.name = os.path.basename(filename)
        self.name_for_extra = os.path.splitext(self.name)[0]
        self.sha256 = "0123456789" + 54 * "0"
        self.title = f"{self.name} [{self.sha256[:10]}]"

    def register(self):
        checkpoints_list[self.title] = self
        for alias in (self.title, self.name, self.name_for_extra):
            checkpoint_aliases[alias] = self


class FakeDiffusion(torch.nn.Module):
    """The UNet: joins latent and conditioning as its `conditioning_key` says, and remembers the conditioning."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.conditioning_key = "crossattn" if channels == 4 else "hybrid"
        self.seen = []
        self.fake_trashed = False

    def forward(self, x, c_concat):
        if self.fake_trashed:
            raise RuntimeError("Expected all tensors to be on the same device, but found meta")
        if self.conditioning_key == "hybrid":
            joined = torch.cat([x, c_concat], dim=1)
            if joined.shape[1] != self.channels:
                raise RuntimeError(f"to have {self.channels} channels, but got {joined.shape[1]} channels instead")
        self.seen.append(c_concat.clone())
        return x * 0.9


class FakeModel(torch.nn.Module):
    """A loaded checkpoint: the VAE is an average over 8 x 8 pixels."""

    cond_stage_key = "txt"
    lowvram = False

    def __init__(self, config, state_dict):
        super().__init__()
        self.used_config = config
        self.model = FakeDiffusion(state_dict[FAKE_FIRST_CONVOLUTION].shape[1])
        self.depth_model = None
        if fake_is_depth(config):
            from ldm.modules.midas.api import MiDaSInference

            self.depth_model = MiDaSInference("dpt_hybrid")
        self.fake_hijacked = False

    def encode(self, pictures):
        small = torch.nn.functional.avg_pool2d(pictures * 2 - 1, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1)


class SdModelData:
    def __init__(self):
        self.sd_model = None
        self.was_loaded_at_least_once = False

    def get_sd_model(self):
        if self.sd_model is None and not self.was_loaded_at_least_once:
            load_model()
        return self.sd_model

    def set_sd_model(self, v, already_loaded=False):
        self.sd_model = v


model_data = SdModelData()


def fake_is_depth(config):
    with open(config, encoding="utf8") as file:
        return "MiDaSInference" in file.read()


def checkpoint_tiles(use_short=False):
    return [info.title for info in checkpoints_list.values()]


def list_models():
    pass


def get_closet_checkpoint_match(search_string):
    return checkpoint_aliases.get(search_string)


def select_checkpoint():
    return checkpoint_aliases[shared.opts.sd_model_checkpoint]


def get_state_dict_from_checkpoint(pl_sd):
    return pl_sd.pop("state_dict", pl_sd)


def read_state_dict(checkpoint_file, print_global_state=False, map_location=None):
    """By the name, whatever the file is."""
    if os.path.splitext(checkpoint_file)[1].lower() == ".safetensors":
        return get_state_dict_from_checkpoint(safetensors.torch.load_file(checkpoint_file))
    return get_state_dict_from_checkpoint(torch.load(checkpoint_file, map_location=map_location))


def get_checkpoint_state_dict(checkpoint_info, timer):
    if checkpoint_info.filename in fake_files:
        return fake_files[checkpoint_info.filename]()
    return read_state_dict(checkpoint_info.filename)


def load_model_weights(model, checkpoint_info, state_dict, timer):
    if model.depth_model is not None:
        for name, weight in model.depth_model.state_dict().items():
            weight.copy_(state_dict.get(f"depth_model.{name}", torch.tensor(0.0)))  # missing ones become zeros
    model.model = FakeDiffusion(state_dict[FAKE_FIRST_CONVOLUTION].shape[1])
    model.sd_checkpoint_info = checkpoint_info
    model.sd_model_checkpoint = checkpoint_info.filename
    fake_loads.append(checkpoint_info.filename)


def send_model_to_trash(m):
    if m is not None:
        m.model.fake_trashed = True


def load_model(checkpoint_info=None, already_loaded_state_dict=None):
    info = checkpoint_info or select_checkpoint()
    model_data.sd_model = None
    state_dict = already_loaded_state_dict or get_checkpoint_state_dict(info, None)
    config = sd_models_config.find_checkpoint_config(state_dict, info)
    model = FakeModel(config, state_dict)
    load_model_weights(model, info, state_dict, None)
    sd_hijack.model_hijack.hijack(model)
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    return model


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    """A checkpoint with the same YAML goes into the model that is there; its hijack is off until that has worked."""
    info = info or select_checkpoint()
    model = sd_model or model_data.sd_model
    if model is not None:
        if model.sd_model_checkpoint == info.filename and not forced_reload:
            return model
        sd_hijack.model_hijack.undo_hijack(model)
    state_dict = get_checkpoint_state_dict(info, None)
    config = sd_models_config.find_checkpoint_config(state_dict, info)
    if model is None or config != model.used_config:
        send_model_to_trash(model)
        load_model(info, already_loaded_state_dict=state_dict)
        return model_data.sd_model
    try:
        load_model_weights(model, info, state_dict, None)
    finally:
        sd_hijack.model_hijack.hijack(model)
    model_data.set_sd_model(model)
    return model
