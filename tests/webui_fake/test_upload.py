"""Files that the page names: only what was uploaded is read."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from depth2img import DepthMapError
from depth2img.io.uploads import uploaded
from tests.webui_fake.standin import Host, ramp


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own: the machine's may hold the repository, too."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A depth map in a folder that is not temporary."""
    path = tmp_path / "private" / "depth.png"
    path.parent.mkdir()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(path)
    return path


def sent(path: Path) -> dict[str, Any]:
    """Content inside the event."""
    return {"name": path.name, "data": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()}


def named(path: str | Path) -> dict[str, Any]:
    """A file that the page says it has uploaded before."""
    return {"name": str(path), "data": None, "is_file": True}


def received(event: dict[str, Any]) -> Any:
    """Return what `gr.File` passes to the page's functions; it copies any file that is named."""
    value = gr.File(type="file").preprocess(event)
    value.close()
    return value


def test_content_in_the_event(outside: Path) -> None:
    path = uploaded(received(sent(outside)))
    assert isinstance(path, Path) and path.read_bytes() == outside.read_bytes()


def uploads() -> Path:
    """Return the folder of Gradio's upload route."""
    with gr.Blocks() as blocks:
        gr.File()
    return Path(gr.routes.App.create_app(blocks).uploaded_file_dir)


def test_an_upload_before_the_event(outside: Path) -> None:
    inside = uploads() / "0123" / "depth.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(outside.read_bytes())
    path = uploaded(received(named(inside)))
    assert path.read_bytes() == inside.read_bytes()


def test_the_hosts_own_temporary_folder(monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    """The setting "Directory for temporary images" reaches Gradio through this variable."""
    value = received(named(outside))
    with pytest.raises(DepthMapError):
        uploaded(value)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(outside.parent))
    assert uploaded(value).read_bytes() == outside.read_bytes()


@pytest.mark.parametrize("way", ["plain", "temporary", "dots", "link"])
def test_other_files_are_refused(temporary: Path, outside: Path, way: str) -> None:
    folder = uploads()
    folder.mkdir(exist_ok=True)
    name = {
        "plain": str(outside),
        "temporary": str(temporary / "other-program" / "depth.png"),
        "dots": f"{folder}/../../private/{outside.name}",
        "link": str(folder / "link.png"),
    }[way]
    if way == "temporary":
        Path(name).parent.mkdir()
        Path(name).write_bytes(outside.read_bytes())
    if way == "link":
        Path(name).symlink_to(outside)
    with pytest.raises(DepthMapError, match="was not uploaded through the page"):
        uploaded(received(named(name)))


def test_a_bare_name_of_a_file_in_the_current_folder_is_refused(monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    """Gradio would copy it from where the WebUI was started."""
    monkeypatch.chdir(outside.parent)
    with pytest.raises(DepthMapError, match="was not uploaded through the page"):
        uploaded(received(named(outside.name)))


def test_a_job_with_a_file_that_was_not_uploaded(host: Host, outside: Path) -> None:
    p = host.img2img(ramp(), args=(True, "map", None, received(named(outside))))
    with pytest.raises(DepthMapError, match="was not uploaded through the page"):
        host.run(p)


@pytest.mark.parametrize(
    "value", [None, True, "text", 1.5, ramp(), {"near": 1}, SimpleNamespace(name="/etc/passwd"), b"bytes"]
)
def test_everything_else_passes(value: Any) -> None:
    assert uploaded(value) is value
