"""Read the job back from the infotext that the WebUI or the engine wrote into a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import OptionError
from ..options import OPTIONS, WEBUI_ONLY
from ..table import Option
from .settings import SAMPLERS, SETTINGS

PAIR: Final = re.compile(r'\s*([\w ][^:,"\n]*):\s*("(?:\\.|[^"\\])*"|[^,\n]*)(?:,|$)')
"""One `key: value` of the last line; a value with separators in it is a JSON string."""

FEWEST: Final = 3
"""Pairs that make a line the last one of an infotext; with fewer it is a line of the prompt (as in the WebUI)."""

NEGATIVE: Final = "Negative prompt:"

OF_NO_EFFECT: Final = frozenset(
    (
        *(
            "Model hash",
            "Version",
            "User",
            "Lora hashes",
            "TI hashes",
            "VAE",
            "VAE hash",
            "Init image hash",
            "Clip skip",
        ),
        *("Depth fidelity", "Depth version", "Conditional mask weight", "Size", "Model", "RNG", "Schedule type"),
        *("Sampler", "Emphasis", "Pad conds"),
    )
)
"""Keys that are read apart, or change no picture of Stable Diffusion 2's depth model."""


@dataclass(frozen=True)
class Repeated:
    """A job that was read.

    Attributes:
        values: of settings and depth options, by name; what it does not say is left out.
        model: name of the model; empty if the infotext does not say.
        notes: a sentence for each thing that cannot be repeated.
    """

    values: Mapping[str, Any]
    model: str
    notes: tuple[str, ...]


def read_job(infotext: str) -> Repeated:
    """Read settings and depth options from an infotext.

    A picture of the WebUI, and one of ours with its noise, is repeated with the WebUI's noise.

    Raises:
        OptionError: it is not an infotext, or a value is not known; the message says which.
    """
    prompt, negative, pairs = _split(infotext)
    values: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", ""))
    if size is not None:
        values |= {"width": SETTINGS["width"].check(size[1]), "height": SETTINGS["height"].check(size[2])}
    for name, option in SETTINGS.items():
        if option.infotext in pairs and name != "sampler":
            values[name] = _value(option, pairs[option.infotext])
    for name, option in OPTIONS.items():
        if option.infotext in pairs and name not in WEBUI_ONLY:
            values[name] = _value(option, pairs[option.infotext])
    values |= _sampling(pairs)
    return Repeated(values, pairs.get("Model", ""), tuple(_notes(pairs, values)))


def _split(infotext: str) -> tuple[str, str, dict[str, str]]:
    """Return prompt, negative prompt and the pairs of the last line."""
    *lines, last = infotext.strip().split("\n")
    pairs = {match[1].strip(): _unquoted(match[2].strip()) for match in PAIR.finditer(last)}
    if len(pairs) < FEWEST or "Steps" not in pairs:
        raise OptionError("from", "This is not an infotext.", got=f"'{last[:80]}'", fix="Choose a picture with one.")
    start = next((at for at, line in enumerate(lines) if line.strip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).strip().removeprefix(NEGATIVE).strip()
    return "\n".join(lines[:start]).strip(), negative, pairs


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def _value(option: Option, text: str) -> Any:
    """Read a value; a switch that is on may be written as its label."""
    return True if option.kind == "switch" and text == option.label else option.parse(text)


def _sampling(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Read sampler, schedule type and noise; until 1.8 the WebUI wrote the schedule type behind the sampler's name."""
    label, kinds = pairs.get("Sampler", ""), SETTINGS["schedule_type"].choices
    kind = pairs.get("Schedule type", "Automatic")
    for one in ("Karras", "Exponential"):
        if label.endswith(f" {one}"):
            label, kind = label.removesuffix(f" {one}"), one
    name = next((name for name, sampler in SAMPLERS.items() if sampler.label.lower() == label.lower()), None)
    if name is None:
        known = ", ".join(sampler.label for sampler in SAMPLERS.values())
        raise OptionError("sampler", f"There is no sampler '{label[:40]}' here.", fix=f"Choose one of: {known}.")
    if kind not in kinds.values():
        raise OptionError(
            "schedule_type",
            f"There is no schedule type '{kind[:40]}' here.",
            fix=f"Known are {', '.join(kinds.values())}.",
        )
    of_webui = "Version" in pairs or "RNG" in pairs
    schedule = next(one for one, shown in kinds.items() if shown == kind)
    return {"sampler": name} | ({"noise": "webui", "schedule_type": schedule} if of_webui else {})


def _notes(pairs: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    read = {option.infotext for option in (*SETTINGS.values(), *OPTIONS.values())}
    left = [f"{key}: {value}"[:60] for key, value in pairs.items() if key not in read | OF_NO_EFFECT]
    notes = [f"Not repeated, since it is not known here: {', '.join(left[:20])}."] if left else []
    noise = pairs.get("RNG", "GPU")
    if values.get("noise") == "webui" and noise != "CPU":
        notes.append(
            f"The picture was made with the noise of {noise}; it comes out equal only if that ran on a CPU. "
            "In the WebUI, choose 'Random number generator source: CPU'."
        )
    if values.get("source", "picture") != "picture":
        notes.append("Its depth came from a file; give that again, with --depth or --depth-from.")
    return notes
