"""A depth model from any of its forms, seen in the names of the diffusers layout; nothing is read before it is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch

from ..errors import CheckpointError
from . import ldm_only, pairs
from .anatomy import FOLDERS, VIT_H, Anatomy, from_folder, read_json
from .description import from_single_file
from .pairs import Component, Pair
from .tensors import InMemory, Safetensors, Tensors, open_file

ASIDE: Final = "ldm_only.safetensors"
"""File of a folder that keeps the tensors which only the single-file layout has, under their names there."""

RECREATED: Final = "depth2img.recreated"
"""Metadata of a single file: the names that were re-created when it was written, one a line."""

WEIGHTS: Final[Mapping[Component, str]] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "depth_estimator": "model",
}
"""Stem of each part's weights in the diffusers layout."""

CONSTANT_NAMES: Final = ("text_model.embeddings.position_ids",)
"""Buffers that older folders store although they are the same for every model: 0, 1, 2, ..."""


@dataclass(frozen=True)
class Model:
    """One depth model.

    Attributes:
        name: what the user gave, for messages.
        anatomy: its configurations.
        parts: the tensors of each part under their names in diffusers and transformers.
        pairs: how they are called in the single file.
        aside: tensors that only the single-file layout has, under their names there.
        constants: names that were left out because their value is the same for every model.
        recreated: names that were left out because writing the single file would make them again, bit for bit.
    """

    name: str
    anatomy: Anatomy
    parts: Mapping[Component, Tensors]
    pairs: Sequence[Pair]
    aside: Tensors
    constants: Sequence[str] = ()
    recreated: Sequence[str] = ()

    def state(self, component: Component) -> dict[str, torch.Tensor]:
        """All tensors of one part, read."""
        part = self.parts[component]
        return {name: part.get(name) for name in part.keys()}


class Renamed:
    """A view of other tensors under other names.

    Args:
        source: where they are.
        names: name here -> name there.
    """

    def __init__(self, source: Tensors, names: Mapping[str, str]) -> None:
        self._source = source
        self._names = dict(names)

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return self._source.metadata

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._names)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return self._source.shape(self._names[key])

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        return self._source.dtype(self._names[key])

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        return self._source.get(self._names[key])


class FromLdm:
    """One part of a single file, seen in the diffusers layout.

    Args:
        source: the single file.
        table: the pairs of the part.
    """

    def __init__(self, source: Tensors, table: Sequence[Pair]) -> None:
        self._source = source
        self._places = {name: (pair, index) for pair in table for index, name in enumerate(pair.names)}

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return self._source.metadata

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._places)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        pair, _ = self._places[key]
        return pair.part_shape(self._source.shape(pair.ldm))

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        return self._source.dtype(self._places[key][0].ldm)

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        pair, index = self._places[key]
        return pair.from_ldm(self._source.get(pair.ldm), index)


def open_model(path: Path) -> Model:
    """A depth model from a folder in the diffusers layout or from a single file.

    Raises:
        CheckpointError: it is neither, it is incomplete, or it is no depth model.
    """
    return open_folder(path) if path.is_dir() else open_single_file(path)


def open_single_file(path: Path) -> Model:
    """A depth model from one `.safetensors` or `.ckpt` file in `ldm`'s layout.

    Raises:
        CheckpointError: the file is damaged, lacks tensors, or is no depth model.
    """
    tensors = open_file(path)
    names = tensors.keys()
    if pairs.UNET + "input_blocks.0.0.weight" not in names:
        raise CheckpointError(
            f"{path.name} is no Stable Diffusion checkpoint.",
            got=f"{len(names)} tensors, none named {pairs.UNET}*",
            fix="Give a whole checkpoint, not a single part or a LoRA.",
        )
    channels = tensors.shape(pairs.UNET + "input_blocks.0.0.weight")[1]
    if channels != 5:
        raise CheckpointError(
            f"{path.name} is no depth checkpoint.",
            got=f"a UNet with {channels} input channels",
            fix="A depth checkpoint's UNet has 5: four of the latent and one of depth.",
        )
    anatomy = from_single_file(path, tensors)
    depth_names = [name[len(pairs.DEPTH) :] for name in names if name.startswith(pairs.DEPTH)]
    table = anatomy.pairs(depth_names)
    _complete(path.name, [pair.ldm for pair in table], names)
    parts: dict[Component, Tensors] = {
        name: FromLdm(tensors, [p for p in table if p.component == name]) for name in _components()
    }
    _same_widths(path.name, anatomy, parts["unet"])
    paired = {pair.ldm for pair in table}
    again = _still_as_recreated(tensors, anatomy)
    rest = {name: name for name in names if name not in paired and name not in again}
    return Model(path.name, anatomy, parts, table, Renamed(tensors, rest), recreated=again)


def open_folder(folder: Path) -> Model:
    """A depth model from a folder in the diffusers layout; only safetensors files are read.

    Raises:
        CheckpointError: a part is missing or incomplete, or it is no depth model.
    """
    anatomy = from_folder(folder)
    parts: dict[Component, Tensors] = {name: _part(folder / name, name) for name in _components()}
    constants = [f"text_encoder/{n}" for n in CONSTANT_NAMES if n in parts["text_encoder"].keys()]
    for name in CONSTANT_NAMES:
        _check_constant(parts["text_encoder"], name)
    parts["text_encoder"] = _without(parts["text_encoder"], CONSTANT_NAMES)
    parts["vae"] = _current_names(parts["vae"])
    table = anatomy.pairs(parts["depth_estimator"].keys())
    for name, part in parts.items():
        wanted = [there for pair in table if pair.component == name for there in pair.names]
        _complete(f"{folder.name}/{name}", wanted, part.keys())
        if extra := set(part.keys()).difference(wanted):
            raise CheckpointError(
                f"{folder.name}/{name} holds tensors that the single-file layout has no place for.",
                got=f"{len(extra)}, such as '{min(extra)[:80]}'",
                fix="Use the model as it was published, without added parts.",
            )
    _same_widths(folder.name, anatomy, parts["unet"])
    aside_file = folder / ASIDE
    aside: Tensors = Safetensors(aside_file) if aside_file.is_file() else InMemory({})
    layer = pairs.text_layer(int(anatomy.text_encoder["num_hidden_layers"]))
    published = dataclasses.replace(anatomy, penultimate=True).arch == VIT_H
    penultimate = published or any(name.startswith(layer) for name in aside.keys())
    return Model(folder.name, dataclasses.replace(anatomy, penultimate=penultimate), parts, table, aside, constants)


def _still_as_recreated(tensors: Tensors, anatomy: Anatomy) -> tuple[str, ...]:
    """The names that were re-created when the file was written, and that nobody has changed since."""
    noted = set(tensors.metadata.get(RECREATED, "").split("\n"))
    if not noted.intersection(tensors.keys()):
        return ()
    dtype = tensors.dtype(pairs.TEXT + "token_embedding.weight")
    made = {lazy.key: lazy for lazy in ldm_only.recreated(anatomy, dtype) if lazy.key in noted}
    return tuple(key for key in tensors.keys() if key in made and torch.equal(tensors.get(key), made[key].make()))


def _components() -> tuple[Component, ...]:
    return cast("tuple[Component, ...]", FOLDERS)


def _part(folder: Path, component: Component) -> Tensors:
    stem = WEIGHTS[component]
    for suffix in (".safetensors", ".fp16.safetensors"):
        if (folder / (stem + suffix)).is_file():
            return Safetensors(folder / (stem + suffix))
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            files = sorted(set(read_json(index).get("weight_map", {}).values()))
            # Names come from the folder; only files that lie in it are opened.
            return Safetensors(*(folder / Path(str(name)).name for name in files))
    pickles = [name for name in (f"{stem}.bin", "pytorch_model.bin") if (folder / name).is_file()]
    raise CheckpointError(
        f"{folder.parent.name}/{folder.name} holds no safetensors weights.",
        got=f"{pickles[0]}, which is a pickle" if pickles else "neither weights nor an index",
        fix=f"Get the model with {stem}.safetensors in that folder.",
    )


def _without(part: Tensors, names: Sequence[str]) -> Tensors:
    return Renamed(part, {name: name for name in part.keys() if name not in names})


def _check_constant(part: Tensors, name: str) -> None:
    if name in part.keys():
        value = part.get(name).flatten()
        if not torch.equal(value, torch.arange(value.numel(), dtype=value.dtype)):
            raise CheckpointError(
                f"text_encoder/{name} is not 0, 1, 2, ...", fix="The text encoder was changed; it cannot be converted."
            )


def _current_names(part: Tensors) -> Tensors:
    names: dict[str, str] = {}
    for there in part.keys():
        here = there
        for old, new in pairs.VAE_OLD_NAMES.items():
            here = here.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
        names[here] = there
    return Renamed(part, names)


def _complete(what: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = sorted(set(wanted).difference(there))
    if missing:
        raise CheckpointError(
            f"{what} is incomplete: {len(missing)} of {len(wanted)} tensors are missing.",
            got=f"no '{missing[0][:100]}'",
            fix="Get the file again, or put its own YAML beside it.",
        )


def _same_widths(what: str, anatomy: Anatomy, unet: Tensors) -> None:
    for level, width in enumerate(anatomy.unet["block_out_channels"]):
        found = unet.shape(f"down_blocks.{level}.resnets.0.conv1.weight")[0]
        if found != width:
            raise CheckpointError(
                f"The UNet of {what} is not as wide as its description says.",
                got=f"{found} channels instead of {width} at level {level}",
                fix="Put the checkpoint's own YAML beside it.",
            )
