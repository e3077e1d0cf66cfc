"""Tell what a checkpoint file is and whether it works for depth, from names and shapes; no tensor is read.

report = inspect(Path("512-depth-ema.safetensors"))
report.usable, report.faults
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...errors import CheckpointError
from ..download import mirrors
from ..layout import keys
from ..layout.config import EMBEDDED, ModelConfig, from_json, put_into_whole, reading
from ..layout.key_map import DPT_HYBRID
from ..layout.keys import CONTEXT, Shape
from ..layout.ldm_only import unused
from ..layout.ldm_yaml import (
    HEAD_WIDTH,
    METADATA,
    SD2,
    count_layers,
    dpt_config,
    read_params,
    scheduler_from_ldm,
    text_config,
    text_from_ldm,
    unet_from_ldm,
    vae_from_ldm,
)
from ..storage.opening import CheckpointFile, open_checkpoint
from ..storage.tensors import TYPES, Progress, Tensors
from ..storage.weights import find_unet
from . import faults
from .report import Deviation, Fault, Midas, Report, TextLayout
from .sidecar import Sidecar, judge

SD1_TEXT: Final = "cond_stage_model.transformer."


def inspect(source: Path | CheckpointFile, *, whole: bool = False, progress: Progress | None = None) -> Report:
    """Report on a checkpoint file, from its header alone unless `whole`.

    Args:
        source: a safetensors file, or one that `torch.save` wrote, opened or not; nothing in it is run, whatever it
            asks for.
        whole: also read the whole file, for its SHA-256 and the checksums that a pickle has.
        progress: with `whole`, called with the bytes done and the bytes in all.

    Raises:
        CheckpointError: it is neither, it is damaged, or it wants to run code.
    """
    file = open_checkpoint(source)
    names = file.keys()
    found = {name: tuple(file.shape(name)) for name in names}
    types, odd = _types(file, found)
    kind, channels = _kind(found, file.metadata)
    damage = []
    if whole:
        file.sha256(progress)
        damage = faults.checksums(file)
    short, sha256 = file.model_hash, file.known_sha256
    report = Report(
        path=file.path,
        format=file.format,
        bytes=file.size,
        tensors=len(names),
        values=sum(math.prod(shape) for shape in found.values()),
        kind=kind,
        channels=channels,
        midas=None,
        types=types,
        ema=file.weights.ema,
        text_layout=_text_layout(names),
        missing=(),
        extra=(),
        misshaped=(),
        model_hash=short,
        sha256=sha256,
        published=mirrors.published().get(sha256, "") if sha256 else mirrors.MODEL_HASHES.get(short, ""),
        sidecar=None,
        faults=[*damage, *faults.of_file(file, odd)],
        merged=_merged(file.metadata),
    )
    if channels != keys.DEPTH_CHANNELS or kind == UNET_ALONE:
        fault = Fault("kind", f"{file.path.name} is not a whole depth checkpoint: {kind}.", put_into_whole(file.path))
        if kind != UNET_ALONE:
            fix = faults.INSTALL if file.metadata.get("kind") == EMBEDDED else faults.GET_DEPTH
            fault = Fault("kind", f"{file.path.name} is not a depth checkpoint: {kind}.", fix)
        return dataclasses.replace(report, faults=[*report.faults, fault])
    return _depth(report, file, found)


def _depth(report: Report, tensors: CheckpointFile, found: Mapping[str, Shape]) -> Report:
    sidecar = judge(report.path, tensors)
    config = config_of(tensors, sidecar)
    with reading("model config in the file's metadata"):
        required, harmless = config.required(), unused(config)
    depth = {name for name in found if name.startswith(keys.DEPTH)}
    midas: Midas = "inside"
    if not depth:
        midas = "missing"
    elif not config.is_midas or keys.CLS_TOKEN not in depth:
        midas = "other"
    left_out = () if midas == "inside" else (keys.DEPTH,)
    if report.text_layout != "OpenCLIP":  # one sentence about that, instead of hundreds of names
        left_out = (*left_out, keys.TEXT)
    required = {name: shape for name, shape in required.items() if not name.startswith(left_out)}
    missing = [name for name in required if name not in found]
    if midas == "inside" and any(name.startswith(keys.DEPTH) for name in missing):
        midas = "incomplete"
    misshaped = [
        Deviation(name, found[name], shape)
        for name, shape in {**harmless, **required}.items()
        if name in found and found[name] != shape
    ]
    ignored = {*required, *harmless, *HARMLESS} | (depth if midas == "other" else set())
    extra = [name for name in found if name not in ignored and not name.startswith((keys.EMA, SD1_TEXT))]
    read = [*report.faults, *faults.of_reading(tensors, report.types)]
    report = dataclasses.replace(
        report, midas=midas, missing=missing, misshaped=misshaped, extra=extra, sidecar=sidecar, faults=read
    )
    wrong = [*report.faults, *faults.of_depth(report, config, len(required)), *faults.of_yaml(report, config)]
    return dataclasses.replace(report, faults=sorted(wrong, key=lambda fault: not fault.serious))


HARMLESS: Final = (
    "cond_stage_model.model.attn_mask",
    "depth_model.model.pretrained.model.head.weight",
    "depth_model.model.pretrained.model.head.bias",
    "model_ema.decay",
    "model_ema.num_updates",
)
"""Names that some tools write and nobody reads."""


def _types(file: CheckpointFile, found: Mapping[str, Shape]) -> tuple[dict[str, int], list[str]]:
    """Count bytes by element type in the file, most first, and list the tensors whose type cannot be read."""
    counts: dict[str, int] = {}
    odd = []
    for name, shape in found.items():
        try:
            label, size = TYPES[file.kind(name)]
        except CheckpointError:
            odd.append(name)
            continue
        counts[label] = counts.get(label, 0) + math.prod(shape) * size
    return dict(sorted(counts.items(), key=lambda item: -item[1])), odd


# --- what it is -------------------------------------------------------------------------------------------------------


def _text_layout(names: Sequence[str]) -> TextLayout:
    if any(name.startswith(keys.TEXT) for name in names):
        return "OpenCLIP"
    return "SD1" if any(name.startswith(SD1_TEXT) for name in names) else "none"


VERSIONS: Final[Mapping[int, str]] = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}
INPUTS: Final[Mapping[int, str]] = {
    4: "text to image",
    5: "depth",
    7: "upscaler",
    8: "instruct-pix2pix",
    9: "inpainting",
}

PARTS: Final[Sequence[tuple[Callable[[str], bool], str]]] = [
    (lambda name: name.startswith(("lora_unet_", "lora_te", "lora_unet.")), "a LoRA"),
    (lambda name: ".lora_A." in name or ".lora_down." in name or ".lora.down." in name, "a LoRA"),
    (lambda name: name.startswith(("control_model.", "controlnet_")), "a ControlNet"),
    (lambda name: name.startswith(("double_blocks.", "model.diffusion_model.double_blocks.")), "a Flux model"),
    (lambda name: name == "pretrained.model.cls_token", "MiDaS alone"),
    (lambda name: name.startswith("dpt.embeddings."), "the depth network of a diffusers folder, alone"),
    (lambda name: name.startswith("down_blocks.0.resnets."), "the UNet of a diffusers folder, alone"),
    (lambda name: name.startswith(("text_model.", "transformer.text_model.")), "a text encoder alone"),
    (lambda name: name.startswith(("encoder.conv_in.", keys.VAE)), "an autoencoder (VAE) alone"),
    (lambda name: name.startswith("diffusion_model."), "a UNet alone"),
]
"""Test of any name in a file -> what a file without a whole Stable Diffusion is."""


UNET_ALONE: Final = "a UNet of a depth checkpoint, alone"


def _unet_alone(found: Mapping[str, Shape]) -> int | None:
    """Return the input channels of a UNet without anything that it needs besides; None of any other file."""
    unet = find_unet(found)
    if unet is None or any(name.startswith((keys.VAE, "cond_stage_model.", keys.DEPTH, "vae.")) for name in found):
        return None
    shape = found.get(unet.input, ())
    return shape[1] if len(shape) == 4 else None


def _kind(found: Mapping[str, Shape], metadata: Mapping[str, str]) -> tuple[str, int | None]:
    """Return what the file is, in words, and the input channels of its UNet."""
    if metadata.get("kind") == EMBEDDED:
        return "the bundled model in its compact form", None
    if any(name.startswith(keys.UNET + "joint_blocks.") for name in found):
        return "Stable Diffusion 3", None
    if (alone := _unet_alone(found)) is not None:
        return UNET_ALONE if alone == keys.DEPTH_CHANNELS else f"a UNet alone, with {alone} input channels", None
    convolution = found.get(keys.INPUT)
    if convolution is None or len(convolution) != 4:
        for test, what in PARTS:
            if any(map(test, found)):
                return what, None
        return "not a Stable Diffusion checkpoint", None
    channels = convolution[1]
    task = INPUTS.get(channels, f"UNet with {channels} input channels")
    if any(name.startswith("conditioner.embedders.1.") for name in found):
        return f"Stable Diffusion XL, {task}", channels
    context = found.get(CONTEXT, ())
    width = context[1] if len(context) == 2 else 0
    version = VERSIONS.get(width, "Stable Diffusion of another width")
    if any(name.startswith(keys.TEXT) for name in found) and width not in VERSIONS:
        version = "Stable Diffusion 2 in another width"
    return f"{version}, {task}", channels


def _merged(metadata: Mapping[str, str]) -> str:
    """Describe how the file was merged, if it has a recipe in the WebUI's format."""
    try:
        recipe = json.loads(metadata.get("sd_merge_recipe", ""))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(recipe, dict):
        return ""
    names = recipe.get("models")
    if not isinstance(names, dict):
        names = {letter: recipe.get(f"{role}_model_hash") for letter, role in zip("ABC", ROLES, strict=True)}
    models = [f"{str(letter)[:1]} = {str(name)[:60]}" for letter, name in list(names.items())[:3] if name]
    return ", ".join([f"{str(recipe.get('interp_method'))[:40]} {str(recipe.get('multiplier'))[:10]}", *models])


ROLES: Final = ("primary", "secondary", "tertiary")
"""The WebUI's words for the models of a merge."""


def config_of(tensors: Tensors, sidecar: Sidecar | None = None) -> ModelConfig:
    """Derive the model config that a depth checkpoint must have, whatever is missing of it.

    It is the one in its metadata, else in its YAML, else Stable Diffusion 2's with the widths of a few of its tensors.

    Args:
        sidecar: the YAML beside it; used if it is right.

    Raises:
        CheckpointError: the metadata cannot be used.
    """
    if (own := tensors.metadata.get(METADATA)) is not None:
        return from_json(own)
    with reading("names of the tensors"):
        guess = _guess(tensors)
    if sidecar is None or sidecar.state != "right":
        return guess
    with reading(f"YAML {sidecar.path.name}"):
        params = read_params(sidecar.path)
        config = dataclasses.replace(
            guess, unet=unet_from_ldm(params), vae=vae_from_ldm(params), scheduler=scheduler_from_ldm(params)
        )
        if _text_layout(tensors.keys()) == "OpenCLIP":
            text, penultimate = text_from_ldm(params, tensors)
            config = dataclasses.replace(config, text_encoder=text, penultimate=penultimate)
        return config


def _guess(tensors: Tensors) -> ModelConfig:
    names = set(tensors.keys())

    def side(name: str, index: int, default: int) -> int:
        shape = tensors.shape(name) if name in names else ()
        return shape[index] if len(shape) > index else default

    widths = [side(keys.INPUT, 0, 320) * factor for factor in (1, 2, 4, 4)]
    text = side(keys.TEXT + "ln_final.weight", 0, 1024)
    layers = count_layers(tensors, keys.TEXT + "transformer.resblocks.") if text != 1024 else 24
    return dataclasses.replace(
        SD2,
        unet={
            **SD2.unet,
            "block_out_channels": widths,
            "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in widths],
            "cross_attention_dim": side(CONTEXT, 1, text),
        },
        vae={
            **SD2.vae,
            "block_out_channels": [
                side(keys.VAE + "encoder.conv_in.weight", 0, 128) * factor for factor in (1, 2, 4, 4)
            ],
        },
        text_encoder=text_config(width=text, heads=max(1, text // HEAD_WIDTH), layers=max(1, layers - 1)),
        # Of the usual width it is the published one, from which whatever is wrong with it deviates.
        depth_estimator=_midas(tensors, side(keys.CLS_TOKEN, 2, DPT_HYBRID["hidden_size"])),
    )


def _midas(tensors: Tensors, width: int) -> dict[str, Any]:
    """Return MiDaS' configuration: the published one, or that of one of another width."""
    if width != DPT_HYBRID["hidden_size"]:
        try:
            with reading("depth network"):
                return dpt_config(tensors)
        except CheckpointError:
            pass  # what it lacks of the published one is listed
    return dict(DPT_HYBRID)
