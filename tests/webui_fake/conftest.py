"""The adapter against a stand-in for the WebUI: see `standin.py` and the folder `host`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gradio  # noqa: F401 - its dependencies warn when they are first imported

from tests.webui_fake import standin
from tests.webui_fake.standin import Host


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Host]:
    """The stand-in without checkpoints."""
    torch.manual_seed(7)
    with standin.running(tmp_path) as host:
        yield host


@pytest.fixture
def host(bare: Host) -> Host:
    """The stand-in with the extension registered, and with `depth` (loaded), `depth-b` and `plain`."""
    bare.ours("script").register()
    bare.add("depth", lambda: standin.state_dict(5, midas=True))
    bare.add("depth-b", lambda: standin.state_dict(5, midas=True))
    bare.add("plain", lambda: standin.state_dict(4, midas=False))
    bare.select("depth")
    return bare
