"""A depth model in any of its forms, seen in the names of the diffusers layout; tensors are read when they are used."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from ..errors import CheckpointError
from ..io.atomic import refusing
from .layout import keys, ldm_only
from .layout.config import FOLDERS, VIT_H, ModelConfig, from_folder, put_into_whole, read_json, reading
from .layout.key_map import VAE_OLD_NAMES, Entry, dpt_entries
from .layout.keys import MIDAS_FILE, Component, Shape
from .layout.ldm_yaml import dpt_config, from_single_file
from .storage.opening import CheckpointFile, open_checkpoint
from .storage.tensors import InMemory, Lazy, Tensors, joined, renamed, selected
from .storage.weights import find_unet

log: Final = logging.getLogger(__name__)

ASIDE: Final = "ldm_only.safetensors"
"""File of a folder for the tensors that only the single-file layout has, under their names there."""

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
        name: the user's name of it, for messages.
        config: its configurations.
        parts: the tensors of each part under their names in diffusers and transformers.
        key_map: their names in the single file.
        aside: tensors that only the single-file layout has, under their names there.
        constants: names that were left out because their value is the same for every model.
        noted: names in `aside` that were re-created when the file was written; see `still_as_recreated`.
    """

    name: str
    config: ModelConfig
    parts: Mapping[Component, Tensors]
    key_map: Sequence[Entry]
    aside: Tensors
    constants: Sequence[str] = ()
    noted: Sequence[str] = ()

    def state(self, component: Component) -> dict[str, torch.Tensor]:
        """Read all tensors of one part."""
        part = self.parts[component]
        return {name: part.get(name) for name in part.keys()}

    def recreated(self) -> list[Lazy]:
        """Make the tensors that only the single file has, in the type of the token table."""
        table = next(entry for entry in self.key_map if entry.ldm == keys.TOKEN_TABLE)
        return ldm_only.recreated(self.config, self.parts["text_encoder"].dtype(table.names[0]))

    def still_as_recreated(self) -> tuple[str, ...]:
        """Return those of `noted` that `recreated` would make again, bit for bit; they are read for it."""
        if not self.noted:
            return ()
        made = {lazy.key: lazy for lazy in self.recreated()}
        return tuple(n for n in self.noted if n in made and torch.equal(self.aside.get(n), made[n].make()))


class FromLdm(Tensors):
    """One part of a single file, seen in the diffusers layout.

    Args:
        source: the single file.
        entries: the key map of the part.
    """

    def __init__(self, source: Tensors, entries: Iterable[Entry]) -> None:
        self._source = source
        self._origins = {name: (entry, index) for entry in entries for index, name in enumerate(entry.names)}
        self._stack: tuple[str, torch.Tensor] | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._source.metadata

    def keys(self) -> Sequence[str]:
        return list(self._origins)

    def shape(self, key: str) -> Shape:
        entry, _ = self._origins[key]
        return entry.part_shape(self._source.shape(entry.ldm))

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(self._origins[key][0].ldm)

    def get(self, key: str) -> torch.Tensor:
        entry, index = self._origins[key]
        if entry.form != "stacked":
            return entry.from_ldm(self._source.get(entry.ldm), index)
        # Asked for one after the other, the three share what is read once.
        if self._stack is None or self._stack[0] != entry.ldm:
            self._stack = (entry.ldm, self._source.get(entry.ldm))
        part = entry.from_ldm(self._stack[1], index)
        if index == len(entry.names) - 1:
            self._stack = None
        return part


class ToLdm(Tensors):
    """Parts in the diffusers layout, seen as the single file has them.

    Args:
        parts: the parts that `entries` name.
        entries: their key map.
    """

    def __init__(self, parts: Mapping[Component, Tensors], entries: Iterable[Entry]) -> None:
        self._parts = parts
        self._entries = {entry.ldm: entry for entry in entries}

    def keys(self) -> Sequence[str]:
        return list(self._entries)

    def shape(self, key: str) -> Shape:
        entry = self._entries[key]
        return entry.ldm_shape([self._parts[entry.component].shape(name) for name in entry.names])

    def dtype(self, key: str) -> torch.dtype:
        entry = self._entries[key]
        return self._parts[entry.component].dtype(entry.names[0])

    def get(self, key: str) -> torch.Tensor:
        entry = self._entries[key]
        return entry.to_ldm([self._parts[entry.component].get(name) for name in entry.names])


def open_model(source: Path | CheckpointFile, midas: Path | None = None, *, ema: bool = False) -> Model:
    """Open a depth model: a folder in the diffusers layout or a single file.

    Args:
        source: the folder, or the file in `ldm`'s layout, safetensors or pickle.
        midas: take the depth network from here; see `open_midas`.
        ema: take the UNet's averaged weights; see `open_checkpoint`. Those of a folder are in `unet_ema`.

    Raises:
        CheckpointError: it is neither, it is incomplete, it is not a depth model, or there are no averaged weights.
    """
    depth = None if midas is None else open_midas(midas)
    if isinstance(source, CheckpointFile) or not is_folder(source):
        return open_single_file(open_checkpoint(source, ema=ema), depth)
    return open_folder(source, depth, ema=ema)


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; raises `CheckpointError` where it cannot be read."""
    with refusing(f"{path.name} cannot be read.", CheckpointError):
        return path.is_dir()


def open_midas(path: Path) -> Tensors:
    """Open MiDaS' DPT-hybrid alone, under its names in a single file.

    Args:
        path: a single file with it, MiDaS' own file (`dpt_hybrid-midas-501f0c75.pt`), or a folder in the diffusers
            layout, whole or its `depth_estimator` alone.

    Raises:
        CheckpointError: there is no whole MiDaS in it.
    """
    if is_folder(path):
        folder = path / "depth_estimator" if (path / "depth_estimator").is_dir() else path
        part = open_part(folder, "depth_estimator")
        with reading(f"configuration in {folder.name}"):
            entries = list(dpt_entries(read_json(folder / "config.json")))
        _complete(path.name, [name for entry in entries for name in entry.names], part.keys())
        return ToLdm({"depth_estimator": part}, entries)
    file = open_checkpoint(path)
    names = {name: name for name in file.keys() if name.startswith(keys.MIDAS)}
    own = {keys.MIDAS + name: name for name in file.keys() if name.startswith(("pretrained.", "scratch."))}
    depth = renamed(file, names or own)
    if keys.CLS_TOKEN not in depth.keys():
        raise CheckpointError(
            f"{path.name} holds no MiDaS (DPT-hybrid).",
            got=f"{len(file.keys())} tensors, none named pretrained.model.cls_token",
            fix=f"Give a depth checkpoint, or {MIDAS_FILE}.",
        )
    with reading(f"MiDaS in {path.name}"):
        _complete(path.name, [entry.ldm for entry in dpt_entries(dpt_config(depth))], depth.keys())
    return depth


def open_single_file(source: Path | CheckpointFile, depth: Tensors | None = None) -> Model:
    """Open a depth model in one file in `ldm`'s layout; only its header is read.

    Args:
        source: the file, opened or not.
        depth: a depth network that takes the place of its own, if it has one; see `open_midas`.

    Raises:
        CheckpointError: the file is damaged, lacks tensors, or is not a depth model.
    """
    file = open_checkpoint(source)
    if file.misnamed:
        log.warning("%s", file.misnamed)
    tensors = file if depth is None else joined(selected(file, lambda name: not name.startswith(keys.DEPTH)), depth)
    with reading(f"checkpoint {file.path.name}"):
        return _from_single_file(file.path, tensors, depth)


def _from_single_file(path: Path, tensors: Tensors, depth: Tensors | None) -> Model:
    names = tensors.keys()
    if find_unet(names) and not any(name.startswith((keys.VAE, "cond_stage_model.", "vae.")) for name in names):
        raise CheckpointError(f"{path.name} is not a whole checkpoint.", got="a UNet alone", fix=put_into_whole(path))
    if keys.INPUT not in names:
        raise CheckpointError(
            f"{path.name} is not a Stable Diffusion checkpoint.",
            got=f"{len(names)} tensors, none named {keys.UNET}*",
            fix="Give a whole checkpoint, not a single part or a LoRA.",
        )
    channels = tensors.shape(keys.INPUT)[1]
    if channels != keys.DEPTH_CHANNELS:
        raise CheckpointError(
            f"{path.name} is not a depth checkpoint.",
            got=f"a UNet with {channels} input channels",
            fix="A depth checkpoint's UNet has 5: four of the latent and one of depth.",
        )
    config = from_single_file(path, tensors)
    if depth is not None:
        config = dataclasses.replace(config, depth_estimator=dpt_config(depth))
    entries = config.key_map([name[len(keys.DEPTH) :] for name in names if name.startswith(keys.DEPTH)])
    _complete(path.name, [entry.ldm for entry in entries], names)
    parts: dict[Component, Tensors] = {
        name: FromLdm(tensors, [entry for entry in entries if entry.component == name]) for name in FOLDERS
    }
    _same_widths(path.name, config, parts["unet"])
    check_shapes(path.name, entries, tensors)
    mapped = {entry.ldm for entry in entries}
    rest = selected(tensors, lambda name: name not in mapped)
    there = set(rest.keys())
    noted = [name for name in tensors.metadata.get(RECREATED, "").split("\n") if name in there]
    return Model(path.name, config, parts, entries, rest, noted=noted)


def open_folder(folder: Path, depth: Tensors | None = None, *, ema: bool = False) -> Model:
    """Open a depth model in a folder in the diffusers layout; weights may be sharded, safetensors or pickles.

    Args:
        folder: holds `model_index.json`; full precision is preferred to the variant `fp16`, safetensors to pickles.
        depth: a depth network that takes the place of its own, if it has one; see `open_midas`.
        ema: take the UNet in `unet_ema`, where training programs save an average of its weights.

    Raises:
        CheckpointError: a part is missing or incomplete, or it is not a depth model.
    """
    with reading(f"folder {folder.name}"):
        return _from_parts(folder, depth, ema)


def _from_parts(folder: Path, depth: Tensors | None, ema: bool) -> Model:
    config = from_folder(folder, None if depth is None else dpt_config(depth))
    own = [name for name in FOLDERS if depth is None or name != "depth_estimator"]
    parts: dict[Component, Tensors] = {name: open_part(place_of(folder, name, ema), name) for name in own}
    if depth is not None:
        parts["depth_estimator"] = FromLdm(depth, dpt_entries(config.depth_estimator))
    constants = [f"text_encoder/{n}" for n in CONSTANT_NAMES if n in parts["text_encoder"].keys()]
    parts = {component: current_form(part, component) for component, part in parts.items()}
    entries = config.key_map(parts["depth_estimator"].keys())
    for component, part in parts.items():
        check_names(f"{folder.name}/{component}", [entry for entry in entries if entry.component == component], part)
    _same_widths(folder.name, config, parts["unet"])
    check_shapes(folder.name, entries, ToLdm(parts, entries))
    aside_file = folder / ASIDE
    aside: Tensors = open_checkpoint(aside_file) if aside_file.is_file() else InMemory({})
    if depth is not None:
        mapped = {entry.ldm for entry in entries}
        kept = selected(aside, lambda name: not name.startswith(keys.DEPTH))
        aside = joined(kept, selected(depth, lambda name: name not in mapped))
    layer = keys.text_layer(int(config.text_encoder["num_hidden_layers"]))
    published = dataclasses.replace(config, penultimate=True).arch == VIT_H
    penultimate = published or any(name.startswith(layer) for name in aside.keys())
    return Model(folder.name, dataclasses.replace(config, penultimate=penultimate), parts, entries, aside, constants)


def place_of(folder: Path, component: Component, ema: bool) -> Path:
    """Return the folder of one part.

    Raises:
        CheckpointError: averaged weights are asked for, and there are none.
    """
    if not ema or component != "unet":
        return folder / component
    if not (folder / "unet_ema").is_dir():
        raise CheckpointError(
            f"The folder {folder.name} holds no averaged weights (EMA).",
            got="no 'unet_ema' folder in it",
            fix="Leave out --ema, to take the plain ones.",
        )
    return folder / "unet_ema"


def current_form(part: Tensors, component: Component) -> Tensors:
    """Return a part of a folder under today's names, without what is the same in every model.

    Raises:
        CheckpointError: that is not the same in it.
    """
    if component == "vae":
        return _current_names(part)
    if component != "text_encoder":
        return part
    for name in CONSTANT_NAMES:
        _check_constant(part, name)
    return selected(part, lambda name: name not in CONSTANT_NAMES)


def check_names(what: str, entries: Sequence[Entry], part: Tensors) -> None:
    """Check that a part in the diffusers layout has the tensors of its key map, and no others.

    Raises:
        CheckpointError: it has not.
    """
    wanted = [name for entry in entries for name in entry.names]
    _complete(what, wanted, part.keys())
    if extra := set(part.keys()).difference(wanted):
        raise CheckpointError(
            f"{what} holds tensors that the single-file layout has no place for.",
            got=f"{len(extra)}, such as '{min(extra)[:80]}'",
            fix="Use the model as it was published, without added parts.",
        )


def open_part(folder: Path, component: Component) -> Tensors:
    """Open the weights of one part of a folder in the diffusers layout, whole or sharded, safetensors or pickles.

    Raises:
        CheckpointError: there are none, or they cannot be read.
    """
    stem = WEIGHTS[component]
    for base, suffix in ((stem, "safetensors"), (PICKLED.get(stem, stem), "bin")):
        for variant in ("", ".fp16"):
            whole = folder / f"{base}{variant}.{suffix}"
            if whole.is_file():
                return open_checkpoint(whole)
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
    return joined(*(open_checkpoint(folder / Path(str(name)).name) for name in sorted(set(map(str, table.values())))))


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
        for old, new in VAE_OLD_NAMES.items():
            here = here.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
        names[here] = there
    return renamed(part, names)


def _complete(what: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = sorted(set(wanted).difference(there))
    if missing:
        raise CheckpointError(
            f"{what} is incomplete: {len(missing)} of {len(wanted)} tensors are missing.",
            got=f"no '{missing[0][:100]}'",
            fix="Get the file again, or put its own YAML beside it.",
        )


def _same_widths(what: str, config: ModelConfig, unet: Tensors) -> None:
    for level, width in enumerate(config.unet["block_out_channels"]):
        found = unet.shape(f"down_blocks.{level}.resnets.0.conv1.weight")[0]
        if found != width:
            raise CheckpointError(
                f"The UNet of {what} is not as wide as its configuration says.",
                got=f"{found} channels instead of {width} at level {level}",
                fix="Put the checkpoint's own YAML beside it.",
            )


def check_shapes(what: str, entries: Sequence[Entry], tensors: Tensors) -> None:
    """Check that every tensor that is run has the shape that the configurations give; raises `CheckpointError`."""
    for entry in entries:
        if entry.shape is not None and tensors.shape(entry.ldm) != entry.shape:
            raise CheckpointError(
                f"Tensor '{entry.ldm[:100]}' of {what} has another shape than its configuration says.",
                got=f"{tensors.shape(entry.ldm)} instead of {entry.shape}",
                fix="It was merged or converted wrongly; get the original file.",
            )
