"""The WebUI's infotext of a result, so that the WebUI can read and paste it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..depth.scores import FIDELITY
from ..options import DepthOptions
from ..table import Option, written
from .settings import SAMPLERS, SETTINGS, Settings

ORDER: Final = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Denoising strength"),
    *("Mask mode", "Mask blur", "Inpaint area", "Masked area padding", "Masked content"),
    *("Hires upscale", "Hires upscaler", "Hires denoising strength", "Hires steps", "RNG"),
)
"""The WebUI's order of its keys (`create_infotext`, 1.10.1); keys of other settings follow in the table's order."""


def infotext(
    settings: Settings,
    options: DepthOptions,
    *,
    size: tuple[int, int],
    cfg_scale: float,
    model: str,
    masked: bool = False,
    fidelity: float | None = None,
    hashes: Mapping[str, str] | None = None,
) -> str:
    """Write the infotext of one result: prompt, negative prompt, then `key: value` pairs.

    Args:
        settings: of this picture, with its own seed.
        options: the ones that differ from their defaults are written.
        size: width and height of the frame.
        cfg_scale: the value that was used.
        model: name of the model.
        masked: whether there was a mask.
        fidelity: see `Generated`.
        hashes: of LoRAs and learned words; see `Library.hashes`.
    """
    pairs: dict[str, Any] = {"Size": f"{size[0]}x{size[1]}", "Model": model}
    unused = {"mask": not masked, "hires": settings.hr_scale <= 1}
    for option, value in written(settings, SETTINGS):
        if not unused.get(option.section, False):
            pairs[option.infotext] = _shown(option, value)
    pairs["CFG scale"] = cfg_scale
    if settings.noise == "webui":
        pairs |= {"Schedule type": _schedule_type(settings), "RNG": "CPU"}
    if settings.inpaint_area != "only masked":
        pairs.pop(SETTINGS["only_masked_padding"].infotext, None)
    known = [key for key in ORDER if key in pairs]
    pairs = {key: pairs[key] for key in dict.fromkeys([*known, *pairs])} | dict(hashes or {}) | options.infotext()
    if fidelity is not None:
        pairs[FIDELITY] = f"{fidelity:.3f}"
    negative = f"\nNegative prompt: {settings.negative_prompt}" if settings.negative_prompt else ""
    return (
        f"{settings.prompt}{negative}\n{', '.join(f'{key}: {_quoted(value)}' for key, value in pairs.items())}".strip()
    )


def _schedule_type(settings: Settings) -> str:
    """Name the schedule type as the WebUI does: "automatic" by what it stood for, unless that is "uniform"."""
    kind, automatic = settings.schedule_type, SAMPLERS[settings.sampler].schedule_type
    if kind == "automatic" and automatic != "uniform":
        kind = automatic
    return SETTINGS["schedule_type"].choices[kind]


def _shown(option: Option, value: Any) -> Any:
    """Return a value as the WebUI writes it: of a choice its label, for a switch that is on the switch's label."""
    if option.kind == "choice":
        return option.choices[value]
    return option.label if option.kind == "switch" else value


def _quoted(value: Any) -> str:
    """Quote a value that holds separators, as `quote` of the host does (modules/infotext_utils.py)."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",\n:") else text
