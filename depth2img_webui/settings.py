"""Settings > Depth to image."""

from __future__ import annotations

import inspect
from typing import Any

import gradio as gr
from modules import sd_models, shared, shared_items

from depth2img import OPTIONS
from depth2img.depth.colour_maps import COLOUR_MAPS
from depth2img.estimators.cache import DEFAULT_BYTES
from depth2img.estimators.pool import IDLE_SECONDS
from depth2img.table import Option

from .hosts.compat import log

SECTION = ("depth2img", "Depth to image")
CHECKPOINT = "depth2img_checkpoint"
CACHE_MB = "depth2img_cache_mb"
COLOUR_MAP = "depth2img_colour_map"
IDLE_MINUTES = "depth2img_estimator_idle_minutes"
DOWNLOADS = "depth2img_estimator_downloads"
NONE = "None"
MEGABYTE = 1024 * 1024


def add() -> None:
    """Add the options; called by the host's `on_ui_settings`."""
    options = {
        CHECKPOINT: shared.OptionInfo(
            NONE,
            "Switch automatically to this depth checkpoint when a depth map or another picture is given "
            "and the loaded checkpoint has no depth model",
            gr.Dropdown,
            lambda: {"choices": [NONE, *sd_models.checkpoint_tiles()]},
            refresh=shared_items.refresh_checkpoints,
            section=SECTION,
        ),
        COLOUR_MAP: shared.OptionInfo(
            "grey",
            "Colours of shown and appended depth maps (saved maps are always 16-bit grey)",
            gr.Dropdown,
            {"choices": list(COLOUR_MAPS)},
            section=SECTION,
        ),
        CACHE_MB: shared.OptionInfo(
            DEFAULT_BYTES // MEGABYTE,
            "Memory for estimated depth maps, in megabytes; 0 estimates every time",
            gr.Slider,
            {"minimum": 0, "maximum": 4096, "step": 16},
            section=SECTION,
        ),
        IDLE_MINUTES: shared.OptionInfo(
            IDLE_SECONDS / 60,
            "Minutes without use after which an estimator is unloaded; 0 at once",
            gr.Slider,
            {"minimum": 0, "maximum": 120, "step": 1},
            section=SECTION,
        ),
    }
    if _restricts_api():
        options[DOWNLOADS] = shared.OptionInfo(
            False,
            "Allow estimators to be named owner/name on the Hugging Face hub; they are fetched at their first use",
            section=SECTION,
            restrict_api=True,
        )
    for option in OPTIONS.values():
        if option.infotext:
            options[default_key(option.name)] = _default(option)
    for key, info in options.items():
        shared.opts.add_option(key, info)


def default_key(name: str) -> str:
    """Return the key of the setting that holds the user's own default of an option."""
    return f"depth2img_default_{name}"


def default(name: str) -> Any:
    """Return the user's own default of an option, for the page and for API requests that do not name the option.

    A saved value that the option cannot have is ignored, with a warning in the log.
    """
    option = OPTIONS[name]
    value = getattr(shared.opts, default_key(name), option.default)
    try:
        return option.check(value)
    except ValueError as error:
        log.warning("Settings: %s", error)
        return option.default


def colour_map() -> str:
    """Return the chosen key of `COLOUR_MAPS`."""
    value = getattr(shared.opts, COLOUR_MAP, "grey")
    return value if value in COLOUR_MAPS else "grey"


def cache_bytes() -> int:
    """Return the bound of the cache of estimated maps, in bytes."""
    value = getattr(shared.opts, CACHE_MB, None)
    return int(value * MEGABYTE) if isinstance(value, (int, float)) and 0 <= value < 2**20 else DEFAULT_BYTES


def idle_seconds() -> float:
    """Return the seconds without use after which an estimator is unloaded."""
    value = getattr(shared.opts, IDLE_MINUTES, None)
    return float(value) * 60 if isinstance(value, (int, float)) and 0 <= value < 2**20 else IDLE_SECONDS


def allows_downloads() -> bool:
    """Tell whether estimators may be fetched from the hub; never on hosts whose API could switch it on in a request."""
    return _restricts_api() and getattr(shared.opts, DOWNLOADS, False) is True


def _restricts_api() -> bool:
    return "restrict_api" in inspect.signature(shared.OptionInfo.__init__).parameters


def depth_checkpoint() -> str | None:
    """Return the checkpoint to switch to, None if the user chose none."""
    value: Any = getattr(shared.opts, CHECKPOINT, NONE)
    return None if value in (None, "", NONE) else str(value)


def _default(option: Option) -> Any:
    label = f"Default of '{option.label}' (after Reload UI)"
    if option.kind == "switch":
        return shared.OptionInfo(option.default, label, gr.Checkbox, section=SECTION)
    if option.kind == "text":
        return shared.OptionInfo(option.default, label, section=SECTION)
    if option.kind == "number" and not option.step:
        return shared.OptionInfo(option.default, label, gr.Number, section=SECTION)
    if option.kind == "number":
        span = {"minimum": option.minimum, "maximum": option.maximum, "step": option.step}
        return shared.OptionInfo(option.default, label, gr.Slider, span, section=SECTION)
    return shared.OptionInfo(option.default, label, gr.Radio, {"choices": list(option.choices)}, section=SECTION)
