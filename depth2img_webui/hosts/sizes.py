"""Let Forge and reForge load a Stable Diffusion 2 model of other sizes, such as the bundled one.

AUTOMATIC1111 builds a model by the YAML beside its file. These hosts know the sizes of published models alone.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from depth2img.checkpoints.layout.config import ModelConfig

PREFIX: Final = "Depth2Img"
"""Names of the classes that are put into a host's list of models begin so."""

SD2: Final = Path("huggingface", "stabilityai", "stable-diffusion-2-1")
"""Folder of configurations below Forge's backend."""


def register_in_forge(config: ModelConfig, folder: Path) -> None:
    """Make Forge recognise models of these sizes. Safe to call twice.

    Args:
        config: the sizes.
        folder: takes the configurations that Forge reads; it is replaced.
    """
    import backend.loader
    from huggingface_guess import model_list

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(backend.loader.__file__).parent / SD2, folder)
    for part in ("vae", "text_encoder"):
        (folder / part / "config.json").write_text(json.dumps(getattr(config, part)), encoding="utf8")
    _insert(model_list, config, {"huggingface_repo": str(folder.resolve())})


def register_in_reforge(config: ModelConfig) -> None:
    """Make reForge recognise models of these sizes. Safe to call twice."""
    from ldm_patched.modules import supported_models, supported_models_base
    from ldm_patched.modules.text_encoders import sd2_clip

    target = supported_models_base.ClipTarget(sd2_clip.SD2Tokenizer, functools.partial(_text_encoder, config))
    _insert(supported_models, config, {"clip_target": lambda self, state_dict={}: target})


def forget(models: list[Any]) -> None:
    """Take what was registered out of a host's list of models."""
    models[:] = [one for one in models if not one.__name__.startswith(PREFIX)]


def autoencoder(config: ModelConfig) -> dict[str, Any]:
    """Return the `config` for the constructor of reForge's `VAE`."""
    vae = config.vae
    widths = vae["block_out_channels"]
    described = {
        "double_z": True,
        "z_channels": vae["latent_channels"],
        "resolution": 256,
        "in_channels": vae["in_channels"],
        "out_ch": vae["out_channels"],
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"params": {"ddconfig": described, "embed_dim": vae["latent_channels"]}}


def _insert(module: Any, config: ModelConfig, more: dict[str, Any]) -> None:
    """Put a class for these sizes before the others of a host's module of models."""
    unet = config.unet
    width = unet["block_out_channels"][0]
    name = f"{PREFIX}{width}x{unet['cross_attention_dim']}"
    if any(one.__name__ == name for one in module.models):
        return
    base = module.SD20
    sizes = {"model_channels": width, "context_dim": unet["cross_attention_dim"]}
    fields = {
        "unet_config": {**base.unet_config, **sizes},
        "unet_extra_config": {**base.unet_extra_config, "num_head_channels": width // unet["attention_head_dim"][0]},
        "latent_format": functools.partial(base.latent_format, config.vae["scaling_factor"]),
    }
    module.models.insert(0, type(name, (base,), {**fields, **more}))


def _text_encoder(config: ModelConfig, device: Any = "cpu", dtype: Any = None, **options: Any) -> Any:
    """Make reForge's text encoder; where the last layer is not used, there is one more than the sizes name."""
    from ldm_patched.modules import sd1_clip

    text = {**config.text_encoder, "num_hidden_layers": config.text_encoder["num_hidden_layers"] + config.penultimate}
    layer = {"layer": "hidden", "layer_idx": -2} if config.penultimate else {"layer": "last"}

    def make(device: Any = "cpu", dtype: Any = None, **more: Any) -> Any:
        given = {"device": device, "dtype": dtype, "textmodel_json_config": text, **layer}
        tokens = {"start": 49406, "end": 49407, "pad": 0}
        return sd1_clip.SDClipModel(special_tokens=tokens, model_options=more.get("model_options", {}), **given)

    return sd1_clip.SD1ClipModel(device=device, dtype=dtype, clip_name="h", clip_model=make, **options)
