"""The one kind of option table, and that everything follows from a row."""

from __future__ import annotations

import csv
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from depth2img.batch import manifest
from depth2img.cli import flags
from depth2img.diffusion import settings as engine_settings
from depth2img.diffusion.infotext import ORDER, infotext
from depth2img.diffusion.settings import SAMPLERS, SETTINGS, Settings, in_section
from depth2img.errors import OptionError
from depth2img.options import OPTIONS, DepthOptions
from depth2img.table import Option, choice, number, rows, switch, text, whole, written

TABLES = [(DepthOptions, OPTIONS), (Settings, SETTINGS)]
EVERY = [option for _, table in TABLES for option in table.values()]
TYPES = {"switch": bool, "choice": str, "text": str, "image": object}


# --- the rows of both tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "table"), TABLES, ids=["options", "settings"])
def test_a_table_has_its_class_s_fields_in_order(owner, table):
    assert list(table) == [field.name for field in dataclasses.fields(owner)]
    assert all(name == option.name for name, option in table.items())
    labels = [option.label for option in table.values()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(("owner", "table"), TABLES, ids=["options", "settings"])
def test_annotations_say_what_the_rows_say(owner, table):
    """Type checkers read the one, everything else the other."""
    hints = typing.get_type_hints(owner)
    for name, option in table.items():
        expected: Any = TYPES.get(option.kind, int if option.whole else float)
        assert hints[name] == (expected | None if option.unset else expected), name


@pytest.mark.parametrize("option", EVERY, ids=lambda option: option.name)
def test_rows_are_whole(option):
    assert option.help.endswith(".") and option.label
    assert option.check(option.default) == option.default
    if option.kind == "number":
        assert option.minimum < option.maximum
    if option.kind == "choice":
        assert option.default in option.choices
    assert not (option.infotext and option.kind == "image"), "an infotext cannot carry a picture"


def test_names_of_the_two_tables_differ():
    """Flags and manifests have both."""
    assert not set(OPTIONS) & set(SETTINGS)


def test_the_positional_order_of_the_options_is_fixed():
    """Clients of the API send the options as a list: new ones go to the end."""
    assert list(OPTIONS) == [
        "enabled",
        "source",
        "reference",
        "depth_map",
        "near",
        "far",
        "gamma",
        "blur",
        "invert",
        "append_map",
        "save_map",
        "strength",
        "start",
        "end",
        "region",
        "neutral",
        "guidance",
        "ignore_colours",
        "estimate_on",
        "under_mask",
        "hires",
        "keep_first",
        "range",
        "score",
        "range_far",
        "range_near",
        "estimator",
        "map_directory",
        "holds",
        "map_channel",
        "map_ending",
        "range_clip",
    ]


def test_sections_of_the_settings():
    assert in_section("mask") == (
        *("mask_blur", "mask_invert", "masked_content", "inpaint_area", "only_masked_padding"),
    )
    assert in_section("hires") == ("hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_denoising_strength")


def test_every_sampler_is_a_scheduler_with_its_webui_name():
    assert SETTINGS["sampler"].choices == {name: sampler.label for name, sampler in SAMPLERS.items()}
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    for sampler in SAMPLERS.values():
        assert hasattr(diffusers, sampler.scheduler)


# --- values ----------------------------------------------------------------------------------------------------------


BAD = {
    "steps": [0, 151, 20.5, "20.5", "many", True, None, 10**400],
    "seed": [-1, 2**32, 1.5],
    "cfg_scale": [0.5, 31, "seven", "nan", float("nan"), False],
    "width": [63, 4097, 100, "100", 96.5],
    "denoising_strength": [-0.1, 1.1, float("inf"), None, 10**400],
    "sampler": ["plms", "", None, 3, ["ddim"]],
    "mask_invert": [2, "perhaps", None],
    "prompt": [None, 3, ["a"], b"a"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(OptionError, match=f"^Setting '{name}' must be ") as caught:
        Settings(**{name: value})
    assert caught.value.field == name
    assert len(str(caught.value)) < 300


def test_messages_give_range_and_value():
    for given, message in (
        ({"steps": 1000}, "Setting 'steps' must be a whole number from 1 to 150. Got 1000. Correct the value"),
        ({"seed": -1}, "Setting 'seed' must be a whole number from 0 to 4294967295. Got -1."),
        ({"height": 100}, "Setting 'height' must be a multiple of 8 from 64 to 4096. Got 100."),
        ({"sampler": "plms"}, "Setting 'sampler' must be one of: ddim, euler, euler a, dpm++ 2m, heun. Got 'plms'."),
        ({"prompt": 3}, "Setting 'prompt' must be text. Got 3."),
    ):
        with pytest.raises(OptionError) as caught:
            Settings(**given)
        assert str(caught.value).startswith(message)
    with pytest.raises(OptionError, match=r"^Depth option 'gamma' must be a number from 0\.1 to 10\. Got 99\."):
        DepthOptions(gamma=99)


def test_settings_keep_what_they_are_given():
    """A whole number stays one in the infotext, prompts keep their line ends; a sampler may have its WebUI name."""
    given = Settings(prompt=" a\nb ", denoising_strength=1, sampler="DPM++ 2M", width=None)
    assert given.prompt == " a\nb " and given.width is None and given.sampler == "dpm++ 2m"
    assert type(given.denoising_strength) is int and type(DepthOptions(gamma=2).gamma) is float


# --- everything follows from a row ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Made:
    """A table as somebody would add rows to one."""

    tiling: bool = switch(False, "Tiling", "Makes the result tile.", infotext="Tiling", section="sampling")
    clip_skip: int = whole(1, "CLIP skip", "Layers left out.", (1, 12, 1), infotext="Clip skip", section="sampling")
    eta: float | None = number(None, "Eta", "Noise.", (0.0, 1.0, 0.1), unset="what suits", section="sampling")
    tone: str = choice("warm", "Tone", "Which tone.", {"warm": "Warm", "cold": "Cold"}, silent=(), infotext="Tone")
    style: str = text("", "Style", "A style.", short="-y", multiline=True)


FRESH = rows(Made, "Setting")


def test_a_row_becomes_an_infotext():
    assert [(option.infotext, value) for option, value in written(Made(), FRESH)] == [("Tone", "warm")]
    pairs = written(Made(clip_skip=2, tiling=True, eta=0.5), FRESH)
    assert [(option.infotext, value) for option, value in pairs] == [
        ("Tiling", True),
        ("Clip skip", 2),
        ("Tone", "warm"),
    ]


def test_a_new_setting_is_in_the_result_s_infotext(monkeypatch):
    """Behind those whose place the WebUI's own order gives."""
    table = {**SETTINGS, "clip_skip": FRESH["clip_skip"]}
    monkeypatch.setattr("depth2img.diffusion.infotext.SETTINGS", table)
    settings: Any = Settings(hr_scale=2.0)
    object.__setattr__(settings, "clip_skip", 2)
    said = infotext(settings, DepthOptions(gamma=2), size=(64, 96), cfg_scale=4, model="tiny")
    assert said.endswith("Hires denoising strength: 0.7, Clip skip: 2, Depth gamma: 2.0")
    known = {option.infotext for option in SETTINGS.values() if option.infotext} | {"Size", "Model"}
    of_noise = {"Schedule type", "RNG"}  # written together, with the WebUI's noise
    assert set(ORDER) - of_noise == known


def test_a_row_becomes_a_flag():
    seen: dict[str, Any] = {}

    def command(**given: Any) -> None:
        seen.update(given)

    run: Any = command
    for option in reversed(FRESH.values()):
        run = flags.option_flag(option)(run)
    made = click.command()(run)
    done = CliRunner().invoke(made, ["--tiling", "--clip-skip", "3", "--tone", "cold", "-y", "a\nb"])
    assert done.exit_code == 0, done.output
    assert seen == {"tiling": True, "clip_skip": 3, "eta": None, "tone": "cold", "style": "a\nb"}
    words = " ".join(CliRunner().invoke(made, ["--help"]).output.split())
    for part in (
        "--tiling / --no-tiling",
        "Layers left out. 1 to 12. [default: 1]",
        "Noise. 0 to 1. [default: what suits]",
    ):
        assert part in words
    assert CliRunner().invoke(made, ["--tone", "grey"]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("clip_skip", "3", "whole"), ("tiling", "yes", "switch"), ("eta", "0.5", "number"), ("style", " a ", "text")],
)
def test_a_row_becomes_a_field_of_a_manifest(monkeypatch, tmp_path: Path, name: str, value: str, kind: str):
    wanted = {"clip_skip": 3, "tiling": True, "eta": 0.5, "style": " a "}[name]
    monkeypatch.setattr(manifest, "TABLE", {**manifest.TABLE, **FRESH})
    monkeypatch.setattr(manifest, "FIELDS", (*manifest.FIELDS, *FRESH))
    table = tmp_path / "jobs.csv"
    with table.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["picture", name], ["a.png", value]])
    lines = tmp_path / "jobs.jsonl"
    lines.write_text(json.dumps({"picture": "a.png", name: wanted}))
    for path in (table, lines):
        assert manifest.read_manifest(path)[0].values[name] == wanted
    if kind != "text":
        table.write_text(f"picture,{name}\na.png,much\n")
        with pytest.raises(OptionError, match=f"'{name}' must be"):
            manifest.read_manifest(table)


def test_every_kind_and_look_has_a_component():
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    from depth2img.gui.components import component

    kinds = {
        option.name: type(component(option, f"x-{option.name}", value=option.default)).__name__ for option in EVERY
    }
    for name, kind in {
        **{"near": "Slider", "range_far": "Number", "source": "Radio", "reference": "Image", "depth_map": "File"},
        **{"estimator": "Dropdown", "map_directory": "Textbox", "invert": "Checkbox", "prompt": "Textbox"},
        **{"sampler": "Dropdown", "steps": "Slider", "seed": "Number", "width": "Number"},
    }.items():
        assert kinds[name] == kind
    assert component(SETTINGS["prompt"], "x", value="").lines == 2
    assert component(SETTINGS["seed"], "x", value=0).precision == 0
    assert component(OPTIONS["range_far"], "x", value=0.0).precision is None


def test_no_row_takes_an_attribute_that_does_not_exist():
    with pytest.raises(TypeError, match="colour"):
        number(1.0, "Near", "Help.", (0.0, 1.0, 0.1), colour="red")
    assert dataclasses.replace(SETTINGS["steps"], subject="X").error(0).what.startswith("X 'steps' must be")
    assert Option("a", "switch", False, "A", "B.").error(1).what == "Option 'a' must be true or false."
    assert engine_settings.RESIZE_MODES == ("just resize", "crop and resize", "resize and fill")
