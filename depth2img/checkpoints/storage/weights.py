"""Find a model's weights among all names in a file: behind prefixes, in inner dictionaries, as EMA.

Training programs save `model.`, `module.`, `state_dict` and the like around the names that Stable Diffusion's own files
have, and an average of the weights (EMA) beside them or instead of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

UNET: Final = "model.diffusion_model."
EMA: Final = "model_ema."
INPUT: Final = UNET + "input_blocks.0.0.weight"
"""The UNet's first convolution, by which a model is found."""

AVERAGED_INPUT: Final = EMA + INPUT.removeprefix("model.").replace(".", "")
"""The same among `ldm`'s averages."""

WRAPPERS: Final = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"})
"""Parts of names that PyTorch's parallel, sharded and compiled modules put between the others."""

EMA_PREFIX: Final = re.compile(r"(^|[._])ema([._]|$)")
"""Prefixes of a whole second model that is an average, such as `ema.`, `model_ema.` or `params_ema.`."""

TOKEN: Final = re.compile(
    r"input_blocks|middle_block|output_blocks|time_embed|label_emb|in_layers|out_layers|emb_layers|skip_connection|"
    r"transformer_blocks|attn[12]|to_out|to_[qkv]|proj_in|proj_out|proj|norm[123]?|ff|net|op|conv|out|weight|bias|"
    r"\d+(?=\d)|\d"
)
"""Parts of the names in a UNet. Of several digits in a row the last is a part of its own: a level has few modules."""


@dataclass(frozen=True)
class Weights:
    """Location of a model's weights in a file.

    Attributes:
        names: name of each tensor as Stable Diffusion's own files have it -> its name in the file.
        prefix: what is before the latter.
        outside: number of the file's tensors that are not among them.
        ema: number of tensors that are averages of others in the file, or of its UNet where there is no other.
        is_ema: true if the averages are what `names` leads to.
        wrapped: true if other programs do not find them: the names, but for a `state_dict` around them, are not those
            of Stable Diffusion's own files.
    """

    names: Mapping[str, str]
    prefix: str = ""
    outside: int = 0
    ema: int = 0
    is_ema: bool = False
    wrapped: bool = False


def find_weights(names: Sequence[str], nested: Collection[str] = (), *, ema: bool = False) -> Weights | None:
    """Find the weights of a model.

    Args:
        names: all names in the file.
        nested: those that come from inner dictionaries; each begins with the dictionary's name.
        ema: take the averages; without them, they are taken where there is nothing else.

    Returns:
        None if `ema` is asked for and there are no averages.

    Raises:
        ValueError: it holds several models; the message names their prefixes.
    """
    bare = _without_wrappers(names)
    plain, average = _prefixes(bare)
    if plain is None and average is None:
        plain = _of_other_things(bare, nested)
    averaged = {} if average is None else _below(average, bare, nested)
    found = averaged if plain is None else _below(plain, bare, nested)
    flat = {name: here for here in found if (name := of_ema(here)) is not None}
    count = len(averaged) or sum(here.startswith(EMA) for here in found)
    if not (ema or plain is None or (flat and INPUT not in found)):
        usual = "state_dict." if any(name.startswith("state_dict.") for name in nested) else ""
        wrapped = any(there != usual + here for here, there in found.items())
        return Weights(found, plain, len(names) - len(found), count, wrapped=wrapped)
    if not (averaged or flat):
        return None
    left = (EMA, average) if average else (EMA,)
    chosen = {here: there for here, there in found.items() if not here.startswith(left)}
    chosen |= averaged or {name: found[here] for name, here in flat.items()}
    prefix = average if average is not None and averaged else plain or ""
    return Weights(chosen, prefix, len(names) - len(chosen), count, is_ema=True)


def of_ema(name: str) -> str | None:
    """Return the name of the tensor that one of `ldm`'s averages belongs to; None for any other name.

    `ldm` leaves the dots out of their names (ldm/modules/ema.py): they are put in again where a UNet has them.
    """
    prefix = EMA + "diffusion_model"
    if not name.startswith(prefix):
        return None
    flat = name[len(prefix) :]
    parts = TOKEN.findall(flat)
    return UNET + ".".join(parts) if parts and "".join(parts) == flat else None


def _without_wrappers(names: Sequence[str]) -> dict[str, str]:
    bare: dict[str, str] = {}
    for there in names:
        here = ".".join(part for part in there.split(".") if part not in WRAPPERS)
        if bare.setdefault(here, there) != there:
            return {name: name for name in names}  # the parts are no wrappers here: names would coincide
    return bare


def _prefixes(bare: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the prefix of the model, and that of a second one which is an average of it; None for one not there."""
    found = {
        name[: -len(anchor)]
        for anchor in (INPUT, AVERAGED_INPUT)
        for name in bare
        if name.endswith(anchor) and name[: -len(anchor)][-1:] in ("", ".")
    }
    averages = {prefix for prefix in found if EMA_PREFIX.search(prefix)}
    plain = {""} if "" in found else found - averages
    if len(plain) > 1 or len(averages) > 1:
        raise ValueError(", ".join(sorted(prefix[:60] or "none" for prefix in (plain if len(plain) > 1 else averages))))
    return next(iter(plain), None), next(iter(averages), None)


def _of_other_things(bare: Mapping[str, str], nested: Collection[str]) -> str:
    """Return the prefix of whatever else a file holds: of its state dict, or else of most of its tensors."""
    sizes = Counter(name.partition(".")[0] for name in nested)
    largest = "state_dict" if "state_dict" in sizes else max(sizes, key=sizes.__getitem__, default="")
    outermost = len(bare) - len(nested)
    if largest in WRAPPERS or (largest != "state_dict" and sizes[largest] <= outermost):
        return ""
    return f"{largest}."


def _below(prefix: str, bare: Mapping[str, str], nested: Collection[str]) -> dict[str, str]:
    def is_inside(there: str) -> bool:  # of what has no prefix, other dictionaries than the outermost are no part
        return bool(prefix) or there not in nested or there.partition(".")[0] in WRAPPERS

    return {here[len(prefix) :]: there for here, there in bare.items() if here.startswith(prefix) and is_inside(there)}


@dataclass(frozen=True)
class Unet:
    """Location of a UNet in a file.

    Attributes:
        prefix: what is before its names.
        form: whether these are `ldm`'s or diffusers'.
        input: name of its first convolution, prefix included.
    """

    prefix: str
    form: Literal["ldm", "diffusers"]
    input: str


def find_unet(names: Collection[str]) -> Unet | None:
    """Find a UNet by a name in its second half, which a ControlNet has not; None without one."""
    for name in names:
        for prefix in ("", "unet.", "diffusion_model.", UNET):
            if name == f"{prefix}output_blocks.0.0.in_layers.0.weight":
                return Unet(prefix, "ldm", f"{prefix}input_blocks.0.0.weight")
            if name == f"{prefix}up_blocks.0.resnets.0.norm1.weight":
                return Unet(prefix, "diffusers", f"{prefix}conv_in.weight")
    return None
