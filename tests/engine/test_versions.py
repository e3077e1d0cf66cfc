"""Differences between Gradio's versions: what we use is what the installed one knows."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import pytest

gradio = pytest.importorskip("gradio", reason="the extra 'app' is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gradio 3 and its own dependencies
    from depth2img.gui import versions


def test_events_take_scripts():
    with gradio.Blocks():
        [(name, code)] = versions.script("() => []").items()
        assert name in inspect.signature(gradio.Button().click).parameters
    assert code == "() => []"


def test_an_uploads_type_is_one_of_gradios():
    gradio.File(type=versions.UPLOAD)
    with pytest.raises(ValueError, match="type"):
        gradio.File(type="file" if versions.UPLOAD == "filepath" else "filepath")


def test_a_hidden_component_is_sent_to_the_page():
    with gradio.Blocks() as blocks:
        gradio.Button("seen", visible=versions.HIDDEN)
    [sent] = [one["props"] for one in blocks.get_config_file()["components"] if one["type"] == "button"]
    assert sent["visible"] == versions.HIDDEN


def test_a_file_is_served_at_its_address(tmp_path: Path):
    (tmp_path / "page.mjs").write_text("export {};")
    with gradio.Blocks(analytics_enabled=False) as blocks:
        pass
    blocks.allowed_paths, blocks.blocked_paths = [str(tmp_path)], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient

        client = TestClient(gradio.routes.App.create_app(blocks))
    assert client.get(versions.file_address(tmp_path / "page.mjs")).text == "export {};"
