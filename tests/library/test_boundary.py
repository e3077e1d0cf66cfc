"""The library brings in nothing of the WebUI, and its modules import in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "depth2img"

ORDER = [
    "errors",
    "options",
    "images",
    "files",
    "png",
    "depth_map",
    "estimators",
    "adjust",
    "geometry",
    "cache",
    "conditioning",
    "schedule",
]
"""The way through the house. A module imports only from those before it; everything else is a room beside it."""

ROOMS = {
    "gradio": {"panel", "panel_checkpoint", "panel_fetch", "app"},
    "diffusers": {"diffusion"},
    "transformers": {"diffusion", "checkpoints", "depth_models"},
    "ray": {"batch"},
    "typer": {"cli", "flags", "commands"},
    "click": {"cli", "flags", "commands"},
    "rich": {"cli", "flags", "commands"},
    "huggingface_hub": {"hub"},
    "filelock": {"checkpoints"},
    "requests": {"checkpoints"},
    "urllib3": {"checkpoints"},
}
"""Optional package -> where in the library it may be imported."""

NOWHERE = {
    "modules",
    "modules_forge",
    "launch",
    "ldm",
    "depth2img_webui",
    "skimage",
    "matplotlib",
    "timm",
    "torchvision",
}
"""What the library never imports."""

COMMANDS = ("estimate", "generate", "compare", "app", "demo")

HEAVY = {*ROOMS, *NOWHERE, "fastapi", "omegaconf", "pandas", "pytorch_lightning", "scipy"}
"""What `import depth2img` must not bring in, directly or through others."""


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all imports of a file, wherever they stand; relative ones made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def files() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def room(path: Path) -> str:
    """First part below depth2img: a module's name or a package's."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_library_brings_in_nothing_heavy():
    loaded = set(run("import sys, depth2img; print(*{name.partition('.')[0] for name in sys.modules})").split())
    assert {"depth2img", "numpy", "cv2", "PIL"} <= loaded
    assert not loaded & {*HEAVY, "torch", "yaml", "safetensors"}


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS), ["generate"]])
def test_the_command_lines_help_brings_in_nothing_heavy(arguments: list[str]):
    """Neither does parsing: the last one is refused for want of a picture."""
    loaded = run(
        "import sys\n"
        f"sys.argv = ['depth2img', *{arguments!r}]\n"
        "from depth2img.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n', *{name.partition('.')[0] for name in sys.modules})"
    )
    names = set(loaded.splitlines()[-1].split())
    assert {"depth2img", "click"} <= names
    assert not names & {*HEAVY - {"click", "typer", "rich"}, "torch", "yaml", "safetensors"}


def test_each_module_of_the_way_can_be_imported_first():
    """No circle of imports that happens to work in one order."""
    names = [name for name in ORDER if (LIBRARY / f"{name}.py").exists()]
    assert (
        run(
            "import sys, importlib\n"
            f"for name in {names!r}:\n"
            "    for loaded in [n for n in sys.modules if n.startswith('depth2img')]: del sys.modules[loaded]\n"
            "    importlib.import_module('depth2img.' + name)\n"
            "print('done')"
        )
        == "done"
    )


def test_importing_writes_nothing_and_warns_of_nothing():
    assert run("import warnings; warnings.simplefilter('error'); import depth2img") == ""


@pytest.mark.parametrize("name", ORDER)
def test_direction(name):
    path = LIBRARY / f"{name}.py"
    if not path.exists():
        assert name == "schedule", f"{name}.py is gone: take it out of ORDER"
        return
    allowed = set(ORDER[: ORDER.index(name)])
    inner = {dotted.split(".")[1] for dotted in imported(path) if dotted.startswith("depth2img.")}
    assert inner <= allowed, f"{name}.py imports from its right"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_rooms(path):
    for dotted in imported(path):
        package = dotted.partition(".")[0]
        assert package not in NOWHERE, f"{dotted} has no place in the library"
        assert room(path) in ROOMS.get(package, {room(path)}), f"{package} belongs into {ROOMS[package]}"


def test_the_rule_sees_imports():
    """The checks above must not pass because nothing was found."""
    found = {dotted for path in files() for dotted in imported(path)}
    assert {"torch", "cv2", "depth2img.images", "depth2img.depth_map", "depth2img.errors.OptionError"} <= found


def test_the_library_is_typed():
    assert (LIBRARY / "py.typed").exists()


def test_only_the_adapter_imports_the_host():
    for folder in ("depth2img", "tools", "benchmarks", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            hosts = {dotted for dotted in imported(path) if dotted.partition(".")[0] == "modules"}
            assert not hosts, f"{path.relative_to(ROOT)} imports {hosts}"
