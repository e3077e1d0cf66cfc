"""Fixtures of the real-host tier: it needs WEBUI_DIR (a WebUI 1.10.1) and, as a rule, WEBUI_PYTHON."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from host import Host, random_models, running, without

from depth2img import embedded

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="needs the real WebUI: set WEBUI_DIR and WEBUI_PYTHON (CONTRIBUTING.md)")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real_host)
            if "WEBUI_DIR" not in os.environ:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def what_the_host_has(request: pytest.FixtureRequest) -> None:
    """Skip a test marked `needs(...)` where the host lacks one of these features, with the reason."""
    features = [name for mark in request.node.iter_markers("needs") for name in mark.args]
    if missing := [without(name) for name in features if without(name)]:
        pytest.skip("; ".join(missing))


@pytest.fixture(scope="session")
def models() -> Path:
    """Small random checkpoints, made once per version of the tool: depth, plain and depth without MiDaS."""
    return random_models()


@pytest.fixture(scope="session")
def host(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One WebUI with the extension for most tests: API only, no network, no MiDaS file."""
    folder = tmp_path_factory.mktemp("host") / "data"
    with running(folder, checkpoints=models, checkpoint="small-depth.safetensors") as started:
        yield started


@pytest.fixture
def depth_host(host: Host) -> Iterator[Host]:
    """The same, with the depth checkpoint loaded, nothing cached and nothing recorded."""
    host.use("small-depth")
    host.run("sys.modules['depth2img_webui.jobs.maps'].CACHE.clear(); probe.clear(); probe.watch()")
    host.run("probe.settings = set(shared.opts.data)")
    yield host
    # The host does not take back an overridden setting that was never saved (`stored_opts` in `process_images`).
    host.run(
        "probe.native(False); probe.seeded = False\n"
        "for name in set(shared.opts.data) - probe.settings:\n"
        "    if not name.startswith('sd_'):\n"
        "        shared.opts.data.pop(name)"
    )


@contextlib.contextmanager
def hosted(folder: Path, beside: tuple[str, ...] = ()) -> Iterator[Host]:
    """A WebUI with the bundled model, page and API, in a folder of its own: its pictures can be judged.

    Args:
        folder: of its own.
        beside: see `running`.
    """
    (folder / "checkpoints").mkdir(parents=True)
    embedded.install(folder / "checkpoints" / "depth2img-tiny.safetensors")
    with running(
        folder / "data",
        checkpoints=folder / "checkpoints",
        checkpoint="depth2img-tiny.safetensors",
        interface=True,
        beside=beside,
    ) as started:
        started.run("probe.watch()")
        yield started


@pytest.fixture(scope="session")
def bundled_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One such WebUI for most of these tests."""
    with hosted(tmp_path_factory.mktemp("bundled")) as started:
        yield started


@pytest.fixture
def bundled(bundled_host: Host) -> Host:
    """The same with nothing cached and nothing recorded."""
    bundled_host.run("sys.modules['depth2img_webui.jobs.maps'].CACHE.clear(); probe.clear()")
    return bundled_host


def photograph(name: str, width: int = 192, height: int = 128) -> Image.Image:
    """A photograph that ships in scikit-image, cut to the proportions and resized."""
    import skimage

    (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    image = Image.open(path).convert("RGB")
    scale = min(image.width / width, image.height / height)
    cut_width, cut_height = int(width * scale), int(height * scale)
    left, top = (image.width - cut_width) // 2, (image.height - cut_height) // 2
    return image.crop((left, top, left + cut_width, top + cut_height)).resize((width, height))


def grid_args(host: Host, *axes: str) -> list[Any]:
    """Arguments of the X/Y/Z script in csv mode: name and values of one to three axes."""
    titles, parameters = host.run(
        "import inspect\n"
        "m = [d.module for d in sys.modules['modules.scripts'].scripts_data if d.path.endswith('xyz_grid.py')][0]\n"
        "titles = [o.label for o in m.axis_options if type(o) == m.AxisOption or o.is_img2img]\n"
        "result = titles, list(inspect.signature(m.Script.run).parameters)"
    )
    names = [*axes, *["Nothing", ""] * 3][:6]
    flat = [value for at in (0, 2, 4) for value in (titles.index(names[at]), names[at + 1], [])]
    switches = {"draw_legend": True, "include_lone_images": True, "margin_size": 0, "csv_mode": True}
    return [*flat, *(switches.get(name, False) for name in parameters[2 + len(flat) :])]


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    return photograph("astronaut")


@pytest.fixture(scope="session")
def coffee() -> Image.Image:
    return photograph("coffee")


@pytest.fixture(scope="session")
def chelsea() -> Image.Image:
    return photograph("chelsea")
