"""The YAML beside a checkpoint: whether the WebUI would build the right model from it.

The WebUI takes the YAML of a checkpoint's own name before it looks at the checkpoint, and calls whatever its `target`s
name. Here it is read as data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import yaml

from ...errors import CheckpointError
from ...io.atomic import reason
from ..layout import keys, shapes
from ..layout.config import TINY_DEPTH, VIT_H, bad, read_text
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

MAX_YAML: Final = 64 * 1024
"""Longest YAML that is read, in characters; Stability's has 2,000."""

State = Literal["none", "right", "wrong", "unreadable", "hostile"]

KNOWN_PACKAGES: Final = ("ldm.", "sgm.")
"""Where the classes of Stable Diffusion's own descriptions come from."""

KNOWN_TARGETS: Final = (NO_LOSS, TINY_DEPTH)
"""Others that they name."""

OFFICIAL_SHA256: Final = "9ae24cc6010bbd6029c87e7c012e385747022e6ce4288ffa9016f81d59d3d376"
"""Of Stability's v2-midas-inference.yaml."""

OTHER_KINDS: Final[Mapping[int, str]] = {4: "v2-inference.yaml", 9: "v2-inpainting-inference.yaml"}
"""Input channels -> the YAML that people rename by mistake."""


class Shapes(Protocol):
    """Names and shapes of a checkpoint's tensors; `tensors.Tensors` is one."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts that came with the file."""
        ...

    def keys(self) -> Any:
        """All names."""
        ...

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        ...


@dataclass(frozen=True)
class Beside:
    """The YAML beside a checkpoint.

    Attributes:
        path: where it is, or would be.
        state: `none`: there is none. `right`: it describes the checkpoint. `wrong`: it describes another model.
            `unreadable`: it is no description at all. `hostile`: it names code that is none of Stable Diffusion's.
        detail: what is wrong with it, as part of a sentence; of a right one where it comes from.
    """

    path: Path
    state: State
    detail: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether the WebUI cannot load the checkpoint because of it."""
        return self.state not in ("none", "right")


class _Wrong(Exception):
    pass


def judge(checkpoint: Path, tensors: Shapes) -> Beside:
    """What the YAML beside a depth checkpoint is worth.

    Args:
        checkpoint: the file; the YAML has its stem.
        tensors: what is in it; its UNet takes 5 channels.
    """
    path = checkpoint.with_suffix(".yaml")
    try:
        if not path.is_file():
            return Beside(path, "none")
        text = read_text(path, MAX_YAML)
        model = _model(yaml.safe_load(text))
        if foreign := sorted(set(_foreign(model, set()))):
            names = ", ".join(name[:80] for name in foreign[:3])
            return Beside(path, "hostile", f"it names code that is none of Stable Diffusion's: {names}")
        _compare(model, tensors)
    except _Wrong as problem:
        return Beside(path, "wrong", str(problem))
    except CheckpointError as problem:
        return Beside(path, "unreadable", problem.got or problem.what)
    except OSError as problem:
        return Beside(path, "unreadable", reason(problem))
    except RecursionError:
        return Beside(path, "unreadable", "it is nested too deeply")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ZeroDivisionError, yaml.YAMLError) as problem:
        return Beside(path, "unreadable", bad("description", problem).got.replace("\n", " ") or type(problem).__name__)
    own = hashlib.sha256(text.encode()).hexdigest() == OFFICIAL_SHA256
    return Beside(path, "right", "Stability's v2-midas-inference.yaml" if own else "")


def _model(description: Any) -> Mapping[str, Any]:
    model = description.get("model") if isinstance(description, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(model.get("params"), Mapping):
        raise ValueError("no model.params in it")
    return model


def _foreign(value: Any, seen: set[int]) -> Iterator[str]:
    """Every `target` outside the known packages; each list or mapping is looked at once, however often it is named."""
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


def _compare(model: Mapping[str, Any], tensors: Shapes) -> None:
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


def _compare_shapes(params: Mapping[str, Any], tensors: Shapes) -> None:
    names = set(tensors.keys())
    for what, described in (
        ("UNet", shapes.unet_shapes(unet_from_ldm(params))),
        ("autoencoder", shapes.vae_shapes(vae_from_ldm(params))),
    ):
        for name, shape in described:
            if name in names and tuple(tensors.shape(name)) != shape:
                there, wanted = shapes.sides(tensors.shape(name)), shapes.sides(shape)
                raise _Wrong(f"its {what} is another one: {name[:100]} is {there} in the checkpoint, not {wanted}")


def _compare_text(text: Mapping[str, Any], tensors: Shapes) -> None:
    if text.get("target") != TEXT_CLASS:
        raise _Wrong(f"its text encoder is {str(text.get('target'))[:80]}, not OpenCLIP")
    arch = str((text.get("params") or {}).get("arch", VIT_H))
    own = OWN_ARCH.fullmatch(arch)
    width = 1024 if arch == VIT_H else int(own[1]) if own else None
    name = keys.TEXT + "ln_final.weight"
    if width is not None and name in tensors.keys() and tensors.shape(name) != (width,):
        raise _Wrong(
            f"its text encoder {arch[:40]} is {width} wide, the checkpoint's {shapes.sides(tensors.shape(name))}"
        )


def _compare_depth(depth: Any, tensors: Shapes) -> None:
    target = depth.get("target") if isinstance(depth, Mapping) else None
    midas = keys.MIDAS + "pretrained.model.cls_token" in tensors.keys()
    other = not midas and any(name.startswith(keys.DEPTH) for name in tensors.keys())
    if target != (TINY_DEPTH if other else MIDAS_CLASS):
        raise _Wrong(f"its depth network is {str(target)[:80]}, which is not the checkpoint's")
