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
TINY = LIBRARY / "embedded" / "depth2img-tiny.safetensors"
SCENE = LIBRARY / "embedded" / "sample" / "scene.png"

FLOORS = [
    "errors",
    "text",
    "table",
    "options",
    "io",
    "depth",
    "sharing",
    "checkpoints",
    "estimators",
    "embedded",
    "prompts",
    "diffusion",
    "gui",
    "batch",
    "cli",
    "__main__",
]
"""The library's modules and packages from the ground up: each imports only from those before it."""

CHECKPOINT_FLOORS = ["storage", "layout", "download", "inspection", "model", "parts", "conversion", "merging", "setup"]
"""The same inside `checkpoints`."""

ADAPTER_FLOORS = ["errors", "hosts", "settings", "estimators", "infotext", "xyz", "jobs", "page", "api", "script"]
"""The same inside `depth2img_webui`."""

NODE_FLOORS = [
    "widgets",
    "depth_batch",
    "applied",
    "sampling",
    "networks",
    "estimators",
    "load_nodes",
    "depth_nodes",
    "apply_node",
    "nodes",
]
"""The same inside `depth2img_comfy`."""

ROOMS = {
    "gradio": {"gui"},
    "diffusers": {"diffusion"},
    "transformers": {"diffusion", "checkpoints", "estimators"},
    "ray": {"batch"},
    "timm": {"estimators"},
    "click": {"cli"},
    "lark": {"prompts"},
    "huggingface_hub": {"io"},
    "OpenEXR": {"depth"},
    "tifffile": {"depth"},
    "imagecodecs": {"depth"},
    "pillow_heif": {"io"},
    "pillow_avif": {"io"},
    "av": {"sharing"},
    "filelock": {"checkpoints", "io"},
    "requests": {"checkpoints"},
    "urllib3": {"checkpoints"},
}
"""Optional package -> where in the library it may be imported."""

NOWHERE = {
    "modules",
    "modules_forge",
    "launch",
    "ldm",
    "comfy",
    "folder_paths",
    "depth2img_comfy",
    "depth2img_webui",
    "skimage",
    "matplotlib",
    "torchvision",
}
"""Modules that the library never imports."""

COMMANDS = ("estimate", "generate", "compare", "app", "demo")

HEAVY = {*ROOMS, *NOWHERE, "fastapi", "omegaconf", "pandas", "pytorch_lightning", "scipy"}
"""Modules that `import depth2img` must not bring in, directly or through others."""


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


def others(names: str) -> set[str]:
    """The packages among modules' names that are neither Python's nor ours."""
    packages = {name.partition(".")[0] for name in names.split()}
    # An environment may start itself with packages of its own, which a bare interpreter shows.
    own = run("import sys; print(*sys.modules)")
    return packages - set(sys.stdlib_module_names) - {name.partition(".")[0] for name in own.split()} - {"depth2img"}


def loaded_by(*arguments: str) -> set[str]:
    """Names of all modules that the command line has imported when it ends."""
    loaded = run(
        "import sys\n"
        f"sys.argv = ['depth2img', *{arguments!r}]\n"
        "from depth2img.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n', *sys.modules)"
    )
    return set(loaded.splitlines()[-1].split())


def test_importing_the_library_brings_in_python_alone():
    assert others(run("import sys, depth2img; print(*sys.modules)")) == set()


def test_every_public_name_can_be_used():
    names = run("import depth2img; print(*[name for name in depth2img.__all__ if hasattr(depth2img, name)])").split()
    assert "adjust" in names and "Engine" in names and len(names) > 20


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS), ["generate"]])
def test_the_command_lines_help_brings_in_click_alone(arguments: list[str]):
    """So does parsing: the last one is refused for want of a picture."""
    assert others(" ".join(loaded_by(*arguments))) <= {"click", "colorama"}


def test_inspecting_a_checkpoint_does_not_import_torch():
    """Nor OpenCV, nor anything that generates."""
    loaded = {name.partition(".")[0] for name in loaded_by("checkpoint", "inspect", str(TINY))}
    assert {"safetensors", "yaml"} <= loaded
    assert not loaded & {"torch", "cv2", "PIL", *HEAVY - {"click", "filelock"}}


def test_estimating_with_the_bundled_model_imports_no_engine(tmp_path: Path):
    loaded = {name.partition(".")[0] for name in loaded_by("estimate", str(SCENE), "-o", str(tmp_path / "map.png"))}
    assert (tmp_path / "map.png").is_file() and "torch" in loaded
    assert not loaded & (HEAVY - {"click", "filelock"})


def test_the_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "depth2img", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "version" in done.stdout


def test_importing_writes_nothing_and_warns_of_nothing():
    assert run("import warnings; warnings.simplefilter('error'); import depth2img") == ""


def graph(*folders: str) -> dict[str, set[str]]:
    """Module -> the modules of these folders that it imports."""
    paths = {dotted(path): path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}
    return {name: {found for found in imported(path) if found in paths} - {name} for name, path in paths.items()}


def dotted(path: Path) -> str:
    """The module's name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def violations(imports: dict[str, set[str]], package: str, floors: list[str]) -> list[str]:
    """Imports inside a package that go up a floor, and modules that are on none."""
    found = []
    for name, others in imports.items():
        inside = name.removeprefix(package + ".").partition(".")[0]
        if name == package or not name.startswith(package + "."):
            continue
        if inside not in floors:
            found.append(f"{name} is on no floor")
            continue
        below = floors[: floors.index(inside) + 1]
        for other in others:
            there = other.removeprefix(package + ".").partition(".")[0]
            if other != package and other.startswith(package + ".") and there not in below:
                found.append(f"{name} imports {other}")
    return found


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty without one."""
    left = {name: set(others) for name, others in imports.items()}
    while True:
        free = {name for name, others in left.items() if not others & left.keys()}
        if not free:
            return sorted(left)
        left = {name: others for name, others in left.items() if name not in free}


@pytest.mark.parametrize(
    ("package", "floors"),
    [
        ("depth2img", FLOORS),
        ("depth2img.checkpoints", CHECKPOINT_FLOORS),
        ("depth2img_webui", ADAPTER_FLOORS),
        ("depth2img_comfy", NODE_FLOORS),
    ],
    ids=["library", "checkpoints", "adapter", "nodes"],
)
def test_a_package_imports_only_from_those_below(package, floors):
    assert violations(graph(package.partition(".")[0]), package, floors) == []


@pytest.mark.parametrize("folder", ["depth2img", "depth2img_comfy", "depth2img_webui", "tools"])
def test_no_modules_import_each_other_in_a_circle(folder):
    imports = graph(folder)
    packages = {name for name in imports if (ROOT / name.replace(".", "/")).is_dir()}
    # A package's own `__init__` names what is in it; a module that imports it imports what it names.
    assert circle({name: others - packages for name, others in imports.items() if name not in packages}) == []


def test_the_rules_can_fail():
    imports = {"a.low": {"a.high"}, "a.high": {"a.low"}, "a.new": set(), "a": {"a.low"}}
    assert violations(imports, "a", ["low", "high"]) == ["a.low imports a.high", "a.new is on no floor"]
    assert circle(imports) == ["a", "a.high", "a.low"]
    assert circle({"a": {"b"}, "b": set()}) == []


def test_no_module_is_shadowed():
    """`import depth2img.conditioning` must not mean a function."""
    for path in sorted(ROOT.glob("depth2img*/**/__init__.py")):
        names = {
            alias.asname or alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        modules = {child.stem for child in path.parent.glob("*.py")} | {
            p.parent.name for p in path.parent.glob("*/__init__.py")
        }
        assert not names & modules, f"{path.relative_to(ROOT)} shadows {names & modules}"


def test_few_modules_lie_at_the_top():
    assert len(list(LIBRARY.glob("*.py"))) <= 10


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_rooms(path):
    for dotted in imported(path):
        package = dotted.partition(".")[0]
        assert package not in NOWHERE, f"{dotted} has no place in the library"
        assert room(path) in ROOMS.get(package, {room(path)}), f"{package} belongs into {ROOMS[package]}"


def test_the_rule_sees_imports():
    """The checks above must not pass because nothing was found."""
    found = {dotted for path in files() for dotted in imported(path)}
    assert {"torch", "cv2", "depth2img.io.images", "depth2img.depth.depth_map", "depth2img.errors.OptionError"} <= found


def test_the_nodes_import_the_library_and_their_host_alone():
    allowed = {"depth2img", "depth2img_comfy", "comfy", "folder_paths", "torch", "numpy", "cv2"}
    for path in sorted((ROOT / "depth2img_comfy").rglob("*.py")):
        found = {dotted.partition(".")[0] for dotted in imported(path)} - set(sys.stdlib_module_names)
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {found - allowed}"


def test_importing_the_nodes_brings_in_neither_gradio_nor_the_adapter_nor_the_host():
    """Also as ComfyUI does it: by the file of the folder, under a name of its own."""
    loaded = run(
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('custom_x_nodes', '__init__.py')\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['custom_x_nodes'] = module\n"
        "spec.loader.exec_module(module)\n"
        "assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys() != set()\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    names = set(loaded.split())
    assert {"depth2img", "depth2img_comfy", "torch"} <= names
    assert not names & {"gradio", "depth2img_webui", "modules", "comfy", "folder_paths", "diffusers", "transformers"}


def test_the_library_is_typed():
    assert (LIBRARY / "py.typed").exists()


def test_only_the_adapter_imports_the_host():
    for folder in ("depth2img", "tools", "benchmarks", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            hosts = {dotted for dotted in imported(path) if dotted.partition(".")[0] == "modules"}
            assert not hosts, f"{path.relative_to(ROOT)} imports {hosts}"
