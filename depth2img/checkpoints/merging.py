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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
import yaml

from ..errors import CheckpointError, OptionError
from . import known
from .conversion import END_THE_NAME, NETWORKS, is_single_file, room_for, write_single_file
from .inspection.inspect import inspect
from .layout import keys
from .layout.config import Anatomy, read_text
from .layout.ldm_yaml import METADATA
from .model import RECREATED, open_single_file
from .storage.tensors import Progress, Tensors, open_file, part_of
from .storage.writing import Lazy, as_type

What = Literal["merged", "merged but for depth", "kept", "left out"]
Letter = Literal["A", "B", "C"]

PLAIN_CHANNELS: Final = 4
MERGED: Final = (keys.UNET, keys.TEXT, "model_ema.")
"""What the formula is applied to; all else is kept."""

PRECISIONS: Final = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Line:
    """What became of one tensor.

    Attributes:
        name: its name in the single file.
        sources: the models that it comes from; of `left out` the ones that have it.
        what: `merged`; `merged but for depth`: the input convolution, whose fifth channel is the depth checkpoint's;
            `kept`: equal to the source's; `left out`: not in the result.
    """

    name: str
    sources: tuple[Letter, ...]
    what: What


@dataclass(frozen=True)
class Merged:
    """What a merge wrote.

    Attributes:
        lines: one for each tensor of any of the models.
        bytes: of all tensors, as written.
        sha256: of the file.
        recipe: as in its metadata under `sd_merge_recipe`.
    """

    lines: Sequence[Line]
    bytes: int
    sha256: str
    recipe: Mapping[str, Any]

    def counts(self) -> dict[str, int]:
        """How many lines there are of each kind."""
        return dict(Counter(line.what for line in self.lines))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        lines = [{"name": line.name, "sources": list(line.sources), "what": line.what} for line in self.lines]
        values = {"counts": self.counts(), "bytes": self.bytes, "sha256": self.sha256, "recipe": dict(self.recipe)}
        return {"tensors": lines, **values}


@dataclass(frozen=True)
class _Source:
    path: Path
    tensors: Tensors
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
    """Write a depth checkpoint that is merged of two or three; its YAML goes beside it, the recipe into its metadata.

    At least one of A and B is a depth checkpoint. With both, the fifth channel is merged like the others.

    Args:
        primary: A, a `.safetensors` or `.ckpt` file.
        secondary: B, likewise.
        target: the `.safetensors` file to write.
        multiplier: M, 0..1.
        tertiary: C; makes it "Add difference" instead of "Weighted sum".
        vae: the model whose autoencoder is kept, A or B.
        precision: one of `PRECISIONS` for the networks; None: the wider of the models', tensor by tensor.
        progress: told the bytes done and the bytes in all, those of the models' SHA-256 included.

    Raises:
        CheckpointError: a model is no Stable Diffusion 2 checkpoint, they do not fit together, or the target cannot
            be written.
        OptionError: an option is out of range.
    """
    _check_options(target, multiplier, vae, precision)
    paths: dict[Letter, Path] = {"A": primary, "B": secondary, **({"C": tertiary} if tertiary else {})}
    sources: dict[Letter, _Source] = {letter: _open(path) for letter, path in paths.items()}
    depth = _depth_side(sources)
    model = open_single_file(sources[depth].path)
    _fit(sources, model.anatomy)
    lazies, lines = _plan(sources, depth, multiplier, vae)
    if precision is not None:
        wanted = PRECISIONS[precision]
        lazies = [as_type(z, wanted) if z.dtype.is_floating_point and _is_network(z.key) else z for z in lazies]
    parts = [source.path.stat().st_size for source in sources.values()]
    whole = sum(parts) + room_for(lazies, target.parent)
    hashes = {
        letter: known.sha256_of(source.path, part_of(progress, sum(parts[:number]), whole))
        for number, (letter, source) in enumerate(sources.items())
    }
    recipe = _recipe(sources, hashes, multiplier, vae, precision, target, depth)
    metadata = {
        "sd_merge_recipe": json.dumps(recipe),
        "sd_merge_models": json.dumps(_models(sources, hashes)),
        METADATA: model.anatomy.to_json(),
        **({RECREATED: "\n".join(model.noted)} if model.noted else {}),
    }
    told = part_of(progress, sum(parts), whole)
    total, digest = write_single_file(target, lazies, model.anatomy, metadata, told)
    return Merged(lines, total, digest, recipe)


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
    report = inspect(path)
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
    tensors = open_file(path)
    return _Source(path, tensors, frozenset(tensors.keys()), report.channels == keys.DEPTH_CHANNELS)


def _depth_side(sources: _Sources) -> Letter:
    for letter in ("A", "B"):
        if sources[letter].is_depth:
            return letter
    raise CheckpointError(
        "Neither A nor B is a depth checkpoint.",
        got=f"{sources['A'].path.name} and {sources['B'].path.name}",
        fix="Merge them in the WebUI's Checkpoint Merger.",
    )


def _fit(sources: _Sources, anatomy: Anatomy) -> None:
    """Whether the models' tensors and predictions go together."""
    first = sources["A"]
    unet = {name for name in first.names if name.startswith(keys.UNET)}
    for letter, source in sources.items():
        others = {name for name in source.names if name.startswith(keys.UNET)}
        if odd := sorted(unet ^ others):
            raise CheckpointError(
                f"The UNets of A and {letter} have different layers.",
                got=f"{len(odd)} tensors in only one of them, such as '{odd[0][:100]}'",
                fix=f"Use models of one kind; {source.path.name} may be incomplete.",
            )
        for name in sorted(first.names & source.names):
            if _is_merged(name) and not _same_shape(name, first.tensors.shape(name), source.tensors.shape(name)):
                raise CheckpointError(
                    f"Tensor '{name[:100]}' of {source.path.name} has another shape than A's.",
                    got=f"{source.tensors.shape(name)} and {first.tensors.shape(name)}",
                    fix="Only models of one size can be merged.",
                )
        if _predicts_v(source) and anatomy.scheduler.get("prediction_type") != "v_prediction":
            raise CheckpointError(
                f"{source.path.name} predicts v, and the depth checkpoint noise: their mean would do neither.",
                fix="Use a fine-tuning of Stable Diffusion 2's base model (512), not of the one for 768.",
            )


def _same_shape(name: str, one: Sequence[int], other: Sequence[int]) -> bool:
    return tuple(one) == tuple(other) or (
        name == keys.INPUT and len(one) == len(other) == 4 and one[0] == other[0] and tuple(one[2:]) == tuple(other[2:])
    )


def _predicts_v(source: _Source) -> bool:
    """Whether the file's metadata or the YAML beside it says so; without either nobody can tell from names."""
    if source.tensors.metadata.get("modelspec.prediction_type", "") == "v":
        return True
    beside = source.path.with_suffix(".yaml")
    try:
        found = yaml.safe_load(read_text(beside))["model"]["params"] if beside.is_file() else {}
        return bool(found.get("parameterization") == "v")
    except (CheckpointError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        return False  # a YAML that cannot be read says nothing; `inspect` names it


def _is_merged(name: str) -> bool:
    return name.startswith(MERGED)


def _is_network(name: str) -> bool:
    return name.startswith(NETWORKS)


def _plan(sources: _Sources, depth: Letter, multiplier: float, vae: Letter) -> tuple[list[Lazy], list[Line]]:
    a, lazies, lines = sources["A"], [], []
    names = {*(n for n in a.names if not n.startswith(keys.DEPTH))}
    names |= {n for n in sources[depth].names if n.startswith(keys.DEPTH)}
    for name in sorted(names):
        keeper: Letter = depth if name.startswith(keys.DEPTH) else "A"
        if name.startswith(keys.VAE) and name in sources[vae].names:
            keeper = vae
        everywhere = all(name in source.names for source in sources.values())
        if not (_is_merged(name) and everywhere and a.tensors.dtype(name).is_floating_point):
            tensors = sources[keeper].tensors
            lazies.append(Lazy(name, tensors.dtype(name), tensors.shape(name), _getter(tensors, name)))
            lines.append(Line(name, (keeper,), "kept"))
            continue
        uneven = len({source.tensors.shape(name) for source in sources.values()}) > 1
        lazies.append(_merged(name, sources, depth, multiplier))
        lines.append(Line(name, tuple(sources), "merged but for depth" if uneven else "merged"))
    for name in sorted({name for source in sources.values() for name in source.names} - names):
        having = tuple(letter for letter, source in sources.items() if name in source.names)
        lines.append(Line(name, having, "left out"))
    return lazies, lines


def _getter(tensors: Tensors, name: str) -> Callable[[], torch.Tensor]:
    return lambda: tensors.get(name)


def _merged(name: str, sources: _Sources, depth: Letter, multiplier: float) -> Lazy:
    types = [source.tensors.dtype(name) for source in sources.values()]
    shape, widest = sources[depth].tensors.shape(name), types[0]
    for other in types[1:]:
        widest = torch.promote_types(widest, other)
    inner = torch.promote_types(widest, torch.float32)

    uneven = any(source.tensors.shape(name) != shape for source in sources.values())

    def make() -> torch.Tensor:
        values = {letter: source.tensors.get(name).to(inner).contiguous() for letter, source in sources.items()}
        if not uneven:
            return formula(*values.values(), m=multiplier)
        result = values[depth].clone()
        result[:, :PLAIN_CHANNELS] = formula(*(value[:, :PLAIN_CHANNELS] for value in values.values()), m=multiplier)
        return result

    return as_type(Lazy(name, inner, shape, make), widest)


def formula(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None, *, m: float) -> torch.Tensor:
    """A * (1 - M) + B * M, or with C: A + (B - C) * M. The operations are the WebUI's, in its order; A and B are
    overwritten."""
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
    """The WebUI's fields, and ours behind them."""
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
        "config_source": sources[depth].path.name,
        "bake_in_vae": None if vae == "A" else sources[vae].path.name,
        "discard_weights": "",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
        "is_depth": True,
        "formula": "A + (B - C) * M" if difference else "A * (1 - M) + B * M",
        "models": {letter: source.path.name for letter, source in sources.items()},
        "version": __version__,
    }


def _models(sources: _Sources, hashes: Mapping[Letter, str]) -> dict[str, Any]:
    """What the WebUI keeps of the models, and of those that they were merged of."""
    models: dict[str, Any] = {}
    for letter, source in sources.items():
        metadata = source.tensors.metadata
        models[hashes[letter]] = {
            "name": source.path.name,
            "legacy_hash": known.model_hash(source.path),
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
