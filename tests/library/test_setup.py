"""A checkpoint and its YAML get where the WebUI looks, and nothing that was there is lost."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from depth2img import CheckpointError
from depth2img.checkpoints import SetupPlan, carry_out, inspect, plan_setup, setup, webui_folders
from depth2img.checkpoints.layout import keys
from depth2img.checkpoints.layout.ldm_yaml import SD2_YAML
from depth2img.io.atomic import publishing
from tests.library import sparse

NAMES = sparse.sd2()
FIRST = keys.UNET + "input_blocks.0.0.weight"
PLAIN = yaml.safe_dump({"model": {"params": {"unet_config": {"params": {"in_channels": 4}}}}})


@pytest.fixture
def webui(tmp_path: Path) -> Path:
    """As much of a WebUI as is looked at."""
    folder = tmp_path / "webui"
    (folder / "models" / "Stable-diffusion").mkdir(parents=True)
    (folder / "webui.py").write_text("")
    return folder


@pytest.fixture
def folders(webui: Path) -> tuple[Path, ...]:
    return webui_folders(webui)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A downloaded depth checkpoint; it is whole, and takes no room."""
    (tmp_path / "downloads").mkdir()
    return small(tmp_path / "downloads" / "depth.safetensors")


def small(path: Path, channels: int = 5) -> Path:
    """A checkpoint whose tensors are a few bytes, all at the same place: whole for who reads the header."""
    return sparse.write(path, {**NAMES, FIRST: (320, channels, 3, 3)})


def tree(folder: Path) -> dict[str, bytes]:
    """The first bytes of every file below a folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[path.name] = file.read(3000)
    return found


# --- where ------------------------------------------------------------------------------------------------------------


def test_folders_follow_the_hosts_flags(tmp_path: Path, webui: Path) -> None:
    for name in ("data", "data/models", "models", "checkpoints"):
        (tmp_path / name).mkdir()
    data, models, ckpt = tmp_path / "data", tmp_path / "models", tmp_path / "checkpoints"
    assert webui_folders(webui) == (webui / "models" / "Stable-diffusion",)
    assert webui_folders(webui, data_dir=data) == (data / "models" / "Stable-diffusion",)
    assert webui_folders(webui, data_dir=data, models_dir=models) == (models / "Stable-diffusion",)
    assert webui_folders(webui, ckpt_dir=ckpt) == (ckpt, webui / "models" / "Stable-diffusion")
    assert webui_folders(ckpt_dir=ckpt) == (ckpt,)


def test_folders_that_are_none(tmp_path: Path, webui: Path) -> None:
    with pytest.raises(CheckpointError, match="It is not known where the WebUI is"):
        webui_folders()
    with pytest.raises(CheckpointError, match=r"no webui\.py"):
        webui_folders(tmp_path)
    for name in ("data_dir", "models_dir", "ckpt_dir"):
        with pytest.raises(CheckpointError, match="There is no folder"):
            webui_folders(webui, **{name: tmp_path / "nowhere"})
    (tmp_path / "file").write_text("no folder")
    for given in ({"ckpt_dir": tmp_path / "file"}, {"models_dir": tmp_path / "file"}):
        with pytest.raises(CheckpointError, match="There is no folder"):
            webui_folders(webui, **given)


def test_the_webui_around_an_extension_is_found(webui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = webui / "extensions" / "any name" / "depth2img" / "checkpoints" / "setup.py"
    monkeypatch.setattr(setup, "__file__", str(inside))
    assert webui_folders() == (webui / "models" / "Stable-diffusion",)


# --- what happens -----------------------------------------------------------------------------------------------------


def test_on_the_same_disk_it_is_linked(file: Path, folders: tuple[Path, ...]) -> None:
    plan = plan_setup(file, folders)
    assert (plan.way, plan.yaml) == ("link", "write") and not plan.done
    assert not plan.target.exists()  # so far it is only a plan
    report = carry_out(plan, folders)
    assert report.path == folders[0] / "depth.safetensors" and report.usable
    assert report.path.samefile(file)
    assert report.sidecar is not None and report.sidecar.state == "right"
    assert yaml.safe_load(report.sidecar.path.read_text()) == SD2_YAML
    assert plan_setup(file, folders).done and plan_setup(report.path, folders).done
    assert {path.name for path in folders[0].iterdir()} == {"depth.safetensors", "depth.yaml"}


@pytest.mark.parametrize("way", ["copy", "move"])
def test_copy_and_move(tmp_path: Path, folders: tuple[Path, ...], way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "part.safetensors"
    written = sparse.write(
        file, {name: shape for name, shape in NAMES.items() if math.prod(shape) < 5000 or name == FIRST}
    )
    monkeypatch.setattr(setup, "CURABLE", (*setup.CURABLE, "missing"))  # a whole one would be 2.9 GB of zeros
    content = written.read_bytes()
    if way == "move":
        monkeypatch.setattr(os, "link", _no_links)
    told: list[tuple[int, int]] = []
    plan = plan_setup(file, folders, how=way)
    carry_out(plan, folders, progress=lambda *now: told.append(now))
    assert plan.target.read_bytes() == content and told[-1] == (len(content), len(content))
    assert file.exists() == (way == "copy")
    if way == "copy":
        assert not plan.target.samefile(file)
        assert plan_setup(file, folders, how="copy").done  # the second time there is nothing to do


def _no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_moving_on_one_disk_takes_no_time_and_no_room(file: Path, folders: tuple[Path, ...]) -> None:
    file.with_suffix(".yaml").write_text(yaml.safe_dump(SD2_YAML))
    number = file.stat().st_ino
    carry_out(plan_setup(file, folders, how="move"), folders)
    assert list(file.parent.iterdir()) == []
    assert (folders[0] / "depth.safetensors").stat().st_ino == number


def test_the_owners_own_yaml_comes_along(file: Path, folders: tuple[Path, ...]) -> None:
    own = yaml.safe_dump(SD2_YAML).replace("num_timesteps_cond", "parameterization: v\n    num_timesteps_cond")
    file.with_suffix(".yaml").write_text(own)
    carry_out(plan_setup(file, folders), folders)
    assert (folders[0] / "depth.yaml").read_text() == own
    assert file.with_suffix(".yaml").exists()


def test_a_wrong_yaml_is_corrected_and_kept(folders: tuple[Path, ...]) -> None:
    file = small(folders[0] / "depth.safetensors")
    for number, text in enumerate([PLAIN, "no description", "model: {target: os.system, params: {}}"]):
        file.with_suffix(".yaml").write_text(text)
        plan = plan_setup(file, folders)
        assert (plan.way, plan.yaml) == ("stays", "replace") and plan.backup is not None
        assert any("will be replaced, since" in line and plan.backup.name in line for line in plan.lines())
        assert carry_out(plan, folders).usable
        assert plan.backup.name == f"depth.yaml.bak{number or ''}" and plan.backup.read_text() == text


def test_a_wrong_yaml_beside_the_download_stays_there(file: Path, folders: tuple[Path, ...]) -> None:
    file.with_suffix(".yaml").write_text(PLAIN)
    plan = plan_setup(file, folders)
    assert plan.yaml == "write"
    assert carry_out(plan, folders).usable
    assert file.with_suffix(".yaml").read_text() == PLAIN


def test_a_narrow_checkpoint_gets_a_yaml_of_its_own(tmp_path: Path, folders: tuple[Path, ...]) -> None:
    narrow = dataclasses.replace(
        sparse.FULL,
        unet={**sparse.FULL.unet, "block_out_channels": [64, 128, 256, 256], "attention_head_dim": [1, 2, 4, 4]},
    )
    file = sparse.write(tmp_path / "narrow.safetensors", narrow.required())
    report = carry_out(plan_setup(file, folders), folders)
    assert report.usable and report.sidecar is not None
    unet = yaml.safe_load(report.sidecar.path.read_text())["model"]["params"]["unet_config"]["params"]
    assert (unet["model_channels"], unet["channel_mult"]) == (64, [1, 2, 4, 4])


def test_without_midas_it_is_set_up_with_a_warning(tmp_path: Path, folders: tuple[Path, ...]) -> None:
    tensors = {name: shape for name, shape in NAMES.items() if not name.startswith(keys.DEPTH)}
    file = sparse.write(tmp_path / "bare.safetensors", tensors)
    plan = plan_setup(file, folders)
    assert "models/midas" in plan.lines()[0]
    assert [fault.code for fault in carry_out(plan, folders).faults] == ["midas-missing"]


def test_a_link_is_followed(tmp_path: Path, file: Path, folders: tuple[Path, ...]) -> None:
    """As in the cache of the Hugging Face hub, where names are links into a heap of files."""
    name = tmp_path / "snapshot.safetensors"
    name.symlink_to(file)
    carry_out(plan_setup(name, folders), folders)
    target = folders[0] / "snapshot.safetensors"
    assert not target.is_symlink() and target.samefile(file)
    with pytest.raises(CheckpointError, match="is a link"):
        plan_setup(name.rename(tmp_path / "other.safetensors"), folders, how="move")


# --- what must not happen ---------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(file: Path, folders: tuple[Path, ...], webui: Path) -> None:
    small(folders[0] / "depth.safetensors", channels=4)
    before = tree(webui)
    with pytest.raises(CheckpointError, match="There is another") as caught:
        plan_setup(file, folders)
    assert "Rename one of them" in str(caught.value) and tree(webui) == before


@pytest.mark.parametrize("change", ["checkpoint", "yaml", "gone"])
def test_a_plan_that_has_become_old_is_not_carried_out(
    file: Path, folders: tuple[Path, ...], webui: Path, change: str
) -> None:
    plan = plan_setup(file, folders)
    if change == "checkpoint":
        small(plan.target, channels=4)
    elif change == "yaml":
        plan.target.with_suffix(".yaml").write_text(PLAIN)
    else:
        file.unlink()
    before = tree(webui)
    with pytest.raises(CheckpointError):
        carry_out(plan, folders)
    assert tree(webui) == before


def test_a_file_that_appears_at_the_last_moment_wins(
    file: Path, folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_setup(file, folders)
    write = setup._write_yaml

    def late(of: SetupPlan) -> None:
        write(of)
        plan.target.write_bytes(b"somebody else's")

    monkeypatch.setattr(setup, "_write_yaml", late)
    with pytest.raises(CheckpointError, match="There is another"):
        carry_out(plan, folders)
    assert plan.target.read_bytes() == b"somebody else's"
    assert not plan.target.with_suffix(".yaml").exists()


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({FIRST: (320, 4, 3, 3)}, "not a depth checkpoint"),
        ({keys.UNET + "out.2.weight": (4, 300, 3, 3)}, "another shape"),
    ],
)
def test_what_does_not_work_is_not_set_up(
    tmp_path: Path, folders: tuple[Path, ...], webui: Path, tensors: Any, word: str
) -> None:
    file = sparse.write(tmp_path / "bad.safetensors", {**NAMES, **tensors})
    before = tree(webui)
    with pytest.raises(CheckpointError, match=word):
        plan_setup(file, folders)
    assert tree(webui) == before


def test_a_full_disk_leaves_nothing(
    file: Path, folders: tuple[Path, ...], webui: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_setup(file, folders, how="copy")
    before = tree(webui)
    with monkeypatch.context() as patch:
        patch.setattr(setup, "free_space", lambda *_: 10**6)
        with pytest.raises(CheckpointError, match="not enough room"):
            carry_out(plan, folders)
    assert tree(webui) == before

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(setup, "_copy", full)
    with pytest.raises(CheckpointError, match="No space left"):
        carry_out(plan, folders)
    assert tree(webui) == before


def test_interruption_leaves_nothing(
    file: Path, folders: tuple[Path, ...], webui: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_setup(file, folders, how="copy")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "_copy", stop)
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, folders)
    assert tree(webui) == {"webui.py": b""}


@pytest.mark.parametrize("name", ["depth.safetensors", "depth.yaml", "depth.yaml.bak"])
def test_what_a_killed_run_left_is_taken_away(file: Path, folders: tuple[Path, ...], name: str) -> None:
    child = os.fork()
    if child == 0:
        with publishing(folders[0] / name) as beside:
            beside.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert {path.suffix for path in folders[0].iterdir()} == {".lock", ".part"}
    carry_out(plan_setup(file, folders), folders)
    assert {path.name for path in folders[0].iterdir()} == {"depth.safetensors", "depth.yaml"}


def test_within_goes_by_names(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    assert setup.within(folder / "a" / "b.ckpt", [folder])
    assert not setup.within(folder / ".." / "b.ckpt", [folder])
    assert not setup.within(tmp_path / "models-of-another" / "b.ckpt", [folder])


def test_the_written_yaml_is_what_inspection_calls_right(file: Path, folders: tuple[Path, ...]) -> None:
    report = carry_out(plan_setup(file, folders), folders)
    assert inspect(report.path).faults == []


@pytest.mark.parametrize("which", ["webui", "models_dir", "ckpt_dir"])
def test_folders_that_cannot_be_looked_at(which: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be reached"):
        setup.webui_folders(**{which: Path("x" * 300)})


def test_backups_come_to_an_end(file: Path, folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "MAX_BACKUPS", 2)
    folders[0].mkdir(exist_ok=True)
    yaml = folders[0] / "depth.yaml"
    for name in ("depth.yaml", "depth.yaml.bak", "depth.yaml.bak1"):
        (folders[0] / name).write_text(PLAIN)
    with pytest.raises(CheckpointError, match="2 copies of it already"):
        plan_setup(file, folders)
    assert yaml.read_text() == PLAIN


def test_a_large_yaml_of_another_model_stays_where_the_file_was(file: Path, folders: tuple[Path, ...]) -> None:
    beside = file.with_suffix(".yaml")
    beside.write_text(PLAIN + "#" * 2_000_000)
    carry_out(plan_setup(file, folders, how="move"), folders)
    assert not file.exists() and beside.stat().st_size > 2_000_000
