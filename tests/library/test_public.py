"""The public names: listed, documented, and nothing else."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import depth2img

ROOT = Path(__file__).parents[2]

# The engine needs an extra; that its names are listed is checked everywhere.
NEED_DIFFUSERS = {"Engine", "Generated", "Job"}


def test_what_is_public_is_listed():
    here = {name for name, value in vars(depth2img).items() if not isinstance(value, types.ModuleType)}
    imports = {"Any", "Final", "TYPE_CHECKING", "annotations"}
    assert {name for name in here | depth2img._LAZY.keys() if name[0] != "_"} - imports == set(depth2img.__all__)
    assert set(depth2img.__all__) <= set(dir(depth2img))


@pytest.mark.parametrize("name", depth2img.__all__)
def test_every_public_name_is_documented(name: str):
    if name in NEED_DIFFUSERS:
        pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    value = getattr(depth2img, name)
    if name != "OPTIONS":
        assert inspect.getdoc(value)
        assert value.__module__.startswith("depth2img.")
        members = vars(value).items() if inspect.isclass(value) else ()
        for member, function in members:
            if not member.startswith("_") and inspect.isfunction(function):
                assert inspect.getdoc(function), f"{name}.{member}"


def test_nothing_else_is_there():
    with pytest.raises(AttributeError, match="'depth2img' has no attribute 'Engines'"):
        depth2img.Engines  # noqa: B018


def test_the_engine_is_imported_when_it_is_asked_for():
    code = (
        "import sys, depth2img\n"
        "before = 'torch' in sys.modules\n"
        "from depth2img import Engine\n"
        "print(before, 'torch' in sys.modules, 'diffusers' in sys.modules, Engine.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True", "False", "depth2img.diffusion.engine"]
