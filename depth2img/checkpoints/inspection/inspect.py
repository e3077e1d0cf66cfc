"""What is this checkpoint, and does it work for depth? Answered from names and shapes; no tensor is read.

report = inspect(Path("512-depth-ema.safetensors"))
report.usable, report.faults
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ...errors import CheckpointError, command
from ...io.atomic import refusing
from .. import known
from ..layout import keys, shapes
from ..layout.config import Anatomy, bad, from_json
from ..layout.ldm_yaml import HEAD_WIDTH, METADATA, SD2, text_config
from ..layout.shapes import Shape
from ..storage.pickled import open_pickle
from ..storage.tensors import MAX_HEADER, Progress, Safetensors, Tensors
from . import faults
from .report import Deviation, Fault, Format, Midas, Report, TextLayout
from .sidecar import judge

CONTEXT: Final = keys.UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
SD1_TEXT: Final = "cond_stage_model.transformer."
EMA: Final = "model_ema."
BUNDLED: Final = "depth2img-embedded"


def inspect(path: Path, *, whole: bool = False, sha256: str | None = None, progress: Progress | None = None) -> Report:
    """What a checkpoint file is, from its header alone unless `whole`.

    Args:
        path: a safetensors file, or one that `torch.save` wrote; nothing in it is run, whatever it asks for.
        whole: also read the whole file, for its SHA-256 and the checksums that a pickle has.
        sha256: of the file, if it is known already.
        progress: with `whole`, told the bytes done and the bytes in all.

    Raises:
        CheckpointError: it is neither, it is damaged, or it wants to run code.
    """
    form = sniff(path)
    tensors = opened(path, form)
    names = tensors.keys()
    found = {name: tuple(tensors.shape(name)) for name in names}
    types, odd = _types(tensors, found)
    kind, channels = _kind(found, tensors.metadata)
    short = known.model_hash(path)
    wrong = []
    if whole:
        sha256 = known.sha256_of(path, progress)
        wrong = faults.checksums(path, form)
    report = Report(
        path=path,
        format=form,
        bytes=path.stat().st_size,
        tensors=len(names),
        values=sum(math.prod(shape) for shape in found.values()),
        kind=kind,
        channels=channels,
        midas=None,
        types=types,
        ema=sum(name.startswith(EMA) for name in names),
        text_layout=_text_layout(names),
        missing=(),
        extra=(),
        misshaped=(),
        model_hash=short,
        sha256=sha256,
        published=known.published().get(sha256, "") if sha256 else known.MODEL_HASHES.get(short, ""),
        beside=None,
        faults=[*wrong, *faults.of_file(path, form, odd, sha256, short)],
        merged=_merged(tensors.metadata),
    )
    if channels != keys.DEPTH_CHANNELS:
        fix = faults.INSTALL if tensors.metadata.get("kind") == BUNDLED else faults.GET_DEPTH
        fault = Fault("kind", f"{path.name} is no depth checkpoint: {kind}.", fix)
        return dataclasses.replace(report, faults=[*report.faults, fault])
    return _depth(report, tensors, found)


def opened(path: Path, form: Format) -> Tensors:
    """The tensors of a file that is stored so, whatever its name says.

    Raises:
        CheckpointError: it is damaged, or wants to run code.
    """
    return Safetensors(path) if form == "safetensors" else open_pickle(path)


def _depth(report: Report, tensors: Tensors, found: Mapping[str, Shape]) -> Report:
    anatomy = anatomy_of(tensors)
    required, unused = _wanted(anatomy)
    midas: Midas = "inside"
    depth = {name for name in found if name.startswith(keys.DEPTH)}
    if not depth:
        midas = "missing"
        required = {name: shape for name, shape in required.items() if not name.startswith(keys.DEPTH)}
    elif not anatomy.is_midas or keys.MIDAS + "pretrained.model.cls_token" not in depth:
        midas = "other"
        required = {name: shape for name, shape in required.items() if not name.startswith(keys.DEPTH)}
    layout = report.text_layout
    if layout != "OpenCLIP":  # one sentence about that, instead of hundreds of names
        required = {name: shape for name, shape in required.items() if not name.startswith(keys.TEXT)}
    missing = [name for name in required if name not in found]
    if midas == "inside" and any(name.startswith(keys.DEPTH) for name in missing):
        midas = "incomplete"
    misshaped = [
        Deviation(name, found[name], shape)
        for name, shape in {**unused, **required}.items()
        if name in found and found[name] != shape
    ]
    ignored = {*required, *unused, *HARMLESS} | (depth if midas == "other" else set())
    extra = [name for name in found if name not in ignored and not name.startswith((EMA, SD1_TEXT))]
    beside = judge(report.path, tensors)
    report = dataclasses.replace(report, midas=midas, missing=missing, misshaped=misshaped, extra=extra, beside=beside)
    wrong = [*report.faults, *faults.of_depth(report, anatomy, len(required)), *faults.of_yaml(report, anatomy)]
    return dataclasses.replace(report, faults=sorted(wrong, key=lambda fault: not fault.serious))


def _wanted(anatomy: Anatomy) -> tuple[dict[str, Shape], dict[str, Shape]]:
    try:
        return shapes.required(anatomy), shapes.unused(anatomy)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as problem:
        raise bad("description in the file's metadata", problem) from problem


HARMLESS: Final = (
    "cond_stage_model.model.attn_mask",
    "depth_model.model.pretrained.model.head.weight",
    "depth_model.model.pretrained.model.head.bias",
    "model_ema.decay",
    "model_ema.num_updates",
)
"""Names that some tools write and nobody reads."""


# --- the file ---------------------------------------------------------------------------------------------------------


def sniff(path: Path) -> Format:
    """How a file is stored, by its first bytes.

    Raises:
        CheckpointError: it cannot be read, or is no checkpoint at all; the message says what it is instead.
    """
    with refusing(f"{path.name} cannot be read.", CheckpointError):
        if path.is_dir():
            how = command("checkpoint", "convert", path, f"{path}.safetensors")
            raise CheckpointError(
                f"{path.name} is a folder.",
                fix=f"Give a file; {how} makes one of a folder in the layout of diffusers.",
            )
        if not path.is_file():
            raise CheckpointError(f"There is no file {path.name}.", got=str(path), fix="Check the path.")
        with path.open("rb") as file:
            start, total = file.read(512), path.stat().st_size
    for mark, what, fix in SIGNS:
        if start.lstrip()[:40].lower().startswith(mark):
            raise CheckpointError(f"{path.name} is {what}, no checkpoint.", got=f"{total:,} bytes", fix=fix)
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "pickle"
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{":
        if header > MAX_HEADER:
            raise CheckpointError(
                f"The header of {path.name} is too long.",
                got=f"{header:,} bytes",
                fix=f"At most {MAX_HEADER:,} are read; the file is damaged, or not meant to be read.",
            )
        return "safetensors"
    what = "is empty" if not start else "is neither a safetensors nor a PyTorch file"
    raise CheckpointError(f"{path.name} {what}.", got=f"{total:,} bytes", fix=faults.GET_AGAIN)


PAGE: Final = ("an HTML page", "The download was answered by a web page; get the file itself, perhaps after a login.")
PACKED: Final = ("a packed archive", "Unpack it first.")

SIGNS: Final[Sequence[tuple[bytes, str, str]]] = [
    (b"<!doctype", *PAGE),
    (b"<html", *PAGE),
    (b"<?xml", *PAGE),
    (b"version https://git-lfs", "a pointer of Git LFS", "Run `git lfs pull` in its folder, or download the file."),
    (b"gguf", "a GGUF file", "The WebUI reads safetensors and .ckpt files."),
    (b"\x1f\x8b", *PACKED),
    (b"7z\xbc\xaf", *PACKED),
    (b"rar!", *PACKED),
]
"""First bytes, in lower case -> what the file is, and what to do."""


def _types(tensors: Tensors, found: Mapping[str, Shape]) -> tuple[dict[str, int], list[str]]:
    """Bytes by element type, most first; and the tensors whose type nothing here can read."""
    counts: dict[str, int] = {}
    odd = []
    for name, shape in found.items():
        try:
            dtype = tensors.dtype(name)
        except CheckpointError:
            odd.append(name)
            continue
        label = str(dtype).removeprefix("torch.")
        counts[label] = counts.get(label, 0) + math.prod(shape) * dtype.itemsize
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
"""What a file without a whole Stable Diffusion is, by any of its names."""


def _kind(found: Mapping[str, Shape], metadata: Mapping[str, str]) -> tuple[str, int | None]:
    """What the file is in words, and the input channels of its UNet."""
    if metadata.get("kind") == BUNDLED:
        return "the bundled model in its compact form", None
    if any(name.startswith(keys.UNET + "joint_blocks.") for name in found):
        return "Stable Diffusion 3", None
    convolution = found.get(keys.INPUT)
    if convolution is None or len(convolution) != 4:
        for test, what in PARTS:
            if any(map(test, found)):
                return what, None
        return "no Stable Diffusion checkpoint", None
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
    """How the file was merged, in words, as far as a recipe of the WebUI's form says so."""
    try:
        recipe = json.loads(metadata.get("sd_merge_recipe", ""))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(recipe, dict):
        return ""
    names = recipe.get("models")
    if not isinstance(names, dict):
        names = {letter: recipe.get(f"{place}_model_hash") for letter, place in zip("ABC", PLACES, strict=True)}
    models = [f"{str(letter)[:1]} = {str(name)[:60]}" for letter, name in list(names.items())[:3] if name]
    return ", ".join([f"{str(recipe.get('interp_method'))[:40]} {str(recipe.get('multiplier'))[:10]}", *models])


PLACES: Final = ("primary", "secondary", "tertiary")
"""What the WebUI calls the models of a merge."""


def anatomy_of(tensors: Tensors) -> Anatomy:
    """The anatomy that a depth checkpoint must have, whatever is missing of it: the one in its metadata, else Stable
    Diffusion 2's with the widths of a few of its tensors.

    Raises:
        CheckpointError: the metadata cannot be used.
    """
    own = tensors.metadata.get(METADATA)
    if own is not None:
        return from_json(own)
    names = set(tensors.keys())

    def side(name: str, index: int, default: int) -> int:
        shape = tensors.shape(name) if name in names else ()
        return shape[index] if len(shape) > index else default

    widths = [side(keys.INPUT, 0, 320) * factor for factor in (1, 2, 4, 4)]
    text = side(keys.TEXT + "ln_final.weight", 0, 1024)
    layers = sum(f"{keys.text_layer(number)}ln_1.weight" in names for number in range(64)) if text != 1024 else 24
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
        depth_estimator=dict(shapes.DPT_HYBRID),
    )
