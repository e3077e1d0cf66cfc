"""The section "Depth checkpoint": which files it may look at, what it says and does."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from depth2img.checkpoints.layout import keys
from tests.library import sparse
from tests.webui_fake.page import Page
from tests.webui_fake.standin import Host

WRONG = yaml.safe_dump({"model": {"params": {"unet_config": {"params": {"in_channels": 4}}}}})
NAMES = sparse.sd2()


@pytest.fixture
def ours(host: Host, tmp_path: Path) -> ModuleType:
    """The adapter's module, on a host with `models/Stable-diffusion` and `models/other`."""
    for name in ("Stable-diffusion", "other"):
        (tmp_path / "models" / name).mkdir(parents=True)
    host.sd_models.model_path = str(tmp_path / "models" / "Stable-diffusion")
    host.paths.models_path = str(tmp_path / "models")
    host.sd_models.checkpoints_list.clear()
    return host.ours("page.checkpoints")


@pytest.fixture
def file(ours: ModuleType, host: Host) -> Path:
    """A depth checkpoint in the host's list, with the wrong YAML."""
    path = sparse.write(Path(host.sd_models.model_path) / "own.safetensors", NAMES)
    path.with_suffix(".yaml").write_text(WRONG)
    host.sd_models.CheckpointInfo(str(path)).register()
    return path


def hidden(update: Any) -> bool:
    return update["visible"] is False


def test_look_at_one_of_the_list_then_correct_its_yaml(ours: ModuleType, file: Path, host: Host) -> None:
    listed: list[int] = []
    host.sd_models.list_models = lambda: listed.append(1)
    host.ours("hosts.loader").last_error["message"] = "The YAML is not the one for depth."
    report, plan, button, planned = ours.look("own.safetensors")
    assert "Stable Diffusion 2, depth" in report and "v2-inference.yaml does" in report and "0123456789" in report
    assert "own.yaml will be replaced" in plan and "own.yaml.bak" in plan
    assert button["visible"] and button["value"] == "Correct YAML"
    assert file.with_suffix(".yaml").read_text() == WRONG  # looking changes nothing
    report, plan, button, planned = ours.set_up("own.safetensors", planned)
    assert "works" in report and "Done: choose own.safetensors" in plan and "own.yaml.bak" in plan
    assert hidden(button) and planned == "" and listed == [1]
    assert file.with_name("own.yaml.bak").read_text() == WRONG
    assert not host.ours("hosts.loader").last_error
    report, plan, button, planned = ours.look("own.safetensors")
    assert "nothing needs to be done" in plan and hidden(button)


def test_one_click_opens_the_file_once(ours: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Path.open

    def note(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path.name)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", note)
    _, plan, *_ = ours.look("own.safetensors")
    assert opened.count("own.safetensors") == 1 and "own.yaml will be replaced" in plan


def test_only_the_plan_that_was_shown_is_carried_out(ours: ModuleType, file: Path) -> None:
    *_, planned = ours.look("own.safetensors")
    file.with_suffix(".yaml").unlink()
    _, plan, button, planned = ours.set_up("own.safetensors", planned)
    assert "own.yaml will be written" in plan and button["value"] == "Write YAML"
    assert not file.with_suffix(".yaml").exists()
    ours.set_up("own.safetensors", planned)
    assert file.with_suffix(".yaml").exists()


def test_a_checkpoint_elsewhere_among_the_models_is_linked(ours: ModuleType, tmp_path: Path) -> None:
    sparse.write(tmp_path / "models" / "other" / "found.safetensors", NAMES)
    path = str(tmp_path / "models" / "other" / "found.safetensors")
    for name in (path, "other/found.safetensors"):
        _, plan, button, planned = ours.look(name)
        assert "will be linked into" in plan and button["value"] == "Set up"
    ours.set_up(path, planned)
    names = {path.name for path in (tmp_path / "models" / "Stable-diffusion").iterdir()}
    assert names == {"found.safetensors", "found.yaml"}


def test_ckpt_dir_comes_first(ours: ModuleType, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ckpt").mkdir()
    monkeypatch.setattr(host.shared.cmd_opts, "ckpt_dir", str(tmp_path / "ckpt"), raising=False)
    assert ours.folders() == (tmp_path / "ckpt", tmp_path / "models" / "Stable-diffusion")
    sparse.write(tmp_path / "ckpt" / "inside.safetensors", NAMES)
    assert ours.find("inside.safetensors")[0] == tmp_path / "ckpt" / "inside.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "{tmp}/outside.safetensors",
        "{tmp}/models/../outside.safetensors",
        "{tmp}/models-of-another/outside.safetensors",
        "other/link/../../../outside.safetensors",
        "other/settings.json",
        "~/outside.safetensors",
        "a\0b.safetensors",
        "x" * 2000 + ".safetensors",
        "\\\\server\\share\\x.safetensors",
    ],
)
def test_files_elsewhere_are_not_looked_at(ours: ModuleType, tmp_path: Path, name: str) -> None:
    (tmp_path / "models-of-another").mkdir()
    for folder in (tmp_path, tmp_path / "models-of-another"):
        sparse.write(folder / "outside.safetensors", NAMES)
    (tmp_path / "models" / "other" / "settings.json").write_text("{}")
    (tmp_path / "models" / "other" / "link").symlink_to(tmp_path)
    name = name.replace("{tmp}", str(tmp_path))
    report, plan, button, planned = ours.look(name)
    # Either it is refused as such, or it means a file below the folders that does not exist.
    assert "Only checkpoints in the WebUI&#x27;s folders" in report or "There is no file" in report
    assert not plan and hidden(button) and not planned
    _, plan, button, _ = ours.set_up(name, "anything")
    assert "depth2img-bad" in plan and hidden(button)


def test_a_folder_that_the_owner_has_linked_may_be_used(ours: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other-disk").mkdir()
    sparse.write(tmp_path / "other-disk" / "depth.safetensors", NAMES)
    (tmp_path / "models" / "Stable-diffusion" / "disk").symlink_to(tmp_path / "other-disk")
    report, plan, *_ = ours.look("disk/depth.safetensors")
    assert "works" in report and "stays where it is" in plan


@pytest.mark.parametrize("name", [None, "", "   ", 5, [], {"path": "x"}])
def test_nothing_chosen(ours: ModuleType, name: Any) -> None:
    assert "No checkpoint is chosen" in ours.look(name)[0]


def test_what_is_broken_is_shown_and_not_set_up(ours: ModuleType, host: Host) -> None:
    folder = Path(host.sd_models.model_path)
    (folder / "page.ckpt").write_text("<html>")
    report, plan, button, _ = ours.look("page.ckpt")
    assert "an HTML page" in report and not plan and hidden(button)
    tensors = {name: shape for name, shape in NAMES.items() if name != keys.UNET + "out.2.weight"}
    sparse.write(folder / "cut.safetensors", tensors)
    report, plan, button, _ = ours.look("cut.safetensors")
    assert "tensors are missing" in report and "is not set up" in plan and hidden(button)


def test_names_in_a_file_do_not_become_html(ours: ModuleType, host: Host) -> None:
    sparse.write(Path(host.sd_models.model_path) / "x.safetensors", {**NAMES, "<script>alert(1)</script>": (1,)})
    assert "<script>" not in "".join(map(str, ours.look("x.safetensors")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(ours: ModuleType, file: Path) -> None:  # pragma: no cover - not as root
    *_, planned = ours.look("own.safetensors")
    file.parent.chmod(0o500)
    assert "cannot be written" in ours.set_up("own.safetensors", planned)[1]
    file.parent.chmod(0o700)


def test_the_section_is_in_both_tabs_and_saved_nowhere(ours: ModuleType, file: Path, host: Host) -> None:
    for tab in ("img2img", "txt2img"):
        page = Page(host, tab)
        report, _, button, planned = page.press("Inspect", "own.safetensors")
        assert "own.yaml" in report and button["visible"]
        section = [c for c in page.blocks.blocks.values() if "checkpoint_file" in (getattr(c, "elem_id", None) or "")]
        assert [component.choices for component in section] == [["own.safetensors"]]
        assert all(component.do_not_save_to_config for component in section)
    done = page.press("Set up", "own.safetensors", planned)
    assert "Done" in done[1]


def test_trained_checkpoints_are_whole_in_the_panel_too(ours: ModuleType, host: Host) -> None:
    """Names behind a prefix, averages beside the weights; a UNet alone gets the command that completes it."""
    folder = Path(host.sd_models.model_path)
    sparse.write(folder / "trained.safetensors", {f"module.{name}": shape for name, shape in NAMES.items()})
    report, plan, *_ = ours.look("trained.safetensors")
    assert (
        "is whole and works" in report
        and "put something into the names of its weights" in report
        and "will be written" in plan
    )
    averages = {"model_ema.diffusion_modelout2weight": (4, 320, 3, 3)}
    sparse.write(folder / "both.safetensors", {**NAMES, **averages})
    report, *_ = ours.look("both.safetensors")
    assert "is whole and works" in report and "both-ema.safetensors --ema`" in report
    unet = {name: shape for name, shape in NAMES.items() if name.startswith(keys.UNET)}
    sparse.write(folder / "unet.safetensors", unet)
    report, plan, button, _ = ours.look("unet.safetensors")
    assert "a UNet of a depth checkpoint, alone" in report and "--base 512-depth-ema.safetensors" in report
    assert "is not set up" in plan and hidden(button)
