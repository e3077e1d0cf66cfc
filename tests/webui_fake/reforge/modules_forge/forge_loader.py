"""Loads checkpoints: names of other modules are imported into it, as in the host."""

from modules.sd_models_config import find_checkpoint_config as find_checkpoint_config


class VAE:
    def __init__(self, sd=None, device=None, config=None, dtype=None, metadata=None):
        self.fake_config = config
