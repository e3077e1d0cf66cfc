"""The models that reForge recognises by the sizes of their UNet."""

from typing import ClassVar


class FakeLatents:
    def __init__(self, scale_factor=0.18215):
        self.scale_factor = scale_factor


class SD20:
    unet_config: ClassVar = {"context_dim": 1024, "model_channels": 320, "use_linear_in_transformer": True}
    unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": 64}
    latent_format = FakeLatents


models = [SD20]
