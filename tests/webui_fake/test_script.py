"""The script file as the host loads it, and what it makes of the page."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from depth2img import OPTIONS
from tests.webui_fake import standin
from tests.webui_fake.page import Page, is_click
from tests.webui_fake.standin import ROOT, Host, ramp

CALLBACKS = ["script_unloaded", "ui_settings", "cfg_denoiser", "app_started", "before_ui", "app_started"]


def kinds(host: Host) -> list[str]:
    return [kind for kind, _ in host.script_callbacks.fake_callbacks]


def scripts_of(host: Host, module: Any) -> list[type]:
    """List the classes that the host registers: every `Script` in the module's namespace."""
    base = host.scripts.Script
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]


@pytest.fixture
def only_while_loading(bare: Host) -> Iterator[Host]:
    """The project's folder is nowhere on `sys.path`, as in the WebUI, and nothing of it was imported."""
    ours = [name for name in sys.modules if name.split(".")[0] in ("depth2img", "depth2img_webui")]
    kept = {name: sys.modules.pop(name) for name in ours}
    path = sys.path[:]
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != ROOT]
    try:
        yield bare
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name.split(".")[0] in ("depth2img", "depth2img_webui")]:
            del sys.modules[name]
        sys.modules.update(kept)


def test_the_file_is_loaded_like_the_host_does(only_while_loading: Host) -> None:
    host = only_while_loading
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("depth2img")
    before = list(sys.path)
    module = standin.load_script(host)
    assert sys.path == before
    assert module.__name__ == "depth2img.py" and "depth2img.py" not in sys.modules
    (found,) = scripts_of(host, module)
    assert found.__name__ == "DepthToImage"
    assert kinds(host) == CALLBACKS


def test_nothing_is_imported_too_late(only_while_loading: Host) -> None:
    """The folder is off `sys.path` again when the page is built and when jobs run."""
    host = only_while_loading
    standin.load_script(host)
    host.add("depth", lambda: standin.state_dict(5, midas=True))
    host.select("depth")
    page = Page(host, "img2img")
    around = (None, 4, 0, 0, 1, 0, 32)
    page.press("Estimate depth", 0, 0, ramp(), None, None, None, None, *around, 1, 96, 64, 1.0, *page.defaults)
    page.press("Refresh depth status")
    host.run(host.img2img(ramp(), args=({"append_map": True, "gamma": 2.0},)))
    assert host.seen[0].max() == 1 and host.reported == []


def test_reload_ui_twice_leaves_one_set_of_callbacks(bare: Host) -> None:
    standin.load_script(bare)
    for _ in range(2):
        bare.script_callbacks.script_unloaded_callback()
        bare.script_callbacks.clear_callbacks()
        standin.load_script(bare)
    assert kinds(bare) == CALLBACKS and bare.reported == []
    assert len(bare.patches.originals) == 9


def test_start_up_imports_nothing_heavy(only_while_loading: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait until they are needed; what the host has imported anyway is not among them."""
    for name in (
        "timm",
        "ldm",
        "omegaconf",
        "open_clip",
        "diffusers",
        "transformers",
        "safetensors",
        "skimage",
        "scipy",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    importlib.invalidate_caches()
    importlib.import_module("modules.processing")
    sys.path.insert(0, str(ROOT))
    importlib.import_module("depth2img_webui.script")


def test_the_script_in_the_host(host: Host) -> None:
    script = host.ours("script").DepthToImage()
    assert script.title() == "Depth to image"
    for tab in (True, False):
        assert script.show(tab) is host.scripts.AlwaysVisible
    overridden = {"before_process", "process", "postprocess", "after_component", "ui"}
    assert overridden <= set(vars(type(script)))  # the host calls only what the class itself overrides


@pytest.mark.parametrize("tab", ["img2img", "txt2img"])
def test_controls_are_the_options_in_order(host: Host, tab: str) -> None:
    page = Page(host, tab)
    assert [component.label for component in page.controls] == [option.label for option in OPTIONS.values()]
    assert [component.value for component in page.controls] == [option.default for option in OPTIONS.values()]
    # What "Save as defaults" and ui-config.json know of; a preview or a button must not be among it.
    assert not any(component.do_not_save_to_config for component in page.controls)
    prefix = f"script_{tab}_depth_to_image_"
    ids = [c.elem_id for c in page.blocks.blocks.values() if getattr(c, "elem_id", None)]
    assert len(ids) == len(set(ids))
    own = [name for name in ids if name not in page.components]
    assert own and all(name.startswith(prefix) for name in own if "depth_to_image" in name)
    for part in ("enabled", "enabled-checkbox", "status", "refresh", "data", "estimate", "message", "recall", "reuse"):
        assert prefix + part in ids


@pytest.mark.parametrize("tab", ["img2img", "txt2img"])
def test_the_panel_is_connected_once(host: Host, tab: str) -> None:
    page = Page(host, tab)
    assert len(page.blocks.dependencies) > page.count
    _, estimate = page.event("Estimate depth")
    ids = host.ours("page.wiring").HOST_IDS[tab]
    expected = [page.components[name]._id for name in ids] + [component._id for component in page.controls]
    # img2img begins with two values that the page fills in: the open tab and the open size tab.
    assert estimate["inputs"][-len(expected) :] == expected
    assert len(estimate["inputs"]) == len(expected) + (2 if tab == "img2img" else 0)
    assert bool(estimate["js"]) is (tab == "img2img")
    _, refresh = page.event("Refresh depth status")
    assert refresh["inputs"] == [] and refresh["queue"] is False


@pytest.mark.parametrize("tab", ["img2img", "txt2img"])
def test_the_hosts_api_builds_the_panel_again(host: Host, tab: str) -> None:
    """Twice per script, in blocks that are thrown away: those must not be connected, nor the page's be cut off."""
    page = Page(host, tab)
    before = page.event("Estimate depth")
    for _ in range(2):
        with gr.Blocks() as thrown_away:
            controls = page.script.ui(tab == "img2img")
        assert len(controls) == len(OPTIONS)
        labels = [c.value for c in thrown_away.blocks.values() if isinstance(c, gr.Button)]
        assert "Estimate depth" in labels
    assert page.event("Estimate depth") == before


def test_the_api_before_the_page(host: Host) -> None:
    """With `--nowebui` there is no output panel and nothing is ever connected."""
    script = host.ours("script").DepthToImage()
    script.is_img2img = True
    with gr.Blocks() as blocks:
        script.ui(True)
    assert not any(is_click(dependency) for dependency in blocks.dependencies)


def test_defaults_of_the_panel_are_the_defaults_of_a_job(host: Host) -> None:
    """The API uses them for a client that names no script."""
    page = Page(host, "img2img")
    p = host.img2img(ramp(), args=tuple(component.value for component in page.controls))
    host.run(p)
    assert host.seen[0].max() == 1
    assert not [key for key in p.extra_generation_params if key.startswith("Depth")]


FORGE_FREE = ("ldm", "sgm")


@pytest.fixture
def neo(tmp_path: Path) -> Iterator[Host]:
    """Forge Neo, which has removed Stable Diffusion 2: `modules_forge` and `backend` instead of `ldm`."""
    extra = tmp_path / "forge"
    for name in ("modules_forge", "backend"):
        (extra / name).mkdir(parents=True)
        (extra / name / "__init__.py").write_text("")
    with standin.running(tmp_path, without=FORGE_FREE, extra=extra) as host:
        host.sd_models.model_data.sd_model = SimpleNamespace(cond_stage_model=None, chunk_length=75)
        for name in [name for name in vars(host.sd_models_config) if not name.startswith("__")]:
            delattr(host.sd_models_config, name)  # an empty file there
        yield host


def test_forge_neo_gets_one_line_and_no_traceback(neo: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        module = standin.load_script(neo)
    (record,) = [record for record in caplog.records if record.name.startswith("depth2img")]
    assert record.levelno == logging.WARNING and record.exc_info is None
    assert neo.ours("hosts").NO_HOST in record.getMessage() and "\n" not in record.getMessage()
    assert kinds(neo) == [] and neo.patches.originals == {}
    assert len(scripts_of(neo, module)) == 1


@pytest.mark.parametrize("tab", [True, False])
def test_neo_gets_an_explanation_instead_of_the_panel(neo: Host, monkeypatch: pytest.MonkeyPatch, tab: bool) -> None:
    """Without a toggle, and without components that gradio 4 refuses: `gr.File(type="file")`."""
    module = standin.load_script(neo)
    monkeypatch.setattr(gr, "File", lambda **options: pytest.fail("gradio 4 has no type 'file'"))
    (kind,) = scripts_of(neo, module)
    script = kind()
    script.is_img2img, script.is_txt2img = tab, not tab
    with gr.Blocks() as blocks:
        assert script.ui(tab) == []
        script.after_component(gr.Textbox(elem_id=f"generation_info_{'img2img' if tab else 'txt2img'}"))
    texts = [block.value for block in blocks.blocks.values() if isinstance(block, gr.HTML)]
    assert any(neo.ours("hosts").NO_HOST in text and 'data-state="host"' in text for text in texts)
    assert blocks.dependencies == []


def test_neo_jobs_are_left_alone(neo: Host) -> None:
    standin.load_script(neo)
    script = neo.ours("script").DepthToImage()
    model = neo.sd_models.model_data.sd_model
    job = SimpleNamespace(sd_model=model, refiner_checkpoint_info=object(), override_settings={})
    job.extra_generation_params = {}
    before = dict(job.__dict__)
    script.before_process(job)
    script.process(job)
    script.postprocess(job, None)
    assert job.__dict__ == before and job.extra_generation_params == {}


def test_neo_status(neo: Host) -> None:
    assert neo.ours("page.status").status() == ("host", neo.ours("hosts").NO_HOST)


def test_a_host_without_ldm(tmp_path: Path) -> None:
    with standin.running(tmp_path, without=FORGE_FREE) as host:
        assert host.ours("hosts").HOST is None


def test_this_host_is_automatic1111(bare: Host) -> None:
    assert bare.ours("hosts").HOST is bare.ours("hosts.a1111")


def test_modules_of_forge_alone_change_nothing(tmp_path: Path) -> None:
    """An extension may bring a package of that name."""
    extra = tmp_path / "relative"
    (extra / "modules_forge").mkdir(parents=True)
    (extra / "modules_forge" / "__init__.py").write_text("")
    with standin.running(tmp_path, extra=extra) as host:
        assert host.ours("hosts").HOST is host.ours("hosts.a1111")


def test_choices_that_gradio_has_paired_are_names_again(host: Host) -> None:
    """WebUI 1.6.0 answers `/sdapi/v1/script-info` with an error otherwise."""
    host.scripts.scripts_img2img, host.scripts.scripts_txt2img = host.runner(True), host.runner(False)
    args = [SimpleNamespace(choices=[("a", 1), "b"]), SimpleNamespace(choices=None)]
    host.scripts.scripts_img2img.scripts[0].api_info = SimpleNamespace(args=args)
    name_choices, _ = host.script_callbacks.fake_of("app_started")
    name_choices(None, None)
    assert [arg.choices for arg in args] == [["a", "b"], None]
