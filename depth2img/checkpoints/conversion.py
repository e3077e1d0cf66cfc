"""Between a folder in the diffusers layout and one file in `ldm`'s, tensor by tensor, with a ledger.

Nothing is dropped and nothing invented: a tensor that only the single file has is kept in the folder's
`ldm_only.safetensors`; where there is no such file, the few that `ldm` expects and never runs are re-created, noted in
the single file, and, unless somebody has changed them, left out again on the way back. There and back gives every
tensor bit for bit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch

from ..errors import CheckpointError
from ..io.atomic import NEW, WRITING, appearing, free_space, refusing, remove_stale, write_file
from .inspection.report import size
from .layout import keys, ldm_only
from .layout.config import FOLDERS, Anatomy
from .layout.keys import Pair
from .layout.ldm_yaml import METADATA, to_yaml
from .layout.tokenizer import write_tokenizer
from .model import ASIDE, RECREATED, WEIGHTS, Model, ToLdm, open_model
from .storage.tensors import PICKLE_SUFFIXES, Progress, Renamed, Tensors, part_of
from .storage.writing import Lazy, as_type, write_safetensors

NETWORKS: Final = (keys.UNET, keys.VAE, "cond_stage_model.", keys.DEPTH, "model_ema.")
"""What is stored in half precision where that is asked for; rounding the noise schedule would change every picture."""

What = Literal["same", "stacked", "pointwise", "kept aside", "re-created", "constant"]

FREE_SPACE: Final = 1.02
"""How much room is asked for, as a multiple of the bytes that will be written."""


@dataclass(frozen=True)
class Line:
    """What became of one tensor.

    Attributes:
        ldm: its name in the single file; empty for a constant.
        other: its name, or three, in the folder, behind the part's; empty for what only the single file has.
        what: how the two are related: see `keys.Pair.form`; `kept aside`: in the folder's `ldm_only.safetensors`;
            `re-created`: made by `ldm_only`, in the single file only; `constant`: equal in every model, in neither.
    """

    ldm: str
    other: tuple[str, ...]
    what: What


@dataclass(frozen=True)
class Ledger:
    """What became of every tensor of a conversion.

    Attributes:
        lines: one for each tensor.
        bytes: of all tensors, as written.
        sha256: of each weights file that was written, by its name.
    """

    lines: Sequence[Line]
    bytes: int
    sha256: Mapping[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many lines there are of each kind."""
        return dict(Counter(line.what for line in self.lines))

    def to_json(self) -> dict[str, Any]:
        """The ledger as plain data."""
        lines = [{"ldm": line.ldm, "diffusers": list(line.other), "what": line.what} for line in self.lines]
        return {"tensors": lines, "counts": self.counts(), "bytes": self.bytes, "sha256": dict(self.sha256)}


def convert(
    source: Path, target: Path, progress: Progress | None = None, *, half: bool = False, midas: Path | None = None
) -> Ledger:
    """A single file to a folder, or a folder to a single file.

    Args:
        source: a folder in the diffusers layout, or a `.safetensors` or `.ckpt` file.
        target: a `.safetensors` file (its YAML is written beside it) or a folder that does not exist yet.
        progress: told the bytes done and the bytes in all.
        half: store the networks in float16; the noise schedule keeps its precision.
        midas: take the depth network from here; see `open_midas`.

    Raises:
        CheckpointError: the source is no depth model, or the target cannot be written.
    """
    return convert_model(open_model(source, midas), target, progress, half=half)


def convert_model(model: Model, target: Path, progress: Progress | None = None, *, half: bool = False) -> Ledger:
    """A model to a single file if the target's name ends in `.safetensors`, else to a folder.

    Raises:
        CheckpointError: the target cannot be written.
    """
    if is_single_file(target):
        return to_single_file(model, target, progress, half=half)
    return to_folder(model, target, progress, half=half)


END_THE_NAME: Final = "End the name in .safetensors."


def is_single_file(target: Path) -> bool:
    """Whether a target is a single file by its name, and not a folder.

    Raises:
        CheckpointError: it is a pickle, which is never written.
    """
    if target.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError("Checkpoints are written as safetensors only.", got=f"'{target.name}'", fix=END_THE_NAME)
    return target.suffix.lower() == ".safetensors"


def to_single_file(model: Model, path: Path, progress: Progress | None = None, *, half: bool = False) -> Ledger:
    """Write a model as one safetensors file in `ldm`'s layout, and its YAML beside it.

    Raises:
        CheckpointError: the folder cannot be written or the model does not fit the layout.
    """
    lazies, lines = lazy_list(ToLdm(model.parts, model.pairs)), [_line(pair) for pair in model.pairs]
    lines += [Line("", (name,), "constant") for name in model.constants]
    lazies += lazy_list(model.aside)
    lines += [Line(name, (), "kept aside") for name in model.aside.keys() if name not in model.noted]
    table = next(pair for pair in model.pairs if pair.ldm == keys.TOKEN_TABLE)
    dtype, there = model.parts["text_encoder"].dtype(table.names[0]), {lazy.key for lazy in lazies}
    again = [lazy for lazy in ldm_only.recreated(model.anatomy, dtype) if lazy.key not in there]
    lazies += again
    noted = [*model.noted, *(lazy.key for lazy in again)]
    lines += [Line(name, (), "re-created") for name in noted]
    metadata = {METADATA: model.anatomy.to_json(), **({RECREATED: "\n".join(noted)} if noted else {})}
    total, digest = write_single_file(path, lazies, model.anatomy, metadata, progress, half=half)
    return Ledger(lines, total, {path.name: digest})


def write_single_file(
    path: Path,
    lazies: Sequence[Lazy],
    anatomy: Anatomy,
    metadata: Mapping[str, str],
    progress: Progress | None = None,
    *,
    half: bool = False,
) -> tuple[int, str]:
    """Write tensors under their names in `ldm`, and the YAML beside; bytes of the tensors, and the file's SHA-256.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    lazies = [_halved(lazy) if half and lazy.key.startswith(NETWORKS) else lazy for lazy in lazies]
    total = room_for(lazies, path.parent)
    beside = path.with_suffix(".yaml")
    remove_stale(path)
    remove_stale(beside)
    text = to_yaml(anatomy).encode()

    def describe() -> None:
        write_file(beside, text, CheckpointError, what="The description")

    # The YAML comes first: alone it does no harm, while a checkpoint that is not as wide as its kind needs it.
    digest = write_safetensors(path, lazies, {"format": "pt", **metadata}, progress, before=describe)
    return total, digest


def to_folder(model: Model, folder: Path, progress: Progress | None = None, *, half: bool = False) -> Ledger:
    """Write a model as a folder in the diffusers layout; the folder appears whole or not at all.

    Raises:
        CheckpointError: the folder exists already or cannot be written.
    """
    with refusing(f"{folder.name} cannot be written.", CheckpointError, fix=WRITING):
        exists = folder.exists()
    if exists:
        raise CheckpointError(
            f"{folder.name} exists already.", fix="Give the name of a folder that does not exist yet."
        )
    again = model.still_as_recreated()
    kept = Renamed(model.aside, {name: name for name in model.aside.keys() if name not in again})
    files = {f"{name}/{stem}.safetensors": lazy_list(model.parts[name]) for name, stem in WEIGHTS.items()}
    lines = [_line(pair) for pair in model.pairs]
    lines += [Line(name, (), "re-created") for name in again]
    lines += [Line(name, (), "kept aside") for name in kept.keys()]
    if half:
        files = {name: [_halved(lazy) for lazy in lazies] for name, lazies in files.items()}
    if kept.keys():
        files[ASIDE] = [_halved(z) if half and z.key.startswith(NETWORKS) else z for z in lazy_list(kept)]
    remove_stale(folder)
    total = room_for([lazy for lazies in files.values() for lazy in lazies], folder.parent)
    done, digests = 0, {}
    with appearing(folder, CheckpointError) as beside:
        for name, lazies in files.items():
            file = beside / f"{name}{NEW}"
            file.parent.mkdir(exist_ok=True)
            digests[name] = write_safetensors(file, lazies, {"format": "pt"}, part_of(progress, done, total))
            done += sum(lazy.size for lazy in lazies)
        _write_texts(beside, model.anatomy)
    return Ledger(lines, total, digests)


def _line(pair: Pair) -> Line:
    return Line(pair.ldm, tuple(f"{pair.component}/{name}" for name in pair.names), pair.form)


def lazy_list(tensors: Tensors) -> list[Lazy]:
    """All tensors of a source, to be read when they are written."""
    return [Lazy(key, tensors.dtype(key), tensors.shape(key), partial(tensors.get, key)) for key in tensors.keys()]


def _halved(lazy: Lazy) -> Lazy:
    return as_type(lazy, torch.float16) if lazy.dtype.is_floating_point else lazy


def room_for(lazies: Sequence[Lazy], folder: Path) -> int:
    """Bytes of the tensors, if the folder's disk has room for them.

    Raises:
        CheckpointError: it has not.
    """
    total = sum(lazy.size for lazy in lazies)
    free = free_space(folder, CheckpointError)
    if total * FREE_SPACE > free:
        raise CheckpointError(
            "There is not enough room for the converted checkpoint.",
            got=f"{size(free)} free, {size(total)} needed",
            fix="Free some space or choose another disk.",
        )
    return total


def _write_texts(folder: Path, anatomy: Anatomy) -> None:
    texts: dict[str, Mapping[str, Any]] = {f"{name}/config.json": getattr(anatomy, name) for name in FOLDERS}
    texts["scheduler/scheduler_config.json"] = anatomy.scheduler
    texts["model_index.json"] = _index(anatomy)
    texts["feature_extractor/preprocessor_config.json"] = FEATURE_EXTRACTOR
    for name, value in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_tokenizer(folder / "tokenizer")


def _index(anatomy: Anatomy) -> dict[str, Any]:
    depth = (
        ["transformers", "DPTForDepthEstimation"]
        if anatomy.is_midas
        else anatomy.depth_estimator["target"].rsplit(".", 1)
    )
    return {
        "_class_name": "StableDiffusionDepth2ImgPipeline",
        "depth_estimator": depth,
        "feature_extractor": ["transformers", "DPTImageProcessor"],
        "scheduler": ["diffusers", anatomy.scheduler.get("_class_name", "DDIMScheduler")],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


FEATURE_EXTRACTOR: Final[Mapping[str, Any]] = {
    "image_processor_type": "DPTImageProcessor",
    "do_resize": True,
    "size": {"height": 384, "width": 384},
    "keep_aspect_ratio": False,
    "ensure_multiple_of": 1,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""What diffusers' own pipeline does to a picture before MiDaS; `estimators.midas_input` does the host's instead."""
