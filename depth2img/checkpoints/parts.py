"""Put a trained part, mostly a UNet alone, into the whole model that it was trained from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from ..errors import CheckpointError
from .layout import keys
from .layout.config import reading
from .layout.keys import Component
from .model import FromLdm, Model, ToLdm, check_names, check_shapes, current_form, is_folder, open_part, place_of
from .storage.opening import open_checkpoint
from .storage.tensors import Tensors, renamed, selected
from .storage.weights import find_unet

TRAINED: Final[tuple[Component, ...]] = ("unet", "text_encoder", "vae")
"""Parts that training programs save, by their folder names in the diffusers layout."""

FILES: Final = ("model.safetensors", "pytorch_model.bin")
"""Files of a folder of a training program that saves its network as such."""


def with_parts(base: Model, source: Path, *, ema: bool = False) -> Model:
    """Replace parts of a model by trained ones.

    Args:
        base: the whole model that was trained.
        source: a file with a UNet under the names of either layout; or a folder in the diffusers layout with any of
            the UNet, the text encoder and the autoencoder, such as `checkpoint-500`; or its `unet` alone.
        ema: take the averaged weights; see `open_model`.

    Raises:
        CheckpointError: there is no UNet in it, a part is incomplete, or it is not of a model like the base.
    """
    with reading(f"checkpoint {source.name}"):
        parts: dict[Component, Tensors] = {}
        parts |= _of_folder(source, ema) if is_folder(source) else {"unet": _of_file(base, source, ema)}
        for component, part in parts.items():
            entries = [entry for entry in base.key_map if entry.component == component]
            check_names(f"{source.name} ({component})", entries, part)
            if component == "unet":
                _check_channels(source, part)
            check_shapes(source.name, entries, ToLdm(parts, entries))
    aside = selected(base.aside, lambda name: not name.startswith(keys.EMA))  # of the weights that go
    return dataclasses.replace(base, name=source.name, parts={**base.parts, **parts}, aside=aside)


def _of_folder(folder: Path, ema: bool) -> dict[Component, Tensors]:
    there: list[Component] = [component for component in TRAINED if (folder / component).is_dir()]
    if there:
        return {name: current_form(open_part(place_of(folder, name, ema), name), name) for name in there}
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    return {"unet": open_part(folder, "unet") if file is None else open_checkpoint(file, ema=ema)}


def _of_file(base: Model, path: Path, ema: bool) -> Tensors:
    file = open_checkpoint(path, ema=ema)
    unet = find_unet(file.keys())
    if unet is None:
        raise CheckpointError(
            f"{path.name} holds no UNet.",
            got=f"{len(file.keys())} tensors under other names",
            fix="Give a trained UNet; leave out --base for a whole checkpoint.",
        )
    names = {name[len(unet.prefix) :]: name for name in file.keys() if name.startswith(unet.prefix)}
    if unet.form == "diffusers":
        return renamed(file, names)
    entries = [entry for entry in base.key_map if entry.component == "unet"]
    ldm = renamed(file, {keys.UNET + name: there for name, there in names.items()})
    missing = [entry.ldm for entry in entries if entry.ldm not in ldm.keys()]
    if missing:
        raise CheckpointError(
            f"The UNet in {path.name} is not like the base's.",
            got=f"{len(missing)} of {len(entries)} tensors missing, such as '{missing[0][:80]}'",
            fix="Give the checkpoint that it was trained from with --base.",
        )
    return FromLdm(ldm, entries)


def _check_channels(source: Path, unet: Tensors) -> None:
    channels = unet.shape("conv_in.weight")[1]
    if channels != keys.DEPTH_CHANNELS:
        raise CheckpointError(
            f"The UNet in {source.name} is not that of a depth model.",
            got=f"{channels} input channels",
            fix="A depth model's UNet has 5: four of the latent and one of depth.",
        )
