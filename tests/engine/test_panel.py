"""The panel is made from the options table."""

from __future__ import annotations

import html
import json
import warnings
from typing import Any

import pytest

from depth2img.options import OPTIONS
from depth2img.table import Option

gradio = pytest.importorskip("gradio", reason="the extra 'app' is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gradio 3 and its own dependencies
    from depth2img.gui import panel


def built(**more: Any) -> tuple[panel.Panel, Any]:
    with gradio.Blocks() as blocks:
        return panel.build(tab="img2img", elem_id=lambda name: f"x-{name}", **more), blocks


def test_every_option_is_in_one_section():
    found = [name for section in panel.SECTIONS for name in panel.in_section(section)]
    assert sorted(found) == sorted(set(OPTIONS) - {"enabled"})
    assert found[:4] == ["source", "reference", "depth_map", "map_directory"]
    assert found[4:8] == ["holds", "map_channel", "map_ending", "estimator"]


@pytest.mark.parametrize("section", panel.SECTIONS)
@pytest.mark.parametrize("kind", ["number", "switch", "choice", "text", "image"])
def test_a_new_row_of_the_table_appears(monkeypatch: pytest.MonkeyPatch, section: str, kind: Any):
    row = Option("fresh", kind, None, "Fresh", "New.", 0.0, 1.0, 0.1, {"a": "A"}, section=section)
    monkeypatch.setattr(panel, "OPTIONS", {**OPTIONS, "fresh": row})
    assert panel.in_section(section)[-1 if section != "source" else -2] == "fresh", "before options of a higher rank"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, _ = built()
    assert list(made.controls)[-1] == "fresh"
    assert made.controls["fresh"].elem_id == "x-fresh"


def test_the_stage_knows_ids_texts_and_colours():
    page = panel.Surroundings(watch=["#a"], width="w", height="h", picture="p", result="#r", side=128)
    _, blocks = built(page=page)
    (stage,) = [c.value for c in blocks.blocks.values() if "depth2img-stage" in str(getattr(c, "value", ""))]
    config = json.loads(html.unescape(stage.partition('data-config="')[2].rpartition('"')[0]))
    assert config["ids"]["near"] == "x-near" and config["labels"]["near"] == "Near"
    assert config["tooltips"]["near"] == OPTIONS["near"].help
    assert config["watch"][0] == "#a" and config["page"] == {"width": "w", "height": "h", "picture": "p"}
    assert config["side"] == 128 and set(config["colour_maps"]) >= {"grey", "inferno"}


def test_notes_escape_what_they_say():
    assert "<b>" not in panel.note("<b>", "<b>", state="<b>")
    assert 'data-side="512"' in panel.note("x", side=512)


def test_the_first_values_are_the_pages():
    """The components are made with them, and with what they show."""
    page = panel.Surroundings(values={"gamma": 2.5, "source": "map", "range": "fixed"}, absent=("keep_first",))
    made, _ = built(page=page, directories=True)
    assert made.controls["gamma"].value == 2.5 and made.controls["near"].value == 1.0
    assert made.controls["source"].value == "map"
    shown = {name: made.controls[name].visible for name in ("depth_map", "map_directory", "range_far", "reference")}
    assert shown == {"depth_map": True, "map_directory": True, "range_far": True, "reference": False}
    assert not made.controls["keep_first"].visible


def test_a_dropdown_offers_what_the_table_takes():
    """Gradio 3.41 turns a pair of label and value into one text, which no option would accept."""
    from depth2img.diffusion.settings import SETTINGS
    from depth2img.gui.components import component

    rows = [option for option in (*SETTINGS.values(), *OPTIONS.values()) if option.kind == "choice" and option.look]
    assert len(rows) > 3
    for option in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = component(option, "x", value=option.default)
        assert option.check(made.value) == option.default
        # Since Gradio 4, each choice is a pair of what is shown and what is sent.
        sent = [choice if isinstance(choice, str) else choice[1] for choice in made.choices]
        assert [option.check(choice) for choice in sent] == list(option.choices)
