"""Check the sidecar of a checkpoint, the YAML beside it from which the WebUI builds the model.

The WebUI takes the YAML of a checkpoint's own name before it looks at the checkpoint, and calls whatever its `target`s
name. Here it is read as data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from ...errors import CheckpointError
from ..layout import key_map, keys
from ..layout.config import TINY_DEPTH, VIT_H, read_text, reading
from ..layout.keys import sides
from ..layout.ldm_yaml import (
    CLASS,
    MIDAS_CLASS,
    NO_LOSS,
    OWN_ARCH,
    TEXT_CLASS,
    UNET_CLASS,
    VAE_CLASS,
    unet_from_ldm,
    vae_from_ldm,
)
from ..storage.tensors import Tensors

MAX_YAML: Final = 64 * 1024
"""Longest YAML that is read, in characters; Stability's has 2,000."""

State = Literal["none", "right", "wrong", "unreadable", "hostile"]

KNOWN_PACKAGES: Final = ("ldm.", "sgm.")
"""Packages of the classes that Stable Diffusion's own YAML files name."""

KNOWN_TARGETS: Final = (NO_LOSS, TINY_DEPTH)
"""Other classes that they name."""

OFFICIAL_SHA256: Final = "9ae24cc6010bbd6029c87e7c012e385747022e6ce4288ffa9016f81d59d3d376"
"""SHA-256 of Stability's v2-midas-inference.yaml."""

OTHER_KINDS: Final[Mapping[int, str]] = {4: "v2-inference.yaml", 9: "v2-inpainting-inference.yaml"}
"""Input channels -> the YAML that people rename by mistake."""


@dataclass(frozen=True)
class Sidecar:
    """The YAML beside a checkpoint.

    Attributes:
        path: its path, whether it is there or not.
        state: `none`: there is none. `right`: it describes the checkpoint. `wrong`: it describes another model.
            `unreadable`: it is not an ldm YAML at all. `hostile`: it names code that is not Stable Diffusion's.
        detail: its fault, as part of a sentence; of a right one its origin.
    """

    path: Path
    state: State
    detail: str = ""

    @property
    def is_bad(self) -> bool:
        """True if it keeps the WebUI from loading the checkpoint."""
        return self.state not in ("none", "right")


class _Wrong(CheckpointError):
    pass


def judge(checkpoint: Path, tensors: Tensors) -> Sidecar:
    """Validate the sidecar YAML against the checkpoint's tensors.

    Args:
        checkpoint: the file; the YAML has its stem.
        tensors: its tensors; its UNet takes 5 channels.
    """
    path = checkpoint.with_suffix(".yaml")
    try:
        with reading("ldm YAML"):
            if not path.is_file():
                return Sidecar(path, "none")
            text = read_text(path, MAX_YAML)
            model = _model(yaml.safe_load(text))
            if foreign := sorted(set(_foreign(model, set()))):
                names = ", ".join(name[:80] for name in foreign[:3])
                return Sidecar(path, "hostile", f"it names code that is not Stable Diffusion's: {names}")
            _compare(model, tensors)
    except _Wrong as problem:
        return Sidecar(path, "wrong", problem.what)
    except CheckpointError as problem:
        return Sidecar(path, "unreadable", (problem.got or problem.what).replace("\n", " "))
    own = hashlib.sha256(text.encode()).hexdigest() == OFFICIAL_SHA256
    return Sidecar(path, "right", "Stability's v2-midas-inference.yaml" if own else "")


def _model(values: Any) -> Mapping[str, Any]:
    model = values.get("model") if isinstance(values, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(model.get("params"), Mapping):
        raise ValueError("no model.params in it")
    return model


def _foreign(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield every `target` outside the known packages; a list or mapping that is named often is visited once."""
    if id(value) in seen:
        return
    if isinstance(value, (Mapping, list)):
        seen.add(id(value))
    if isinstance(value, Mapping):
        target = value.get("target")
        if target is not None and target not in KNOWN_TARGETS and not str(target).startswith(KNOWN_PACKAGES):
            yield str(target)
    if isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _foreign(inner, seen)


def _compare(model: Mapping[str, Any], tensors: Tensors) -> None:
    params = model["params"]
    channels = params["unet_config"]["params"]["in_channels"]
    if channels != keys.DEPTH_CHANNELS:
        like = OTHER_KINDS.get(channels)
        guess = f", as {like} does" if like else ""
        raise _Wrong(
            f"it describes a UNet with {str(channels)[:20]} input channels{guess}, and this checkpoint's has "
            f"{keys.DEPTH_CHANNELS}"
        )
    if model.get("target") != CLASS:
        raise _Wrong(f"its model is {str(model.get('target'))[:80]}, and a depth checkpoint's is {CLASS}")
    if params.get("conditioning_key") != "hybrid":
        raise _Wrong(f"its conditioning_key is {str(params.get('conditioning_key'))[:40]!r} instead of 'hybrid'")
    for part, wanted in (("unet_config", UNET_CLASS), ("first_stage_config", VAE_CLASS)):
        if (found := params[part].get("target")) != wanted:
            raise _Wrong(f"its {part} is {str(found)[:80]}, not {wanted}")
    _compare_shapes(params, tensors)
    _compare_text(params["cond_stage_config"], tensors)
    _compare_depth(params.get("depth_stage_config"), tensors)


def _compare_shapes(params: Mapping[str, Any], tensors: Tensors) -> None:
    names = set(tensors.keys())
    for what, described in (
        ("UNet", key_map.unet_entries(unet_from_ldm(params))),
        ("autoencoder", key_map.vae_entries(vae_from_ldm(params))),
    ):
        for entry in described:
            if entry.ldm in names and entry.shape != (there := tensors.shape(entry.ldm)):
                wanted = sides(entry.shape or ())
                raise _Wrong(
                    f"its {what} is another one: {entry.ldm} is {sides(there)} in the checkpoint, not {wanted}"
                )


def _compare_text(text: Mapping[str, Any], tensors: Tensors) -> None:
    if text.get("target") != TEXT_CLASS:
        raise _Wrong(f"its text encoder is {str(text.get('target'))[:80]}, not OpenCLIP")
    arch = str((text.get("params") or {}).get("arch", VIT_H))
    own = OWN_ARCH.fullmatch(arch)
    width = 1024 if arch == VIT_H else int(own[1]) if own else None
    name = keys.TEXT + "ln_final.weight"
    if width is not None and name in tensors.keys() and tensors.shape(name) != (width,):
        raise _Wrong(f"its text encoder {arch[:40]} is {width} wide, the checkpoint's {sides(tensors.shape(name))}")


def _compare_depth(depth: Any, tensors: Tensors) -> None:
    target = depth.get("target") if isinstance(depth, Mapping) else None
    midas = keys.CLS_TOKEN in tensors.keys()
    other = not midas and any(name.startswith(keys.DEPTH) for name in tensors.keys())
    if target != (TINY_DEPTH if other else MIDAS_CLASS):
        raise _Wrong(f"its depth network is {str(target)[:80]}, which is not the checkpoint's")
