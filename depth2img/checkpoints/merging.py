"""Merging a depth checkpoint with another Stable Diffusion 2 checkpoint, tensor by tensor.

The formulas and their names are the WebUI's (modules/extras.py, `run_modelmerger`): with A the primary, B the secondary
and C the tertiary model and M the multiplier, "Weighted sum" is A * (1 - M) + B * M, and "Add difference" is
A + (B - C) * M. The WebUI's own merger refuses a model with 5 input channels beside one with 4; here the fifth, which
takes the depth, and the depth network stay what they are in the depth checkpoint.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
import yaml

from ..errors import CheckpointError, OptionError
from .conversion import END_THE_NAME, NETWORKS, is_single_file, room_for, write_single_file
from .inspection.inspect import inspect
from .layout import keys
from .layout.config import ModelConfig, read_text, reading
from .layout.ldm_yaml import METADATA
from .model import RECREATED, open_single_file
from .storage.opening import CheckpointFile, open_checkpoint
from .storage.tensors import Lazy, Progress, as_type, part_of

Fate = Literal["merged", "merged but for depth", "kept", "left out"]
Letter = Literal["A", "B", "C"]

PLAIN_CHANNELS: Final = 4
MERGED: Final = (keys.UNET, keys.TEXT, keys.EMA)
"""Prefixes of what the formula is applied to; all else is kept."""

PRECISIONS: Final = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class MergedTensor:
    """The fate of one tensor.

    Attributes:
        name: its name in the single file.
        sources: the models that it comes from; of `left out` the ones that have it.
        what: `merged`; `merged but for depth`: the input convolution, whose fifth channel is the depth checkpoint's;
            `kept`: equal to the source's; `left out`: not in the result.
    """

    name: str
    sources: tuple[Letter, ...]
    what: Fate


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Attributes:
        tensors: one entry for each tensor of any of the models.
        bytes: of all tensors, as written.
        sha256: of the file.
        recipe: as in its metadata under `sd_merge_recipe`.
    """

    tensors: Sequence[MergedTensor]
    bytes: int
    sha256: str
    recipe: Mapping[str, Any]

    def counts(self) -> dict[str, int]:
        """Count the tensors by their fate."""
        return dict(Counter(tensor.what for tensor in self.tensors))

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        tensors = [{"name": one.name, "sources": list(one.sources), "what": one.what} for one in self.tensors]
        values = {"counts": self.counts(), "bytes": self.bytes, "sha256": self.sha256, "recipe": dict(self.recipe)}
        return {"tensors": tensors, **values}


@dataclass(frozen=True)
class _Source:
    file: CheckpointFile
    names: frozenset[str]
    is_depth: bool


_Sources = Mapping[Letter, _Source]


def merge(
    primary: Path,
    secondary: Path,
    target: Path,
    *,
    multiplier: float,
    tertiary: Path | None = None,
    vae: Letter = "A",
    precision: str | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Merge two or three checkpoints into a depth checkpoint; its YAML goes beside it, the recipe into its metadata.

    At least one of A and B is a depth checkpoint. With both, the fifth channel is merged like the others.

    Args:
        primary: A, a checkpoint file, safetensors or pickle.
        secondary: B, likewise.
        target: the `.safetensors` file to write.
        multiplier: M, 0..1.
        tertiary: C; makes it "Add difference" instead of "Weighted sum".
        vae: the model whose autoencoder is kept, A or B.
        precision: one of `PRECISIONS` for the networks; None: the wider of the models', tensor by tensor.
        progress: called with the bytes done and in all, those of the models' SHA-256 included.

    Raises:
        CheckpointError: a model is not a Stable Diffusion 2 checkpoint, they do not fit together, or the target cannot
            be written.
        OptionError: an option is out of range.
    """
    _check_options(target, multiplier, vae, precision)
    paths: dict[Letter, Path] = {"A": primary, "B": secondary, **({"C": tertiary} if tertiary else {})}
    sources = {letter: _open(path) for letter, path in paths.items()}
    depth = _depth_side(sources)
    model = open_single_file(sources[depth].file)
    _fit(sources, model.config)
    lazies, fates = _tensors(sources, depth, multiplier, vae, precision)
    hashed = sum(source.file.size for source in sources.values())
    whole = hashed + room_for(lazies, target.parent)
    hashes = _hashes(sources, progress, whole)
    recipe = _recipe(sources, hashes, multiplier, vae, precision, target, depth)
    metadata = {
        "sd_merge_recipe": json.dumps(recipe),
        "sd_merge_models": json.dumps(_models(sources, hashes)),
        METADATA: model.config.to_json(),
    }
    if model.noted:
        metadata[RECREATED] = "\n".join(model.noted)
    told = part_of(progress, hashed, whole)
    return Merged(fates, *write_single_file(target, lazies, model.config, metadata, told), recipe)


def _hashes(sources: _Sources, progress: Progress | None, whole: int) -> dict[Letter, str]:
    """Compute the models' SHA-256, the first part of a job of `whole` bytes."""
    hashes: dict[Letter, str] = {}
    done = 0
    for letter, source in sources.items():
        hashes[letter] = source.file.sha256(part_of(progress, done, whole))
        done += source.file.size
    return hashes


def _check_options(target: Path, multiplier: float, vae: Letter, precision: str | None) -> None:
    if not (math.isfinite(multiplier) and 0 <= multiplier <= 1):
        raise OptionError("multiplier", "The multiplier is out of range.", got=f"{multiplier:g}", fix="Use 0 to 1.")
    if vae not in ("A", "B"):
        raise OptionError("vae", "The autoencoder is kept from A or from B.", got=str(vae)[:20], fix="Use A or B.")
    if precision is not None and precision not in PRECISIONS:
        fix = f"Use one of: {', '.join(PRECISIONS)}."
        raise OptionError("precision", f"There is no precision '{precision[:20]}'.", fix=fix)
    if not is_single_file(target):
        raise CheckpointError("The target of a merge is a single file.", got=f"'{target.name}'", fix=END_THE_NAME)


# --- what is merged ---------------------------------------------------------------------------------------------------


def _open(path: Path) -> _Source:
    file = open_checkpoint(path)
    report = inspect(file)
    if not report.kind.startswith("Stable Diffusion 2") or report.channels not in (
        PLAIN_CHANNELS,
        keys.DEPTH_CHANNELS,
    ):
        raise CheckpointError(
            f"{path.name} cannot be merged into a depth checkpoint.",
            got=report.kind,
            fix="Only Stable Diffusion 2 checkpoints go together with it, depth or text to image.",
        )
    if report.text_layout == "SD1":
        raise CheckpointError(
            f"The text encoder of {path.name} is laid out like Stable Diffusion 1's.",
            fix="Convert the original folder again; its names would fit nothing.",
        )
    return _Source(file, frozenset(file.keys()), report.channels == keys.DEPTH_CHANNELS)


def _depth_side(sources: _Sources) -> Letter:
    for letter in ("A", "B"):
        if sources[letter].is_depth:
            return letter
    raise CheckpointError(
        "Neither A nor B is a depth checkpoint.",
        got=f"{sources['A'].file.path.name} and {sources['B'].file.path.name}",
        fix="Merge them in the WebUI's Checkpoint Merger.",
    )


def _fit(sources: _Sources, config: ModelConfig) -> None:
    """Check that the models' tensors and predictions go together."""
    first = sources["A"]
    unet = {name for name in first.names if name.startswith(keys.UNET)}
    for letter, source in sources.items():
        others = {name for name in source.names if name.startswith(keys.UNET)}
        if odd := sorted(unet ^ others):
            raise CheckpointError(
                f"The UNets of A and {letter} have different layers.",
                got=f"{len(odd)} tensors in only one of them, such as '{odd[0][:100]}'",
                fix=f"Use models of one kind; {source.file.path.name} may be incomplete.",
            )
        for name in sorted(first.names & source.names):
            if _is_merged(name) and not _same_shape(name, first.file.shape(name), source.file.shape(name)):
                raise CheckpointError(
                    f"Tensor '{name[:100]}' of {source.file.path.name} has another shape than A's.",
                    got=f"{source.file.shape(name)} and {first.file.shape(name)}",
                    fix="Only models of one size can be merged.",
                )
        if _predicts_v(source) and config.scheduler.get("prediction_type") != "v_prediction":
            raise CheckpointError(
                f"{source.file.path.name} predicts v, and the depth checkpoint noise: their mean would do neither.",
                fix="Use a fine-tuning of Stable Diffusion 2's base model (512), not of the one for 768.",
            )


def _same_shape(name: str, one: Sequence[int], other: Sequence[int]) -> bool:
    return tuple(one) == tuple(other) or (
        name == keys.INPUT and len(one) == len(other) == 4 and one[0] == other[0] and tuple(one[2:]) == tuple(other[2:])
    )


def _predicts_v(source: _Source) -> bool:
    """Tell whether the file's metadata or the YAML beside it says so; names alone cannot show it."""
    if source.file.metadata.get("modelspec.prediction_type", "") == "v":
        return True
    sidecar = source.file.path.with_suffix(".yaml")
    try:
        with reading(f"YAML of {source.file.path.name}"):
            found = yaml.safe_load(read_text(sidecar))["model"]["params"] if sidecar.is_file() else {}
            return bool(found.get("parameterization") == "v")
    except CheckpointError:
        return False  # a YAML that cannot be read says nothing; `inspect` names it


def _is_merged(name: str) -> bool:
    return name.startswith(MERGED)


def _in_precision(lazy: Lazy, precision: torch.dtype) -> Lazy:
    """Convert a tensor of the networks; others stay as they are."""
    wanted = lazy.dtype.is_floating_point and lazy.key.startswith(NETWORKS)
    return as_type(lazy, precision) if wanted else lazy


def _tensors(
    sources: _Sources, depth: Letter, multiplier: float, vae: Letter, precision: str | None
) -> tuple[list[Lazy], list[MergedTensor]]:
    a, lazies, fates = sources["A"], [], []
    names = {*(n for n in a.names if not n.startswith(keys.DEPTH))}
    names |= {n for n in sources[depth].names if n.startswith(keys.DEPTH)}
    for name in sorted(names):
        keeper: Letter = depth if name.startswith(keys.DEPTH) else "A"
        if name.startswith(keys.VAE) and name in sources[vae].names:
            keeper = vae
        everywhere = all(name in source.names for source in sources.values())
        if not (_is_merged(name) and everywhere and a.file.dtype(name).is_floating_point):
            tensors = sources[keeper].file
            lazies.append(Lazy(name, tensors.dtype(name), tensors.shape(name), partial(tensors.get, name)))
            fates.append(MergedTensor(name, (keeper,), "kept"))
            continue
        uneven = len({source.file.shape(name) for source in sources.values()}) > 1
        lazies.append(_merged(name, sources, depth, multiplier))
        fates.append(MergedTensor(name, tuple(sources), "merged but for depth" if uneven else "merged"))
    for name in sorted({name for source in sources.values() for name in source.names} - names):
        having = tuple(letter for letter, source in sources.items() if name in source.names)
        fates.append(MergedTensor(name, having, "left out"))
    if precision is not None:
        lazies = [_in_precision(lazy, PRECISIONS[precision]) for lazy in lazies]
    return lazies, fates


def _merged(name: str, sources: _Sources, depth: Letter, multiplier: float) -> Lazy:
    types = [source.file.dtype(name) for source in sources.values()]
    shape, widest = sources[depth].file.shape(name), types[0]
    for other in types[1:]:
        widest = torch.promote_types(widest, other)
    inner = torch.promote_types(widest, torch.float32)
    uneven = any(source.file.shape(name) != shape for source in sources.values())

    def make() -> torch.Tensor:
        values = {letter: source.file.get(name).to(inner).contiguous() for letter, source in sources.items()}
        if not uneven:
            return formula(*values.values(), m=multiplier)
        result = values[depth].clone()
        result[:, :PLAIN_CHANNELS] = formula(*(value[:, :PLAIN_CHANNELS] for value in values.values()), m=multiplier)
        return result

    return as_type(Lazy(name, inner, shape, make), widest)


def formula(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None, *, m: float) -> torch.Tensor:
    """Compute A * (1 - M) + B * M, or with C: A + (B - C) * M.

    The operations are the WebUI's, in its order; A and B are overwritten.
    """
    if c is None:
        return a.mul_(1 - m).add_(b.mul_(m))
    return a.add_(b.sub_(c).mul_(m))


# --- the recipe -------------------------------------------------------------------------------------------------------


def _recipe(
    sources: _Sources,
    hashes: Mapping[Letter, str],
    multiplier: float,
    vae: Letter,
    precision: str | None,
    target: Path,
    depth: Letter,
) -> dict[str, Any]:
    """Make the recipe: the WebUI's fields, and ours behind them."""
    from .. import __version__

    difference = "C" in sources
    return {
        "type": "depth2img",
        "primary_model_hash": hashes["A"],
        "secondary_model_hash": hashes["B"],
        "tertiary_model_hash": hashes.get("C"),
        "interp_method": "Add difference" if difference else "Weighted sum",
        "multiplier": multiplier,
        "save_as_half": precision == "float16",
        "custom_name": target.stem,
        "config_source": sources[depth].file.path.name,
        "bake_in_vae": None if vae == "A" else sources[vae].file.path.name,
        "discard_weights": "",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
        "is_depth": True,
        "formula": "A + (B - C) * M" if difference else "A * (1 - M) + B * M",
        "models": {letter: source.file.path.name for letter, source in sources.items()},
        "version": __version__,
    }


def _models(sources: _Sources, hashes: Mapping[Letter, str]) -> dict[str, Any]:
    """Make the WebUI's record of the models, and of those that they were merged of."""
    models: dict[str, Any] = {}
    for letter, source in sources.items():
        metadata = source.file.metadata
        models[hashes[letter]] = {
            "name": source.file.path.name,
            "legacy_hash": source.file.model_hash,
            "sd_merge_recipe": _data(metadata.get("sd_merge_recipe")),
        }
        models |= _data(metadata.get("sd_merge_models")) or {}
    return models


def _data(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
