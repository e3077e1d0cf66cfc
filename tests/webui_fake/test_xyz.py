"""Axes of the X/Y/Z script."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from depth2img import OPTIONS
from tests.webui_fake.standin import Host, ramp

TEXTS = [name for name, option in OPTIONS.items() if option.infotext]


class AxisOption:
    def __init__(self, label: str, type: type, apply: Any, confirm: Any = None, choices: Any = None) -> None:
        self.label, self.type, self.apply, self.confirm, self.choices = label, type, apply, confirm, choices


@pytest.fixture
def axes(host: Host) -> dict[str, Any]:
    """Label -> axis, added twice as with Reload UI."""
    module = SimpleNamespace(AxisOption=AxisOption, axis_options=[AxisOption("Nothing", str, None)])
    data = SimpleNamespace(path="/somewhere/scripts/xyz_grid.py", module=module)
    other = SimpleNamespace(path="/somewhere/scripts/other.py", module=SimpleNamespace())
    host.scripts.scripts_data[:] = [other, data, data]
    host.ours("xyz").add()
    host.ours("xyz").add()
    labels = [axis.label for axis in module.axis_options]
    assert len(set(labels)) == len(labels)
    return {axis.label: axis for axis in module.axis_options}


def test_every_option_but_pictures_has_an_axis_of_its_name(axes: dict[str, Any]) -> None:
    assert set(axes) == {"Nothing", *(OPTIONS[name].infotext for name in TEXTS)}


@pytest.mark.parametrize("name", TEXTS)
def test_a_cell_gets_the_value(host: Host, axes: dict[str, Any], name: str) -> None:
    option = OPTIONS[name]
    axis = axes[option.infotext]
    if option.kind == "number":
        assert axis.type is float and axis.choices is None
        texts, expected = [str(option.minimum), str(option.maximum)], [option.minimum, option.maximum]
    elif option.kind == "switch":
        texts, expected = axis.choices(), [False, True]
    elif name == "estimator":
        texts, expected = axis.choices(), [option.default]
    elif option.kind == "text":
        assert axis.choices is None
        texts = expected = ["View.Depth.Z", "Z"]
    else:
        texts, expected = axis.choices(), list(option.choices)
    values = [axis.type(text) for text in texts]
    axis.confirm(None, values)
    p = host.img2img(ramp())
    cells = []
    for value in values:
        cell = copy.copy(p)
        axis.apply(cell, value, values)
        cells.append(cell)
    assert [host.ours("xyz").values(cell) for cell in cells] == [{name: value} for value in expected]
    assert host.ours("xyz").values(p) == {}


@pytest.mark.parametrize(("text", "expected"), [("True", True), ("false", False), (" On ", True), ("off", False)])
def test_switches_as_text(host: Host, text: str, expected: bool) -> None:
    assert host.ours("xyz").parse(OPTIONS["invert"], text) is expected


@pytest.mark.parametrize(("name", "value"), [("invert", "maybe"), ("gamma", 99.0), ("source", "nowhere")])
def test_bad_values_stop_the_grid_before_it_begins(axes: dict[str, Any], name: str, value: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{OPTIONS[name].infotext}: .*'{name}'"):
        axes[OPTIONS[name].infotext].confirm(None, [value])


def test_a_cell_runs_with_it_and_says_so(host: Host, axes: dict[str, Any]) -> None:
    p = host.img2img(ramp(), args=({"gamma": 2.0},))
    axes["Depth to image"].apply(p, "off", [])
    axes["Depth blur"].apply(p, 1.5, [])
    host.run(p)
    assert all((step == 0).all() for step in host.seen)
    keys = {key: value for key, value in p.extra_generation_params.items() if key.startswith("Depth")}
    assert keys == {"Depth to image": "False", "Depth gamma": "2.0", "Depth blur": "1.5"}


def test_axes_that_contradict_fail_the_cell(host: Host, axes: dict[str, Any]) -> None:
    p = host.img2img(ramp())
    axes["Depth near"].apply(p, 0.2, [])
    axes["Depth far"].apply(p, 0.6, [])
    with pytest.raises(ValueError, match="'near' must be greater than 'far'"):
        host.run(p)
