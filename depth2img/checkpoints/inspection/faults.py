"""The faults of a checkpoint: a sentence and a remedy for each.

The findings of `inspect` are judged here; nothing is read but, for `checksums`, the file's own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from ...errors import CheckpointError, command
from ...io.atomic import refusing
from ..download import mirrors
from ..layout import keys
from ..layout.config import ModelConfig, take_midas
from ..layout.keys import MIDAS_FILE, sides
from ..layout.ldm_yaml import SD2
from ..storage.opening import GET_AGAIN, SUFFIXES, CheckpointFile
from ..storage.unpickling import shown
from .report import Fault, Report

GET_DEPTH: Final = f"A depth checkpoint's UNet has 5 input channels; {command('checkpoint', 'fetch')} gets one."
INSTALL: Final = (
    f"The panel's button installs it; so does {command('checkpoint', 'convert', 'tiny', 'depth2img-tiny.safetensors')}."
)


def compare(path: Path) -> str:
    """Return the remedy for a file that is not as it was published."""
    return f"{GET_AGAIN} {command('checkpoint', 'inspect', path, '--hash')} gives its SHA-256, to be compared."


def set_up(path: Path) -> str:
    """Return the remedy for a YAML that does not fit."""
    how = command("checkpoint", "setup", path)
    return f"{how}, or the button in the panel, writes the right one and keeps the old."


# --- the file ---------------------------------------------------------------------------------------------------------


def checksums(file: CheckpointFile) -> list[Fault]:
    """Check the checksums of a pickle's archive, which is read for it; a safetensors file has none.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with refusing(f"{file.path.name} cannot be read.", CheckpointError):
        if file.format != "pickle" or not zipfile.is_zipfile(file.path):
            return []
        with zipfile.ZipFile(file.path) as archive:
            entry = archive.testzip()
    if entry is None:
        return []
    return [Fault("damaged", f"It is damaged: '{entry[:80]}' in it has changed.", compare(file.path))]


def of_file(file: CheckpointFile, odd: Sequence[str]) -> list[Fault]:
    """List what is wrong with the file as such.

    Args:
        file: the file; its SHA-256 is judged if it is known.
        odd: names of tensors whose element type cannot be read.
    """
    faults, path, sha256, published = [], file.path, file.known_sha256, mirrors.published()
    if file.misnamed:
        fix = f"Rename it to {path.stem}{SUFFIXES[file.format][0]}, for programs that go by the name."
        faults.append(Fault("suffix", file.misnamed, fix, False))
    if odd:
        what = f"{len(odd)} tensors have an element type that cannot be read, such as '{odd[0][:80]}'."
        faults.append(Fault("type", what, "Get the file in float16 or float32."))
    if sha256 is not None and sha256 not in published:
        digests = {name: digest for digest, name in published.items()}
        if file.model_hash in mirrors.MODEL_HASHES:
            name = mirrors.MODEL_HASHES[file.model_hash]
            what = f"It begins like {name}, but its SHA-256 is another: it is damaged or changed."
            faults.append(Fault("damaged", what, f"{command('checkpoint', 'fetch', name)} gets the published one."))
        elif path.name in digests:
            what = f"It has the name of the published {path.name}, but it is another file or damaged."
            faults.append(Fault("hash", what, f"The published one has the SHA-256 {digests[path.name]}.", False))
    return faults


def of_reading(file: CheckpointFile, types: Collection[str]) -> list[Fault]:
    """List what is read of a depth checkpoint in another way than other programs would.

    Args:
        file: the checkpoint.
        types: torch's names of its element types.
    """
    faults, path, weights = [], file.path, file.weights
    plain = path.with_name(f"{path.stem}-plain.safetensors")
    fix = f"{command('checkpoint', 'convert', path, plain)} writes it for programs that do not read it so."
    if weights.wrapped:
        what = "Its training program has put something into the names of its weights; they are found nevertheless."
        if weights.prefix:
            what = f"Its training program has saved its weights behind '{weights.prefix[:60]}'; they are found there."
        more = f" {weights.outside:,} other tensors are left out." if weights.outside else ""
        faults.append(Fault("wrapped", what + more, fix, False))
    if weights.is_ema:
        what = f"Its UNet is there as averaged weights (EMA) alone, {weights.ema:,} tensors; these are used."
        faults.append(Fault("ema-alone", what, fix, False))
    if file.objects:
        named = [name for name in file.objects if not name.startswith("__builtin__.")]
        what = f"Objects of other programs are in it besides, and left out: {shown(named or file.objects)}."
        faults.append(Fault("objects", what, fix, False))
    if any(name.startswith("float8") for name in types):
        what = "Its weights are 8-bit floats (fp8), which are widened to float16 when they are read."
        faults.append(Fault("fp8", what, "For pictures as good as the model can make, get it in float16.", False))
    return faults


# --- the model --------------------------------------------------------------------------------------------------------


def of_depth(report: Report, config: ModelConfig, required: int) -> list[Fault]:
    """List what is wrong with a depth checkpoint's tensors, `required` of which are run."""
    faults, path = [], report.path
    if report.text_layout == "SD1":
        what = (
            "Its text encoder is laid out like Stable Diffusion 1's (cond_stage_model.transformer.*), as some "
            "converters write it: the WebUI loads none of it, and pictures come out black or as noise."
        )
        how = command("checkpoint", "convert", "FOLDER", path.with_suffix(".safetensors"))
        fix = f"Convert the diffusers folder that it was made of again, {how}, or get the original file."
        faults.append(Fault("text-layout", what, fix))
    elif report.text_layout == "none":
        fix = f"Get the whole checkpoint; {command('checkpoint', 'fetch')} gets the published one."
        faults.append(Fault("text-missing", "It has no text encoder.", fix))
    if report.midas == "missing":
        what = "It holds no depth network (depth_model.*): it was converted without MiDaS."
        fix = f"{take_midas(path)} Or put {MIDAS_FILE} into the WebUI's models/midas."
        faults.append(Fault("midas-missing", what, fix))
    if report.midas == "other" and config.is_midas and (report.sidecar is None or report.sidecar.state != "right"):
        faults.append(Fault("depth-unknown", "Its depth network is unknown.", take_midas(path)))
    if report.missing:
        what = f"{len(report.missing):,} of {required:,} tensors are missing, such as '{report.missing[0][:100]}'."
        only_midas = all(name.startswith(keys.DEPTH) for name in report.missing)
        faults.append(Fault("missing", what, take_midas(path) if only_midas else compare(path)))
    if report.misshaped:
        one = report.misshaped[0]
        what = (
            f"{len(report.misshaped):,} tensors have another shape than Stable Diffusion 2's, such as "
            f"'{one.name[:100]}' with {sides(one.shape)} instead of {sides(one.wanted)}."
        )
        faults.append(Fault("misshaped", what, "It was merged or converted wrongly; get the original file."))
    if report.ema and "ema-alone" not in (fault.code for fault in report.faults):
        what = (
            f"It carries {report.ema:,} tensors of averaged weights (EMA), which nothing reads when pictures are made."
        )
        ema = path.with_name(f"{path.stem}-ema.safetensors")
        fix = f"{command('checkpoint', 'convert', path, ema, '--ema')} writes a file of them."
        faults.append(Fault("ema", what, fix, False))
    if report.extra:
        what = f"{len(report.extra):,} tensors belong to no part of the model, such as '{report.extra[0][:100]}'."
        faults.append(Fault("extra", what, serious=False))
    return faults


def of_yaml(report: Report, config: ModelConfig) -> list[Fault]:
    """List what is wrong with the YAML beside a depth checkpoint."""
    sidecar = report.sidecar
    if sidecar is None:
        return []
    name, fix = sidecar.path.name, set_up(report.path)
    if sidecar.state == "hostile":
        what = f"The YAML beside it may be malicious: {sidecar.detail}; the WebUI would run that code."
        return [Fault("yaml-hostile", what, f"Do not load it. {fix}")]
    if sidecar.is_bad:
        what = f"{name} beside it is not the one for this checkpoint: {sidecar.detail}."
        return [Fault(f"yaml-{sidecar.state}", what, fix)]
    if sidecar.state == "none" and not _is_standard(config):
        what = f"It needs a YAML of its own, {name} beside it, since it is not as wide as Stable Diffusion 2."
        return [Fault("yaml-none", what, fix)]
    return []


def _is_standard(config: ModelConfig) -> bool:
    """Tell whether the WebUI's own v2-midas-inference.yaml describes it."""
    return config.is_midas and all(
        list(part[name]) == list(wanted[name]) if isinstance(wanted[name], list) else part[name] == wanted[name]
        for part, wanted, name in (
            (config.unet, SD2.unet, "block_out_channels"),
            (config.unet, SD2.unet, "cross_attention_dim"),
            (config.vae, SD2.vae, "block_out_channels"),
            (config.text_encoder, SD2.text_encoder, "hidden_size"),
        )
    )
