#!/usr/bin/env python3
"""Write a depth-to-image checkpoint with random weights, for tests without downloads.

The file has the tensors, names and shapes of a real Stable Diffusion 2 depth
checkpoint (``model.diffusion_model.*``, ``first_stage_model.*``,
``cond_stage_model.model.*``, ``depth_model.model.*`` and the noise schedule), so
the WebUI loads it exactly as it loads ``512-depth-ema``.  The pictures made with
it are noise, but finite and repeatable noise that reacts to the prompt and to
the depth map.

The shapes come from the WebUI's own copy of ``ldm``.  Run this with the WebUI's
Python and name its folder in ``WEBUI_DIR`` (or with ``--webui-dir``)::

    WEBUI_DIR=/path/to/stable-diffusion-webui python tools/random_checkpoint.py depth.safetensors

Sizes:

``full``
    The anatomy and widths of ``512-depth-ema``: 1,608 tensors, about 2.9 GB in
    half precision.
``small``
    The same anatomy (every block, hence the same tensor names in UNet and VAE)
    with narrow layers.  The UNet, VAE and text encoder together take about
    120 MB in half precision.  The depth model keeps its real size, because the
    WebUI has no narrower one: 250 MB more.  Needs the YAML file that is written
    beside it.

The value of a tensor depends on its name, its shape and ``--seed`` only: files of
different kinds made with one seed agree in all tensors they share.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

LDM_FOLDER = Path("repositories", "stable-diffusion-stability-ai")
CONFIG_FOLDER = LDM_FOLDER / "configs" / "stable-diffusion"
DEPTH_CONFIG = "v2-midas-inference.yaml"
PLAIN_CONFIG = "v2-inference.yaml"

DEPTH_PREFIX = "depth_model."
MIDAS_PREFIX = "depth_model.model."

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
SUFFIXES = {".safetensors": "safetensors", ".ckpt": "ckpt"}

# A built-in OpenCLIP architecture with the smallest text tower (10 layers of 256).
SMALL_TEXT_ARCH = "ViT-S-32-alt"
SMALL_TEXT_WIDTH = 256
SMALL_UNET_WIDTH = 64
SMALL_VAE_WIDTH = 32

# The VAE encoder ends with mean and log-variance of the latent.  As with trained
# weights the latent gets a deviation of about 1 / 0.18215 and next to no variance;
# here the least that ldm allows, because the WebUI draws that noise unseeded.
LATENT_MEAN_GAIN = 8.0
LATENT_LOGVAR = -30.0

TEXT_MEAN = 0.1


@dataclass(frozen=True)
class Recipe:
    """The contents of a checkpoint."""

    size: str
    plain: bool
    depth_weights: bool
    seed: int


def build_config(webui_dir: Path, recipe: Recipe) -> Any:
    """Return the OmegaConf model description: the upstream one, narrowed for ``small``."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(webui_dir / CONFIG_FOLDER / (PLAIN_CONFIG if recipe.plain else DEPTH_CONFIG))
    params = config.model.params

    if recipe.size == "small":
        params.unet_config.params.model_channels = SMALL_UNET_WIDTH
        params.unet_config.params.context_dim = SMALL_TEXT_WIDTH
        params.first_stage_config.params.ddconfig.ch = SMALL_VAE_WIDTH
        params.cond_stage_config.params.arch = SMALL_TEXT_ARCH
        params.cond_stage_config.params.version = None

    return config


def build_midas() -> nn.Module:
    """Return the DPT-hybrid network as the WebUI builds it, with undefined weights."""
    from ldm.modules.midas.midas.dpt_depth import DPTDepthModel

    with torch.device("cpu"):  # timm reads the values of some tensors while it builds
        midas: nn.Module = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    return midas


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Let ``ldm`` build models on the meta device, reading no weight file.

    The noise schedule is left out of this: it is computed, and gets its real values.
    """
    import ldm.models.diffusion.ddpm as ddpm
    import ldm.modules.midas.api as midas_api
    import open_clip

    create_model = open_clip.create_model_and_transforms
    register_schedule = ddpm.LatentDiffusion.register_schedule

    def create_on_meta(arch: str, **_: Any) -> Any:
        return create_model(arch, pretrained=None, device="meta")

    def load_midas(_: str) -> tuple[nn.Module, None]:
        return build_midas(), None

    def register_on_cpu(*args: Any, **kwargs: Any) -> None:
        with torch.device("cpu"):
            register_schedule(*args, **kwargs)

    with (
        mock.patch.object(open_clip, "create_model_and_transforms", create_on_meta),
        mock.patch.object(midas_api, "load_model", load_midas),
        mock.patch.object(ddpm.LatentDiffusion, "register_schedule", register_on_cpu),
        torch.device("meta"),
    ):
        yield


def build_model(config: Any) -> nn.Module:
    """Return the model that ``config`` describes: shapes only, but a real noise schedule."""
    from ldm.util import instantiate_from_config

    with without_weights():
        model: nn.Module = instantiate_from_config(config.model)
    return model


def gaussian(seed: int, name: str, shape: torch.Size, std: float) -> Tensor:
    """Return normal noise that is the same for the same ``seed``, ``name`` and ``shape``."""
    generator = torch.Generator().manual_seed((seed << 32) ^ zlib.crc32(name.encode()))
    return torch.empty(shape, dtype=torch.float32).normal_(0.0, std, generator=generator)


def fan_in(module: nn.Module, weight: Tensor) -> float:
    """Return how many inputs are summed up for one output of a linear or convolution layer."""
    if isinstance(module, nn.ConvTranspose2d):
        overlap = math.prod(k / s for k, s in zip(module.kernel_size, module.stride, strict=True))
        return max(1.0, weight.shape[0] / module.groups * overlap)
    return float(max(1, math.prod(weight.shape[1:])))


def initial_value(seed: int, prefix: str, module: nn.Module, leaf: str, like: Tensor) -> Tensor:
    """Return a value for the parameter or buffer ``leaf`` of ``module``.

    Normalisation layers start as identities, biases as zero; everything else is
    scaled to keep the variance.  No layer is zero: a trained network has none.
    """
    name = prefix + leaf
    shape = like.shape

    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
        return torch.ones(shape) if leaf in ("weight", "running_var") else torch.zeros(shape)

    if leaf in ("bias", "in_proj_bias"):
        return torch.zeros(shape)

    if leaf == "logit_scale":
        return torch.full(shape, math.log(1 / 0.07))

    if isinstance(module, nn.Embedding) or leaf in ("positional_embedding", "pos_embed", "cls_token"):
        return gaussian(seed, name, shape, 0.02)

    if leaf == "text_projection":
        return gaussian(seed, name, shape, shape[0] ** -0.5)

    if leaf in ("weight", "in_proj_weight") and like.dim() >= 2:
        return gaussian(seed, name, shape, fan_in(module, like) ** -0.5)

    raise ValueError(f"no rule for tensor {name} {tuple(shape)} of {type(module).__name__}")


def adjust(name: str, value: Tensor) -> Tensor:
    """Give the few layers that fix the range of an output a trained network's range."""
    if name == "first_stage_model.quant_conv.weight":
        channels = value.shape[0] // 2
        value[:channels] *= LATENT_MEAN_GAIN
        value[channels:] = 0.0
    elif name == "first_stage_model.quant_conv.bias":
        value[value.shape[0] // 2 :] = LATENT_LOGVAR
    elif name == "first_stage_model.decoder.conv_out.weight":
        value *= 0.5  # keeps most pixels inside -1..1
    elif name.endswith("ln_final.bias"):
        value += TEXT_MEAN  # the WebUI divides by the mean of a prompt's states, which would be zero
    elif name == MIDAS_PREFIX + "scratch.output_conv.4.weight":
        value.abs_()  # a ReLU follows: a negative depth would be cut to a flat map
    return value


def random_tensors(model: nn.Module, prefix: str, seed: int, skip: str | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of every tensor in the state of ``model``, in order.

    ``prefix`` goes before each name; names beginning with ``skip`` are left out.
    """
    wanted = model.state_dict(prefix=prefix)

    for module_name, module in model.named_modules():
        module_prefix = prefix + (f"{module_name}." if module_name else "")
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]

        for leaf, like in own:
            name = module_prefix + leaf
            if name not in wanted or (skip and name.startswith(skip)):
                continue
            if module is model:
                yield name, like.clone()  # the noise schedule: not weights, must be right
            else:
                yield name, adjust(name, initial_value(seed, module_prefix, module, leaf, like))


def collect(tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors as a state dict in ``dtype``, reporting progress."""
    state: dict[str, Tensor] = {}
    done = 0
    reported = time.monotonic()

    for name, value in tensors:
        state[name] = value.to(dtype).contiguous()
        done += value.numel()
        if time.monotonic() - reported > 5:
            reported = time.monotonic()
            print(f"  {len(state)} tensors, {done / 1e6:.0f} M values", flush=True)

    return state


def save(state: dict[str, Tensor], path: Path, file_format: str) -> None:
    """Write a checkpoint in one of the two formats the WebUI reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if file_format == "safetensors":
        from safetensors.torch import save_file

        save_file(state, str(path), metadata={"format": "pt"})
    else:
        torch.save({"state_dict": state, "global_step": 0}, path)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.0f} MB, {len(state)} tensors)")


def summarize(state: dict[str, Tensor]) -> None:
    """Print how many tensors and values each part has."""
    parts: dict[str, list[int]] = {}
    for name, value in state.items():
        count = parts.setdefault(name.split(".", 1)[0] if "." in name else "(schedule)", [0, 0])
        count[0] += 1
        count[1] += value.numel()
    for part, (tensors, values) in parts.items():
        print(f"  {part:18} {tensors:5} tensors {values / 1e6:8.1f} M values")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Write a depth-to-image checkpoint with random weights, for tests.",
        epilog="Run it with the Python of the WebUI and with WEBUI_DIR set to the WebUI's folder.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="checkpoint to write")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="layer widths (default: full)")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp16", help="precision (default: fp16)")
    parser.add_argument(
        "--format", choices=sorted(set(SUFFIXES.values())), help="file format (default: by the suffix of OUT)"
    )
    parser.add_argument(
        "--no-depth", action="store_true", help="five-channel UNet, but leave out the weights of the depth model"
    )
    parser.add_argument("--plain", action="store_true", help="ordinary four-channel checkpoint without any depth model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    parser.add_argument("--no-yaml", action="store_true", help="write no YAML file beside the checkpoint")
    parser.add_argument(
        "--midas-file", type=Path, metavar="PATH", help="also write the depth model alone, as MiDaS distributes it"
    )
    parser.add_argument(
        "--webui-dir", type=Path, default=os.environ.get("WEBUI_DIR"), help="WebUI folder (default: $WEBUI_DIR)"
    )
    args = parser.parse_args(argv)

    if args.webui_dir is None or not (args.webui_dir / LDM_FOLDER / "ldm").is_dir():
        parser.error(f"set WEBUI_DIR (or --webui-dir) to a WebUI folder that contains {LDM_FOLDER.as_posix()}")
    if args.format is None:
        args.format = SUFFIXES.get(args.out.suffix.lower())
        if args.format is None:
            parser.error("OUT must end in .safetensors or .ckpt, or give --format")
    if args.seed < 0 or args.seed >= 2**31:
        parser.error("--seed must be between 0 and 2147483647")
    if args.size == "small" and args.no_yaml:
        parser.error("a small checkpoint cannot be loaded without its YAML file")

    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool."""
    args = parse_args(argv)
    sys.path.insert(0, str((args.webui_dir / LDM_FOLDER).resolve()))

    recipe = Recipe(size=args.size, plain=args.plain, depth_weights=not (args.plain or args.no_depth), seed=args.seed)
    config = build_config(args.webui_dir, recipe)

    print(f"building a {recipe.size} {'plain' if recipe.plain else 'depth'} model")
    model = build_model(config)
    skip = None if recipe.depth_weights else DEPTH_PREFIX
    state = collect(random_tensors(model, "", recipe.seed, skip), DTYPES[args.dtype])
    del model

    summarize(state)
    save(state, args.out, args.format)

    if not args.no_yaml:
        from omegaconf import OmegaConf

        yaml_path = args.out.with_suffix(".yaml")
        OmegaConf.save(config, yaml_path)
        print(f"wrote {yaml_path}")

    if args.midas_file:
        del state
        midas = collect(random_tensors(build_midas(), MIDAS_PREFIX, recipe.seed), torch.float32)
        args.midas_file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name.removeprefix(MIDAS_PREFIX): value for name, value in midas.items()}, args.midas_file)
        print(f"wrote {args.midas_file} ({args.midas_file.stat().st_size / 1e6:.0f} MB, {len(midas)} tensors)")

    return 0


if __name__ == "__main__":
    sys.exit(main())
