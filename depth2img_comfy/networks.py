"""Make ComfyUI's own MODEL, CLIP and VAE of a depth model, whatever its widths are.

ComfyUI takes a UNet with five input channels for one that inpaints, gives it nine and drops the depth network. Here
the host's classes are told what they are to build by the model's own configurations, which the library has read.
"""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.text_encoders import sd2_clip

from depth2img import NoDepthError
from depth2img.checkpoints import Model
from depth2img.checkpoints.layout import keys
from depth2img.checkpoints.layout.ldm_yaml import DEFAULT_SCALE
from depth2img.checkpoints.model import ToLdm

from .applied import KEY

Tensors = dict[str, torch.Tensor]


class DepthUNet(comfy.model_base.BaseModel):  # type: ignore[misc]
    """ComfyUI's UNet of Stable Diffusion, with one more channel: depth, or zeros where nobody asks for depth."""

    def concat_cond(self, **settings: Any) -> torch.Tensor:
        """Return the neutral conditioning, (B, 1, h, w), for prompts without depth."""
        return torch.zeros_like(settings["noise"][:, :1])

    def extra_conds(self, **settings: Any) -> Any:
        """See the host's `BaseModel.extra_conds`.

        Raises:
            NoDepthError: a prompt asks for depth, and the MODEL was not connected with the node that does it.
        """
        if KEY in settings and not self.current_patcher.get_wrappers("apply_model", KEY):
            raise NoDepthError(
                "The prompts come from 'Apply depth', but the model does not.",
                fix="Connect the model of 'Apply depth' with the sampler, too.",
            )
        return super().extra_conds(**settings)


class Depth2Img(comfy.supported_models.SD20):  # type: ignore[misc]
    """The host's description of a Stable Diffusion 2 model, as a model's own configurations have it.

    Args:
        unet_config: what the host found out about the UNet.
        model: the model.
    """

    def __init__(self, unet_config: dict[str, Any], model: Model) -> None:
        super().__init__(unet_config)
        unet, scheduler = model.config.unet, model.config.scheduler
        heads = unet["attention_head_dim"]  # diffusers' name for the number of heads
        first = int(heads if isinstance(heads, int) else heads[0])
        self.unet_config["num_head_channels"] = int(unet["block_out_channels"][0]) // first
        self.latent_format.scale_factor = float(model.config.vae.get("scaling_factor", DEFAULT_SCALE))
        self.sampling_settings |= {
            "linear_start": float(scheduler["beta_start"]),
            "linear_end": float(scheduler["beta_end"]),
        }
        self._predicts_v = scheduler.get("prediction_type") == "v_prediction"

    def model_type(self, state_dict: Tensors, prefix: str = "") -> Any:
        """Return what the UNet predicts."""
        kinds = comfy.model_base.ModelType
        return kinds.V_PREDICTION if self._predicts_v else kinds.EPS

    def get_model(self, state_dict: Tensors, prefix: str = "", device: Any = None) -> DepthUNet:
        """Make the UNet, without its weights."""
        return DepthUNet(self, model_type=self.model_type(state_dict, prefix), device=device)


def make_unet(model: Model) -> Any:
    """Make a MODEL; its precision and its place are the host's choice: half precision on a card."""
    state = _state(model, keys.UNET, "")
    found = comfy.model_detection.detect_unet_config(state, "")
    config = Depth2Img(found, model)
    management = comfy.model_management
    kinds, device = list(config.supported_inference_dtypes), management.get_torch_device()
    parameters = comfy.utils.calculate_parameters(state)
    dtype = management.unet_dtype(
        model_params=parameters, supported_dtypes=kinds, weight_dtype=comfy.utils.weight_dtype(state)
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, kinds))
    network = config.get_model(state, device=management.unet_inital_load_device(parameters, dtype))
    network.load_model_weights(state)
    return comfy.model_patcher.ModelPatcher(
        network, load_device=device, offload_device=management.unet_offload_device()
    )


def make_vae(model: Model) -> Any:
    """Make a VAE."""
    config = model.config.vae
    widths = [int(width) for width in config["block_out_channels"]]
    described = {
        "double_z": True,
        "z_channels": int(config["latent_channels"]),
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": int(config["layers_per_block"]),
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    settings = {"params": {"ddconfig": described, "embed_dim": int(config["latent_channels"])}}
    return comfy.sd.VAE(sd=_state(model, keys.VAE, ""), config=settings)


def make_clip(model: Model, embeddings: Any = None) -> Any:
    """Make a CLIP.

    Args:
        model: the model.
        embeddings: the host's folders of textual inversions.
    """
    state = _state(model, keys.TEXT, "clip_h.")
    state = comfy.utils.clip_text_transformers_convert(state, "clip_h.", "clip_h.transformer.")
    clip = comfy.sd.CLIP(
        _text_target(model),
        embedding_directory=embeddings,
        tokenizer_data=state,
        parameters=comfy.utils.calculate_parameters(state),
    )
    clip.load_sd(state, full_model=True)
    return clip


def _state(model: Model, old: str, new: str) -> Tensors:
    """Read the tensors of one network under the host's names; those that only the single file has included."""
    inside = ToLdm(model.parts, [entry for entry in model.key_map if entry.ldm.startswith(old)])
    state = {new + name[len(old) :]: inside.get(name) for name in inside.keys()}
    kept = {name: model.aside.get(name) for name in model.aside.keys() if name.startswith(old)}
    made = {lazy.key: lazy.make() for lazy in model.recreated() if lazy.key.startswith(old)}
    return {new + name[len(old) :]: value for name, value in {**made, **kept}.items()} | state


def _text_target(model: Model) -> Any:
    """Describe the text encoder to the host; the one of Stable Diffusion 2 comes out as the host's own does."""
    config, penultimate = model.config.text_encoder, model.config.penultimate
    width = int(config["hidden_size"])
    described = {
        name: config[name]
        for name in ("hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings", "hidden_act")
    }
    described |= {"num_hidden_layers": int(config["num_hidden_layers"]) + penultimate, "eos_token_id": 49407}

    class Text(comfy.sd1_clip.SDClipModel):  # type: ignore[misc]
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None, **_: Any) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                layer="hidden" if penultimate else "last",
                layer_idx=-2 if penultimate else None,
                textmodel_json_config=described,
                special_tokens={"start": 49406, "end": 49407, "pad": 0},
                model_options=model_options or {},
            )

    class Tokens(sd2_clip.SD2ClipHTokenizer):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.embedding_size = width

    def encoder(**settings: Any) -> Any:
        return comfy.sd1_clip.SD1ClipModel(clip_name="h", clip_model=Text, **settings)

    def tokenizer(**settings: Any) -> Any:
        return comfy.sd1_clip.SD1Tokenizer(clip_name="h", tokenizer=Tokens, **settings)

    return comfy.supported_models_base.ClipTarget(tokenizer, encoder)
