"""reForge and the relatives that run AUTOMATIC1111's checkpoints with `ldm_patched`.

Such a host still builds MiDaS from `models/midas` with a checkpoint, and puts none of the checkpoint's weights into it:
it gets a module that does nothing, and the network is read from the file as in Forge.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from modules import patches, sd_models

from . import loader, sampling, sizes
from .base import Jobs
from .forge import Forge

if TYPE_CHECKING:
    from depth2img.checkpoints.layout.config import ModelConfig

KEY: Final = __name__


class ReForge(Forge):
    """See `base.Host`."""

    STEP: ClassVar = ("modules.sd_samplers_cfg_denoiser", "sampling_function")
    MODELS: ClassVar = "ldm_patched.modules.supported_models"
    CONDITION: ClassVar = ("ldm_patched.modules.conds", "CONDRegular")

    def __init__(self) -> None:
        super().__init__()
        self._autoencoders: dict[int, ModelConfig] = {}

    def apply(self, jobs: Jobs) -> None:
        """See `base.Host.apply`."""
        super().apply(jobs)
        module = _loading()
        original = module.VAE

        def make(sd: Any, **named: Any) -> Any:
            config = self._autoencoders.get(sd["decoder.conv_in.weight"].shape[0]) if sd else None
            return original(sd=sd, **named, **({} if config is None else {"config": sizes.autoencoder(config)}))

        loader.apply(module, builds_midas=False)
        patches.patch(KEY, module, "VAE", make)

    def undo(self) -> None:
        """See `base.Host.undo`."""
        super().undo()
        loader.undo(_loading())
        sampling.take_back(KEY, (_loading(), "VAE"))

    def register_sizes(self, config: ModelConfig, folder: Path) -> None:
        """See `Forge.register_sizes`; nothing is written."""
        sizes.register_in_reforge(config)
        self._autoencoders[config.vae["block_out_channels"][-1]] = config

    def _unet_config(self, model: Any | None) -> Any | None:
        unet = getattr(getattr(model, "forge_objects", None), "unet", None)
        return None if unet is None else unet.model.model_config.unet_config

    def known(self) -> Any | None:
        """See `base.Host.known`."""
        try:
            return sd_models.select_checkpoint()
        except FileNotFoundError:
            return None


def _loading() -> Any:
    """Return the host's module that loads checkpoints; it imports torch's extensions, so not before it is needed."""
    return importlib.import_module("modules_forge.forge_loader")
