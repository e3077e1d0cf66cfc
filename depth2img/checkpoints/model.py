"""A depth model from any of its forms, seen in the names of the diffusers layout; nothing is read before it is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch

from ..errors import CheckpointError
from ..io.atomic import refusing
from .layout import keys, ldm_only, shapes
from .layout.config import FOLDERS, MIDAS_FILE, VIT_H, Anatomy, from_folder, read_json, reading
from .layout.keys import Component, Pair
from .layout.ldm_yaml import dpt_config, from_single_file
from .storage.tensors import InMemory, Joined, Renamed, Safetensors, Tensors, open_file

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

PICKLED: Final[Mapping[str, str]] = {"model": "pytorch_model"}
"""Stem of the pickled form, where it is another."""

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
        noted: names in `aside` that were re-created when the file was written; see `still_as_recreated`.
    """

    name: str
    anatomy: Anatomy
    parts: Mapping[Component, Tensors]
    pairs: Sequence[Pair]
    aside: Tensors
    constants: Sequence[str] = ()
    noted: Sequence[str] = ()

    def state(self, component: Component) -> dict[str, torch.Tensor]:
        """All tensors of one part, read."""
        part = self.parts[component]
        return {name: part.get(name) for name in part.keys()}

    def still_as_recreated(self) -> tuple[str, ...]:
        """The names of `noted` that writing the single file would make again, bit for bit; those are read for it."""
        if not self.noted:
            return ()
        table = next(pair for pair in self.pairs if pair.ldm == keys.TOKEN_TABLE)
        dtype = self.parts["text_encoder"].dtype(table.names[0])
        made = {lazy.key: lazy for lazy in ldm_only.recreated(self.anatomy, dtype)}
        return tuple(n for n in self.noted if n in made and torch.equal(self.aside.get(n), made[n].make()))


class FromLdm:
    """One part of a single file, seen in the diffusers layout.

    Args:
        source: the single file.
        table: the pairs of the part.
    """

    def __init__(self, source: Tensors, table: Sequence[Pair]) -> None:
        self._source = source
        self._places = {name: (pair, index) for pair in table for index, name in enumerate(pair.names)}
        self._stack: tuple[str, torch.Tensor] | None = None

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
        if pair.form != "stacked":
            return pair.from_ldm(self._source.get(pair.ldm), index)
        # Asked for one after the other, the three share what is read once.
        if self._stack is None or self._stack[0] != pair.ldm:
            self._stack = (pair.ldm, self._source.get(pair.ldm))
        part = pair.from_ldm(self._stack[1], index)
        if index == len(pair.names) - 1:
            self._stack = None
        return part


class ToLdm:
    """Parts in the diffusers layout, seen as the single file has them.

    Args:
        parts: the parts that `table` names.
        table: their pairs.
    """

    def __init__(self, parts: Mapping[Component, Tensors], table: Sequence[Pair]) -> None:
        self._parts = parts
        self._table = {pair.ldm: pair for pair in table}

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return {}

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._table)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        pair = self._table[key]
        return pair.ldm_shape([self._parts[pair.component].shape(name) for name in pair.names])

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        pair = self._table[key]
        return self._parts[pair.component].dtype(pair.names[0])

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        pair = self._table[key]
        return pair.to_ldm([self._parts[pair.component].get(name) for name in pair.names])


def open_model(path: Path, midas: Path | None = None) -> Model:
    """A depth model from a folder in the diffusers layout or from a single file.

    Args:
        path: the folder, or the `.safetensors` or `.ckpt` file.
        midas: take the depth network from here; see `open_midas`.

    Raises:
        CheckpointError: it is neither, it is incomplete, or it is no depth model.
    """
    with refusing(f"{path.name} cannot be read.", CheckpointError):
        is_folder = path.is_dir()
    depth = None if midas is None else open_midas(midas)
    return open_folder(path, depth) if is_folder else open_single_file(path, depth)


def open_midas(path: Path) -> Tensors:
    """MiDaS' DPT-hybrid alone, under its names in a single file.

    Args:
        path: a single file with it, MiDaS' own file (`dpt_hybrid-midas-501f0c75.pt`), or a folder in the diffusers
            layout, whole or its `depth_estimator` alone.

    Raises:
        CheckpointError: there is no whole MiDaS in it.
    """
    with refusing(f"{path.name} cannot be read.", CheckpointError):
        is_folder = path.is_dir()
    if is_folder:
        folder = path / "depth_estimator" if (path / "depth_estimator").is_dir() else path
        part, table = _part(folder, "depth_estimator"), list(keys.dpt_pairs(read_json(folder / "config.json")))
        _complete(path.name, [name for pair in table for name in pair.names], part.keys())
        return ToLdm({"depth_estimator": part}, table)
    tensors = open_file(path)
    names = {name: name for name in tensors.keys() if name.startswith(keys.MIDAS)}
    own = {keys.MIDAS + name: name for name in tensors.keys() if name.startswith(("pretrained.", "scratch."))}
    depth = Renamed(tensors, names or own)
    if keys.MIDAS + "pretrained.model.cls_token" not in depth.keys():
        raise CheckpointError(
            f"{path.name} holds no MiDaS (DPT-hybrid).",
            got=f"{len(tensors.keys())} tensors, none named pretrained.model.cls_token",
            fix=f"Give a depth checkpoint, or {MIDAS_FILE}.",
        )
    _complete(path.name, [pair.ldm for pair in keys.dpt_pairs(dpt_config(depth))], depth.keys())
    return depth


def open_single_file(path: Path, depth: Tensors | None = None) -> Model:
    """A depth model from one `.safetensors` or `.ckpt` file in `ldm`'s layout; only its header is read.

    Args:
        path: the file.
        depth: a depth network that takes the place of its own, if it has one; see `open_midas`.

    Raises:
        CheckpointError: the file is damaged, lacks tensors, or is no depth model.
    """
    tensors = open_file(path)
    if depth is not None:
        tensors = Joined(Renamed(tensors, {n: n for n in tensors.keys() if not n.startswith(keys.DEPTH)}), depth)
    with reading(f"checkpoint {path.name}"):
        return _from_single_file(path, tensors, depth)


def _from_single_file(path: Path, tensors: Tensors, depth: Tensors | None) -> Model:
    names = tensors.keys()
    if keys.INPUT not in names:
        raise CheckpointError(
            f"{path.name} is no Stable Diffusion checkpoint.",
            got=f"{len(names)} tensors, none named {keys.UNET}*",
            fix="Give a whole checkpoint, not a single part or a LoRA.",
        )
    channels = tensors.shape(keys.INPUT)[1]
    if channels != keys.DEPTH_CHANNELS:
        raise CheckpointError(
            f"{path.name} is no depth checkpoint.",
            got=f"a UNet with {channels} input channels",
            fix="A depth checkpoint's UNet has 5: four of the latent and one of depth.",
        )
    anatomy = from_single_file(path, tensors)
    if depth is not None:
        anatomy = dataclasses.replace(anatomy, depth_estimator=dpt_config(depth))
    depth_names = [name[len(keys.DEPTH) :] for name in names if name.startswith(keys.DEPTH)]
    table = anatomy.pairs(depth_names)
    _complete(path.name, [pair.ldm for pair in table], names)
    parts: dict[Component, Tensors] = {
        name: FromLdm(tensors, [p for p in table if p.component == name]) for name in _components()
    }
    _same_widths(path.name, anatomy, parts["unet"])
    _same_shapes(path.name, anatomy, tensors)
    paired = {pair.ldm for pair in table}
    rest = {name: name for name in names if name not in paired}
    noted = [name for name in tensors.metadata.get(RECREATED, "").split("\n") if name in rest]
    return Model(path.name, anatomy, parts, table, Renamed(tensors, rest), noted=noted)


def open_folder(folder: Path, depth: Tensors | None = None) -> Model:
    """A depth model from a folder in the diffusers layout; weights may be sharded, safetensors or pickles.

    Args:
        folder: holds `model_index.json`; full precision is preferred to the variant `fp16`, safetensors to pickles.
        depth: a depth network that takes the place of its own, if it has one; see `open_midas`.

    Raises:
        CheckpointError: a part is missing or incomplete, or it is no depth model.
    """
    with reading(f"folder {folder.name}"):
        return _from_parts(folder, depth)


def _from_parts(folder: Path, depth: Tensors | None) -> Model:
    anatomy = from_folder(folder, None if depth is None else dpt_config(depth))
    own = [name for name in _components() if depth is None or name != "depth_estimator"]
    parts: dict[Component, Tensors] = {name: _part(folder / name, name) for name in own}
    if depth is not None:
        parts["depth_estimator"] = FromLdm(depth, list(keys.dpt_pairs(anatomy.depth_estimator)))
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
    _same_shapes(folder.name, anatomy, ToLdm(parts, table))
    aside_file = folder / ASIDE
    aside: Tensors = Safetensors(aside_file) if aside_file.is_file() else InMemory({})
    if depth is not None:
        paired = {pair.ldm for pair in table}
        kept = Renamed(aside, {name: name for name in aside.keys() if not name.startswith(keys.DEPTH)})
        aside = Joined(kept, Renamed(depth, {name: name for name in depth.keys() if name not in paired}))
    layer = keys.text_layer(int(anatomy.text_encoder["num_hidden_layers"]))
    published = dataclasses.replace(anatomy, penultimate=True).arch == VIT_H
    penultimate = published or any(name.startswith(layer) for name in aside.keys())
    return Model(folder.name, dataclasses.replace(anatomy, penultimate=penultimate), parts, table, aside, constants)


def _components() -> tuple[Component, ...]:
    return cast("tuple[Component, ...]", FOLDERS)


def _part(folder: Path, component: Component) -> Tensors:
    stem = WEIGHTS[component]
    for base, suffix in ((stem, "safetensors"), (PICKLED.get(stem, stem), "bin")):
        for variant in ("", ".fp16"):
            whole = folder / f"{base}{variant}.{suffix}"
            if whole.is_file():
                return open_file(whole)
            for index in (f"{base}.{suffix}.index{variant}.json", f"{base}{variant}.{suffix}.index.json"):
                if (folder / index).is_file():
                    return _shards(folder, folder / index)
    raise CheckpointError(
        f"{folder.parent.name}/{folder.name} holds no weights.",
        got="neither weights nor an index",
        fix=f"Get the model with {stem}.safetensors in that folder.",
    )


def _shards(folder: Path, index: Path) -> Tensors:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{folder.name}/{index.name} names no files.", fix="Get the folder again.")
    # Names come from the folder; only files that lie in it are opened.
    return Joined(*(open_file(folder / Path(str(name)).name) for name in sorted(set(map(str, table.values())))))


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
        for old, new in keys.VAE_OLD_NAMES.items():
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


def _same_shapes(what: str, anatomy: Anatomy, tensors: Tensors) -> None:
    """Whether every tensor that is run has the shape that the configurations give."""
    for name, shape in shapes.required(anatomy).items():
        if tensors.shape(name) != shape:
            raise CheckpointError(
                f"Tensor '{name[:100]}' of {what} has another shape than its description says.",
                got=f"{tensors.shape(name)} instead of {shape}",
                fix="It was merged or converted wrongly; get the original file.",
            )
