"""Pasting an infotext into the panel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from depth2img import OPTIONS, DepthOptions
from tests.webui_fake.standin import Host

Readers = dict[str, Callable[[dict[str, Any]], Any]]


@pytest.fixture
def readers(host: Host) -> Readers:
    """Option name -> function from the parsed infotext to the value of its component."""
    fields = host.ours("infotext").paste_fields({name: name for name in OPTIONS})
    return dict(fields)


def test_all_options_but_pictures(readers: Readers) -> None:
    assert list(readers) == [name for name, option in OPTIONS.items() if option.infotext]
    assert all(callable(reader) for reader in readers.values())  # keys would leave old values in place


def test_a_missing_key_gives_the_default(readers: Readers) -> None:
    """Else an option of the picture pasted before would survive."""
    for params in ({}, {"Steps": "20", "Depth": "3"}):
        for name, reader in readers.items():
            assert reader(params) == OPTIONS[name].default
            assert type(reader(params)) is type(OPTIONS[name].default)


@pytest.mark.parametrize(
    ("name", "key"),
    [("enabled", "Depth to image"), ("invert", "Depth invert"), ("append_map", "Depth append map")],
)
def test_false_stays_false(readers: Readers, name: str, key: str) -> None:
    """The host's API would cast the text by `bool`, which makes True of it."""
    assert readers[name]({key: "False"}) is False
    assert readers[name]({key: "True"}) is True


@pytest.mark.parametrize(
    "options",
    [
        DepthOptions(),
        DepthOptions(enabled=False),
        DepthOptions(source="map", near=0.85, far=0.15, gamma=0.7, blur=1.5, invert=True),
        DepthOptions(source="reference", append_map=True, save_map=True, far=1 / 3),
    ],
)
def test_what_is_written_comes_back(readers: Readers, options: DepthOptions) -> None:
    read = {name: reader(options.infotext()) for name, reader in readers.items()}
    assert DepthOptions(**read) == options


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("enabled", "maybe"),
        ("enabled", "Depth to image"),
        ("source", "elsewhere"),
        ("near", "2"),
        ("near", "nan"),
        ("gamma", "much"),
        ("gamma", ""),
        ("blur", "-1"),
    ],
)
def test_a_bad_value_gives_the_default_and_a_log(
    readers: Readers, caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="depth2img"):
        assert readers[name]({OPTIONS[name].infotext: text}) == OPTIONS[name].default
    (record,) = caplog.records
    assert record.name == "depth2img" and f"'{name}'" in record.getMessage()


def test_the_script_offers_them(host: Host) -> None:
    import gradio as gr

    script = host.ours("script").DepthToImage()
    script.is_img2img = True
    with gr.Blocks():
        controls = script.ui(True)
    pairs = {component: OPTIONS[name] for component, name in zip(controls, OPTIONS, strict=True)}
    assert [pairs[component].kind for component, _ in script.infotext_fields].count("image") == 0
    for component, reader in script.infotext_fields:
        option = pairs[component]
        assert component.label == option.label
        assert reader({}) == option.default == component.value
