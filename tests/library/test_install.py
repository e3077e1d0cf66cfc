"""install.py, run with a stand-in for the host's `launch`."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

INSTALL = Path(__file__).parents[2] / "install.py"


class Launch:
    """`launch` of WebUI 1.10.1 as far as an installer sees it (modules/launch_utils.py)."""

    def __init__(self, *present: str, skip_install: bool = False, broken: str = "") -> None:
        self.args = SimpleNamespace(skip_install=skip_install)
        self._present, self._broken = set(present), broken
        self.asked: list[str] = []
        self.commands: list[str] = []

    def is_installed(self, package: str) -> bool:
        self.asked.append(package)
        return package in self._present

    def run_pip(self, command: str, desc: str | None = None, live: bool = False) -> str | None:
        if self.args.skip_install:
            return None
        self.commands.append(command)
        if self._broken and self._broken in command:
            raise RuntimeError(f"Couldn't install {desc}.\nError code: 1")
        return ""


def run(launch: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of `python install.py`; None for `launch` means there is none."""
    monkeypatch.setitem(sys.modules, "launch", launch)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(INSTALL), run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code


ALL = ("cv2", "OpenEXR", "omegaconf", "safetensors", "tifffile", "timm")


def test_nothing_is_missing(monkeypatch):
    launch = Launch(*ALL)
    assert run(launch, monkeypatch) == 0
    assert launch.commands == []
    assert sorted(launch.asked) == sorted(ALL)


@pytest.mark.parametrize("missing", ALL)
def test_only_what_is_missing_is_added_and_nothing_with_it(monkeypatch, missing):
    launch = Launch(*(name for name in ALL if name != missing))
    assert run(launch, monkeypatch) == 0
    (command,) = launch.commands
    package = "opencv-python-headless" if missing == "cv2" else missing
    assert re.fullmatch(rf'install --no-deps "{package}[^"]+"', command)


def test_never_moves_a_package(monkeypatch):
    launch = Launch()
    assert run(launch, monkeypatch) == 0
    assert len(launch.commands) == len(ALL)
    for command in launch.commands:
        assert "--no-deps" in command
        assert "--upgrade" not in command
        assert " -U" not in command
        assert "reinstall" not in command


def test_requirements_fit_the_host(monkeypatch):
    """numpy 1.26 and torch 2.1 stay; OpenCV 4.12 would want numpy 2."""
    launch = Launch()
    run(launch, monkeypatch)
    (opencv,) = [command for command in launch.commands if "opencv" in command]
    assert "<4.12" in opencv


def test_skip_install(monkeypatch):
    launch = Launch(skip_install=True)
    assert run(launch, monkeypatch) == 0
    assert launch.commands == []


def test_a_failure_is_told_and_the_rest_goes_on(monkeypatch, capsys):
    launch = Launch(broken="omegaconf")
    assert run(launch, monkeypatch) == 1
    assert len(launch.commands) == len(ALL)
    shown = capsys.readouterr().out
    assert "Couldn't install omegaconf for Depth to image" in shown
    assert f'"{sys.executable}" -m pip install --no-deps "omegaconf' in shown


def test_by_hand_with_everything_there(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert run(None, monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "need not be run by hand" in shown
    assert "Nothing is missing" in shown


def test_by_hand_with_something_missing(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else object())
    assert run(None, monkeypatch) == 1
    shown = capsys.readouterr().out
    assert re.search(r'-m pip install --no-deps "timm[^"]*"$', shown.strip())
    assert "omegaconf" not in shown


def test_a_host_that_is_itself_broken_is_not_taken_for_by_hand(monkeypatch, tmp_path):
    (tmp_path / "launch.py").write_text("import something_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "launch", raising=False)
    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        runpy.run_path(str(INSTALL), run_name="__main__")


def test_comfyui_manager_runs_it_in_vain(monkeypatch, capsys):
    """It counts another exit code than 0 as a failed installation."""
    monkeypatch.setenv("COMFYUI_PATH", "ComfyUI")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(None, monkeypatch) == 0
    assert "requirements.txt" in capsys.readouterr().out


def test_what_comfyui_installs_is_what_the_library_needs():
    dependencies = INSTALL.with_name("pyproject.toml").read_text(encoding="utf-8")
    listed = INSTALL.with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {re.split(r"[<>=]", line)[0] for line in listed if not line.startswith("#")}
    # ComfyUI's own requirements.txt brings these; requests and click are for downloads and the command line.
    there = {"numpy", "Pillow", "PyYAML", "safetensors", "torch", "requests", "click"}
    block = dependencies.split("\ndependencies = [")[1].split("]")[0]
    needed = re.findall(r'"([^"]+)"', block)
    # Of what other depth models need, ComfyUI brings transformers and the hub's client.
    needed += re.findall(r'"(timm[^"]+)"', dependencies.split("\nestimators = [")[1].split("]")[0])
    assert {re.split(r"[<>=]", line)[0] for line in needed} == names | there
    assert {line for line in listed if not line.startswith("#")} <= set(needed)
