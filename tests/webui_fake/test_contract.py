"""The stand-in and the adapter against the source of the real host: names, parameters, attributes, elements.

What the adapter takes from the host must be in the stand-in; that needs no host. The other tests read the files of the
WebUI that WEBUI_DIR names, without running them: any version must have what the adapter takes without asking first, and
the stand-in is that of one version.
"""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from depth2img.depth import placement
from tests.webui_fake.standin import ROOT, STAND_IN, Host

ADAPTER = sorted((ROOT / "depth2img_webui").rglob("*.py"))
FILES = sorted(path.relative_to(STAND_IN) for path in STAND_IN.rglob("*.py") if path.name != "__init__.py")
WEBUI = os.environ.get("WEBUI_DIR")
real = pytest.mark.skipif(WEBUI is None, reason="compares with the real WebUI: set WEBUI_DIR (CONTRIBUTING.md)")
VERSION = "1.10.1"
of_the_stand_in = pytest.mark.skipif(
    WEBUI is not None and not (Path(WEBUI) / "CHANGELOG.md").read_text(encoding="utf8").startswith(f"## {VERSION}\n"),
    reason=f"the stand-in is that of WebUI {VERSION}",
)

OBJECTS = {
    "p": ("modules/processing.py", ("StableDiffusionProcessingTxt2Img", "StableDiffusionProcessingImg2Img")),
    "processed": ("modules/processing.py", ("Processed",)),
    "params": ("modules/script_callbacks.py", ("CFGDenoiserParams",)),
    "denoiser": ("modules/sd_samplers_cfg_denoiser.py", ("CFGDenoiser",)),
    "sampler": ("modules/sd_samplers_common.py", ("Sampler",)),
    "sd_checkpoint_info": ("modules/sd_models.py", ("CheckpointInfo",)),
    "model_data": ("modules/sd_models.py", ("SdModelData",)),
    "model_hijack": ("modules/sd_hijack.py", ("StableDiffusionModelHijack",)),
}
"""Meaning of these names in the adapter, also as attributes: `params.denoiser` is a denoiser."""


@functools.cache
def tree(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the host's source
        return ast.parse(path.read_text(encoding="utf8"))


def hosts_file(name: Path | str) -> Path:
    """A file of the real host; `ldm` is one of its repositories."""
    assert WEBUI is not None
    below = Path(WEBUI) / "repositories" / "stable-diffusion-stability-ai"
    return (below if Path(name).parts[0] == "ldm" else Path(WEBUI)) / name


def hosts_texts(pattern: str) -> str:
    assert WEBUI is not None
    return "\n".join(path.read_text(encoding="utf8") for path in sorted(Path(WEBUI).glob(pattern)))


def bound(statements: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """(name, statement) of all that a body of statements binds, under `if` and `try` too."""
    for node in statements:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not any(isinstance(mark, ast.Attribute) and mark.attr == "setter" for mark in node.decorator_list):
                yield node.name, node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target)]
            yield from ((name.id, node) for name in names if isinstance(name, ast.Name))
        for part in ("body", "orelse", "handlers", "finalbody"):
            inner = getattr(node, part, [])
            if isinstance(node, (ast.If, ast.Try)) and isinstance(inner, list):
                yield from bound([line for one in inner for line in getattr(one, "body", [one])])


def last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def names_of(path: Path) -> dict[str, ast.stmt]:
    return dict(bound(tree(path).body))


def attributes_of(path: Path, kind: str) -> dict[str, ast.AST]:
    """Name -> where it is bound: in the class, on `self` in its methods, or in a base class of the same file."""
    node = names_of(path).get(kind)
    assert isinstance(node, ast.ClassDef), f"{path.name} has no class {kind}"
    found: dict[str, ast.AST] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and isinstance(names_of(path).get(base.id), ast.ClassDef):
            found |= attributes_of(path, base.id)
    return found | own_attributes(node)


def own_attributes(kind: ast.ClassDef) -> dict[str, ast.AST]:
    stored = (node for node in ast.walk(kind) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {node.attr: node for node in stored if last_name(node.value) == "self"} | dict(bound(kind.body))


def parameters(function: ast.FunctionDef) -> list[tuple[str, str, bool]]:
    """(kind, name, whether there is a default) of each parameter."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    with_default = len(positional) - len(args.defaults)
    found = [("positional", arg.arg, index >= with_default) for index, arg in enumerate(positional)]
    found += [("star", args.vararg.arg, False)] if args.vararg else []
    named = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    found += [("keyword", arg.arg, default is not None) for arg, default in named]
    return found + ([("stars", args.kwarg.arg, False)] if args.kwarg else [])


def is_ours(name: str) -> bool:
    """Tell whether a name is the stand-in's own, without a counterpart in the host."""
    return name.lower().startswith("fake") or name == "__getattr__"


def definitions(path: Path) -> list[str]:
    """`function`, `name`, `Class`, `Class.method`, `Class.attribute` of a file of the stand-in."""
    found = []
    for name, node in names_of(path).items():
        if is_ours(name) or isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        found.append(name)
        if isinstance(node, ast.ClassDef):
            found += [f"{name}.{attribute}" for attribute in own_attributes(node) if not is_ours(attribute)]
    return found


def look_up(path: Path, name: str) -> ast.AST | None:
    kind, _, attribute = name.partition(".")
    if not attribute:
        return names_of(path).get(kind)
    return attributes_of(path, kind).get(attribute)


EVERYTHING = [(file, name) for file in FILES for name in definitions(STAND_IN / file)]


@real
@of_the_stand_in
@pytest.mark.parametrize("file", FILES, ids=str)
def test_names_of_the_stand_in_are_the_hosts(file: Path) -> None:
    missing = [name for other, name in EVERYTHING if other == file and look_up(hosts_file(file), name) is None]
    assert missing == []


@real
@of_the_stand_in
@pytest.mark.parametrize("file", FILES, ids=str)
def test_parameters_of_the_stand_in_are_the_hosts(file: Path) -> None:
    different = {}
    for other, name in EVERYTHING:
        node = look_up(STAND_IN / file, name) if other == file else None
        if isinstance(node, ast.FunctionDef):
            theirs = look_up(hosts_file(file), name)
            if not isinstance(theirs, ast.FunctionDef) or parameters(theirs) != parameters(node):
                different[name] = parameters(theirs) if isinstance(theirs, ast.FunctionDef) else theirs
    assert different == {}


def host_imports(path: Path) -> dict[str, str]:
    """Local name -> module of the host, of one file of the adapter."""
    found: dict[str, str] = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "modules":
            found |= {alias.asname or alias.name: f"modules/{alias.name}.py" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {
                alias.asname: alias.name.replace(".", "/") + ".py"
                for alias in node.names
                if alias.asname and alias.name.startswith("ldm.")
            }
    return found


def reads(path: Path, *, asking: bool = True) -> Iterator[tuple[str, str]]:
    """(last name before the dot, attribute), `getattr`, `hasattr` and `compat.setting` with a literal included.

    Without `asking`, only what is read without a value in its place.
    """
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            yield last_name(node.value), node.attr
        if isinstance(node, ast.Call) and last_name(node.func) in ("getattr", "hasattr"):
            literal = node.args[1]
            if asking or (last_name(node.func) == "getattr" and len(node.args) == 2):
                yield last_name(node.args[0]), literal.value if isinstance(literal, ast.Constant) else "_"
        if asking and isinstance(node, ast.Call) and last_name(node.func) == "setting":
            literal = node.args[0]
            yield "opts", literal.value if isinstance(literal, ast.Constant) else "_"


def taken_from_the_host(*, asking: bool = True) -> list[tuple[str, str]]:
    """(file, name) of all module-level names of the host that the adapter uses."""
    found = set()
    for path in ADAPTER:
        modules = host_imports(path)
        named = reads(path, asking=asking)
        found |= {(modules[root], name) for root, name in named if root in modules and name != "_"}
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ldm":
                found |= {(node.module.replace(".", "/") + ".py", alias.name) for alias in node.names}
    return sorted(found)


def read_from_objects(*, asking: bool = True) -> list[tuple[str, str]]:
    """(kind of object, attribute) that the adapter reads or sets on the host's objects."""
    found = {pair for path in ADAPTER for pair in reads(path, asking=asking) if pair[0] in OBJECTS}
    return sorted(pair for pair in found if not pair[1].startswith("_"))


def settings_read(*, asking: bool = True) -> list[str]:
    found = {name for path in ADAPTER for root, name in reads(path, asking=asking) if root == "opts"}
    return sorted(found - {"add_option", "data", "data_labels", "_"})


def defined(path: Path, name: str) -> bool:
    return name in names_of(path) or (name == "sd_model" and "__getattr__" in names_of(path))


def test_the_adapter_uses_the_host_at_all() -> None:
    """Else the tests below could not fail."""
    assert ("modules/sd_models.py", "model_data") in taken_from_the_host()
    assert ("ldm/modules/midas/api.py", "ISL_PATHS") in taken_from_the_host()
    some = {("p", "paste_to"), ("denoiser", "total_steps"), ("sampler", "sampler_extra_args")}
    assert some <= set(read_from_objects())
    assert {"return_mask", "skip_early_cond"} <= set(settings_read())
    assert len(EVERYTHING) > 100


@pytest.mark.parametrize(("file", "name"), taken_from_the_host())
def test_what_the_adapter_takes_is_in_the_stand_in(file: str, name: str) -> None:
    assert defined(STAND_IN / file, name)


@pytest.mark.parametrize(("kind", "name"), read_from_objects())
def test_what_the_adapter_reads_is_in_the_stand_in(kind: str, name: str) -> None:
    file, classes = OBJECTS[kind]
    assert any(name in attributes_of(STAND_IN / file, one) for one in classes)


@real
@pytest.mark.parametrize(("file", "name"), taken_from_the_host(asking=False))
def test_what_the_adapter_takes_is_in_the_host(file: str, name: str) -> None:
    assert defined(hosts_file(file), name)


@real
@pytest.mark.parametrize(("kind", "name"), read_from_objects(asking=False))
def test_what_the_adapter_reads_is_in_the_host(kind: str, name: str) -> None:
    file, classes = OBJECTS[kind]
    assert any(name in attributes_of(hosts_file(file), one) for one in classes)


def settings_of_the_host() -> set[str]:
    return set(re.findall(r"""["'](\w+)["']: OptionInfo""", hosts_texts("modules/shared_options.py")))


@real
def test_settings() -> None:
    assert set(settings_read(asking=False)) <= settings_of_the_host()


@real
@of_the_stand_in
def test_settings_of_the_stand_in() -> None:
    ours = re.findall(r'^    "(\w+)"', (STAND_IN / "modules" / "shared_options.py").read_text(), re.MULTILINE)
    assert set(settings_read()) <= {*ours, *settings_read(asking=False)}
    assert ours and {*ours, *settings_read()} <= settings_of_the_host()


@real
def test_elements_of_the_page(bare: Host) -> None:
    """Their ids, and the order of the five picture components, which is that of the tabs."""
    text = hosts_texts("modules/ui*.py")
    names = [name for ids in bare.ours("page.wiring").HOST_IDS.values() for name in ids]
    assert [name for name in names if not re.search(rf"""elem_id=["']{name}["']""", text)] == []
    assert "elem_id=f'generation_info_{tabname}'" in text
    tabs = [text.index(f'elem_id="{name}"') for name in bare.ours("page.canvas").TABS]
    assert tabs == sorted(tabs)
    assert repr([mode.label for mode in placement.ResizeMode]).replace("'", '"') in text
    assert '"Use same checkpoint"' in text


@real
def test_javascript_of_the_page(bare: Host) -> None:
    text = hosts_texts("javascript/*.js") + hosts_texts("script.js")
    ours = sorted(path for path in (ROOT / "javascript").rglob("*.*js") if "node_modules" not in path.parts)
    used = "\n".join(path.read_text(encoding="utf8") for path in ours) + bare.ours("page.wiring").COLLECT
    known = [name for name in ("gradioApp", "onUiLoaded", "onOptionsChanged", "get_tab_index") if name in used]
    assert "get_tab_index" in known
    for name in known:
        assert re.search(rf"function {name}\(", text)
    page = hosts_texts("modules/ui*.py")
    for name in re.findall(r"(?:get_tab_index|getElementById)\('(\w+)'\)", used):
        assert re.search(rf"""elem_id=["']{name}["']""", page)


@real
def test_the_api_reads_status_and_detail_from_the_error() -> None:
    """From the instance's own attributes, as `errors.for_client` sets them."""
    (handler,) = [
        node
        for node in ast.walk(tree(hosts_file("modules/api/api.py")))
        if isinstance(node, ast.FunctionDef) and node.name == "handle_exception"
    ]
    keys = {
        call.args[0].value
        for call in ast.walk(handler)
        if isinstance(call, ast.Call) and last_name(call.func) == "get" and isinstance(call.args[0], ast.Constant)
    }
    assert {"status_code", "detail"} <= keys


@real
def test_keys_of_the_samplers_arguments() -> None:
    text = hosts_texts("modules/sd_samplers_*.py")
    assert text.count("self.sampler_extra_args = {") >= 4
    for key in ("cond", "image_cond", "s_min_uncond"):
        assert text.count(f"'{key}':") >= 4
    assert "batch" in attributes_of(hosts_file("modules/prompt_parser.py"), "MulticondLearnedConditioning")


def mentions(node: ast.AST, attribute: str) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == attribute for part in ast.walk(node))


def evaluate(expression: ast.expr, **names: Any) -> Any:
    """A single expression of the host's source."""
    return eval(compile(ast.Expression(expression), "the host", "eval"), names)


@real
@of_the_stand_in
def test_the_rule_for_skipped_rows(bare: Host) -> None:
    """`a1111.skips_uncond` predicts it: against the host's own conditions."""
    forward = attributes_of(hosts_file("modules/sd_samplers_cfg_denoiser.py"), "CFGDenoiser")["forward"]
    (rule,) = [
        node for node in ast.walk(forward) if isinstance(node, ast.If) and mentions(node.test, "skip_early_cond")
    ]
    (otherwise,) = rule.orelse
    assert isinstance(otherwise, ast.If) and otherwise.orelse == []
    opts = bare.shared.opts
    seen = set()
    for early, every, limit in itertools.product([0.0, 0.3], [False, True], [0.0, 2.0]):
        opts.skip_early_cond, opts.s_min_uncond_all = early, every
        for step, sigma in itertools.product(range(6), [0.5, 2.0, 9.0]):
            sampler = SimpleNamespace(sampler_extra_args={"s_min_uncond": limit})
            denoiser = SimpleNamespace(step=step, total_steps=6, sampler=sampler)
            sigmas = torch.tensor([sigma, sigma])
            names = {"self": denoiser, "shared": bare.shared, "sigma": sigmas, "s_min_uncond": limit}
            theirs = any(evaluate(test, is_edit_model=False, **names) for test in (rule.test, otherwise.test))
            assert bare.ours("hosts.a1111").skips_uncond(denoiser, sigmas) == theirs
            seen.add(bool(theirs))
    assert seen == {True, False}


@real
def test_the_cut_of_a_hires_latent(bare: Host) -> None:
    """`denoise.truncated` repeats it: against the host's own slice."""
    path = hosts_file("modules/processing.py")
    sample = attributes_of(path, "StableDiffusionProcessingTxt2Img")["sample_hr_pass"]
    (cut,) = [node for node in ast.walk(sample) if isinstance(node, ast.Assign) and mentions(node, "truncate_y")]
    latent = torch.arange(2 * 4 * 16 * 24.0).reshape(2, 4, 16, 24)
    for x, y in itertools.product([0, 1, 4, 7], repeat=2):
        p = SimpleNamespace(truncate_x=x, truncate_y=y)
        theirs = evaluate(cut.value, self=p, samples=latent)
        assert torch.equal(bare.ours("jobs.denoise").truncated(p, latent, theirs), theirs)
