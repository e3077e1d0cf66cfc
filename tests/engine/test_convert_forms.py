"""Converting from every form that a fine-tuning comes in, in half precision, with MiDaS from elsewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import carry_out, convert, inspect, merge, open_midas, open_model, plan_setup, to_folder
from depth2img.checkpoints.storage import reading
from depth2img.cli.root import app
from depth2img.errors import CheckpointError
from depth2img.io.atomic import remove_stale, replacing
from tests.engine import small
from tests.engine.test_convert import same

DEPTH = "depth_model."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in diffusers' layout; read only."""
    path = tmp_path_factory.mktemp("source") / "folder"
    to_folder(small.model(), path)
    return path


@pytest.fixture(scope="module")
def single(folder: Path) -> Path:
    """The same as one file; read only."""
    path = folder.parent / "single.safetensors"
    convert(folder, path)
    return path


def save_as(folder: Path, target: Path, **how: Any) -> Path:
    """The folder again, its weights written by diffusers and transformers themselves."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, DPTForDepthEstimation

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    for kind, name in (
        (UNet2DConditionModel, "unet"),
        (AutoencoderKL, "vae"),
        (CLIPTextModel, "text_encoder"),
        (DPTForDepthEstimation, "depth_estimator"),
    ):
        network = kind.from_pretrained(folder / name)
        network = network.half() if how.get("variant") == "fp16" else network
        network.save_pretrained(target / name, **how)
    return target


@pytest.mark.filterwarnings("ignore:.*safe_serialization:UserWarning")
@pytest.mark.parametrize(
    "how",
    [
        {"safe_serialization": False},
        {"max_shard_size": "3MB"},
        {"max_shard_size": "3MB", "safe_serialization": False},
        {"variant": "fp16"},
        {"variant": "fp16", "max_shard_size": "1MB"},
        {"variant": "fp16", "safe_serialization": False},
    ],
    ids=lambda how: " ".join(map(str, how.values())),
)
def test_every_form_that_diffusers_writes(folder: Path, single: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    source = save_as(folder, tmp_path / "model", **how)
    names = [path.name for path in (source / "unet").iterdir()]
    assert ("max_shard_size" in how) == any(".index." in name for name in names)
    assert any(name.endswith(".safetensors") for name in names) == how.get("safe_serialization", True)
    convert(source, tmp_path / "file.safetensors")
    wanted = load_file(single)
    if how.get("variant") == "fp16":
        recreated = {key for key in wanted if not key.startswith(("model.", "first_", "cond_", DEPTH))}
        wanted = {key: value if key in recreated else value.half() for key, value in wanted.items()}
    assert same(load_file(tmp_path / "file.safetensors"), wanted)


def test_hostile_index_reaches_no_file_outside(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    part = tmp_path / "model" / "vae"
    (part / "diffusion_pytorch_model.safetensors").rename(tmp_path / "outside.safetensors")
    index = part / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match="There is no file outside"):
        open_model(tmp_path / "model")
    for text in ("{}", '{"weight_map": []}', '{"weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(CheckpointError, match="names no files"):
            open_model(tmp_path / "model")


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["half.safetensors", "half"])
def test_half_rounds_the_networks_and_nothing_else(single: Path, tmp_path: Path, target: str) -> None:
    convert(single, tmp_path / target, half=True)
    convert(tmp_path / target, tmp_path / "again.safetensors")
    before, after = load_file(single), load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys() and after["alphas_cumprod"].dtype == torch.float32
    for key, value in before.items():
        network = key.startswith(("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", DEPTH))
        assert torch.equal(after[key], value.half() if network else value)
    assert (tmp_path / "again.safetensors").stat().st_size < 0.6 * single.stat().st_size


def test_a_value_too_large_for_half_is_named(single: Path, tmp_path: Path) -> None:
    state = load_file(single)
    state["model.diffusion_model.out.2.bias"][1] = 70000.0
    save_file(state, tmp_path / "large.safetensors")
    shutil.copy(single.with_suffix(".yaml"), tmp_path / "large.yaml")
    with pytest.raises(CheckpointError, match=r"out\.2\.bias' does not fit into F16.*up to 7e\+04"):
        convert(tmp_path / "large.safetensors", tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_onto_itself(single: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    shutil.copy(single, path)
    convert(path, path, half=True)
    assert load_file(path)["model.diffusion_model.out.2.bias"].dtype == torch.float16


# --- MiDaS from elsewhere ---------------------------------------------------------------------------------------------


def without_depth(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("depth_estimator"))
    return target


def as_published(single: Path, path: Path) -> Path:
    """MiDaS alone, as its authors publish it."""
    state = {k[len(DEPTH + "model.") :]: v for k, v in load_file(single).items() if k.startswith(DEPTH)}
    torch.save(state, path)
    return path


@pytest.mark.parametrize("kind", ["its own file", "another checkpoint", "a folder", "its folder"])
def test_folder_without_midas_takes_it_from_elsewhere(folder: Path, single: Path, tmp_path: Path, kind: str) -> None:
    bare = without_depth(folder, tmp_path / "bare")
    with pytest.raises(CheckpointError, match=r"holds no depth network.*--midas dpt_hybrid-midas-501f0c75\.pt"):
        convert(bare, tmp_path / "file.safetensors")
    midas = {
        "its own file": as_published(single, tmp_path / "dpt_hybrid.pt"),
        "another checkpoint": single,
        "a folder": folder,
        "its folder": folder / "depth_estimator",
    }[kind]
    convert(bare, tmp_path / "file.safetensors", midas=midas)
    assert same(load_file(tmp_path / "file.safetensors"), load_file(single))


def test_single_file_without_midas_takes_it_too(single: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file({key: value for key, value in load_file(single).items() if not key.startswith(DEPTH)}, bare)
    shutil.copy(single.with_suffix(".yaml"), bare.with_suffix(".yaml"))
    with pytest.raises(CheckpointError, match=r"--midas dpt_hybrid-midas-501f0c75\.pt"):
        open_model(bare)
    convert(bare, tmp_path / "file.safetensors", midas=as_published(single, tmp_path / "dpt_hybrid.pt"))
    assert same(load_file(tmp_path / "file.safetensors"), load_file(single))


def test_the_remedy_for_a_file_without_midas_is_one(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that `inspect` names, run as it is."""
    bare = tmp_path / "bare.safetensors"
    save_file({key: value for key, value in load_file(single).items() if not key.startswith(DEPTH)}, bare)
    shutil.copy(single.with_suffix(".yaml"), bare.with_suffix(".yaml"))
    as_published(single, tmp_path / "dpt_hybrid-midas-501f0c75.pt")
    (fault,) = [fault for fault in inspect(bare).faults if fault.code == "midas-missing"]
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall("`depth2img ([^`]+)`", fault.fix)
    app(shlex.split(command), standalone_mode=False)
    assert same(load_file(tmp_path / "bare-midas.safetensors"), load_file(single))


def test_midas_from_where_nobody_can_look(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_model(folder, Path("x" * 300))


@pytest.mark.parametrize("kind", ["pipe", "endless", "large", "no text"])
def test_a_configuration_that_is_none(folder: Path, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = copy / "vae" / "config.json"
    config.unlink()
    if kind == "pipe":
        os.mkfifo(config)  # opening it would wait for a writer
    elif kind == "endless":
        config.symlink_to("/dev/zero")
    else:
        config.write_bytes(b"\xff" if kind == "no text" else b" " * 2_000_000)
    wanted = {"large": "too large for a configuration", "no text": "is not text"}.get(kind, "not a plain file")
    with pytest.raises(CheckpointError, match=wanted):
        open_model(copy)


def test_midas_given_replaces_midas_there(single: Path, tmp_path: Path) -> None:
    other = {k: v + 1 if k.startswith(DEPTH) else v for k, v in load_file(single).items()}
    save_file(other, tmp_path / "other.safetensors")
    convert(single, tmp_path / "file.safetensors", midas=tmp_path / "other.safetensors")
    assert same(load_file(tmp_path / "file.safetensors"), other)


def test_files_without_a_whole_midas(single: Path, tmp_path: Path) -> None:
    state = torch.load(as_published(single, tmp_path / "a.pt"))
    torch.save({"lora": torch.ones(2)}, tmp_path / "b.pt")
    del state["scratch.output_conv.4.bias"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="holds no MiDaS"):
        open_midas(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"incomplete: 1 of .*output_conv\.4\.bias"):
        open_midas(tmp_path / "c.pt")


# --- one tensor at a time, and whole or not at all --------------------------------------------------------------------


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is read of tensors."""
    sizes: list[int] = []
    original = reading._read_into

    def read(file: Any, target: memoryview, path: Path) -> None:
        sizes.append(len(target))
        original(file, target, path)

    monkeypatch.setattr(reading, "_read_into", read)
    return sizes


@pytest.mark.parametrize("form", [".safetensors", ".ckpt", "folder"])
def test_the_estimator_reads_the_depth_network_alone(
    folder: Path, single: Path, tmp_path: Path, read_bytes: list[int], form: str
) -> None:
    from depth2img.diffusion import load_estimator

    source = {".safetensors": single, "folder": folder}.get(form, tmp_path / "file.ckpt")
    if form == ".ckpt":
        torch.save({"state_dict": load_file(single)}, source)
        shutil.copy(single.with_suffix(".yaml"), source.with_suffix(".yaml"))
    load_estimator(source, device="cpu")
    depth = sum(value.nbytes for value in load_file(folder / "depth_estimator" / "model.safetensors").values())
    assert sum(read_bytes) == depth < 0.5 * single.stat().st_size


def test_what_reads_back_differently_is_not_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses a byte."""
    from depth2img.checkpoints.storage import writing

    original = writing.sha256_of

    def spoil(path: Path, *given: Any) -> str:
        with path.open("r+b") as file:
            file.seek(-5, 2)
            byte = file.read(1)
            file.seek(-5, 2)
            file.write(bytes([byte[0] ^ 16]))
        return original(path, *given)

    monkeypatch.setattr(writing, "sha256_of", spoil)
    for target in ("file.safetensors", "folder"):
        with pytest.raises(CheckpointError, match="reads back differently"):
            convert(folder, tmp_path / target)
    assert not list(tmp_path.iterdir())


def test_digests_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    import hashlib

    ledger = convert(folder, tmp_path / "file.safetensors")
    content = (tmp_path / "file.safetensors").read_bytes()
    assert ledger.sha256 == {"file.safetensors": hashlib.sha256(content).hexdigest()}
    ledger = convert(tmp_path / "file.safetensors", tmp_path / "two")
    assert len(ledger.sha256) == 4
    for name, digest in ledger.sha256.items():
        assert hashlib.sha256((tmp_path / "two" / name).read_bytes()).hexdigest() == digest


def test_parts_of_killed_writers_go_and_those_in_use_stay(tmp_path: Path) -> None:
    target = tmp_path / "file.safetensors"
    with replacing(target) as beside:
        beside.write_text("half")
        living = sorted(tmp_path.iterdir())
        for path in living:  # as if its writer had died
            dead = path.with_stem(f"{path.stem}x")
            shutil.copytree(path, dead) if path.is_dir() else shutil.copy(path, dead)
        assert len(list(tmp_path.iterdir())) == 4
        remove_stale(tmp_path / "other.safetensors")
        assert len(list(tmp_path.iterdir())) == 4
        remove_stale(target)
        assert sorted(tmp_path.iterdir()) == living and beside.parent in living
    assert target.read_text() == "half"
    assert list(tmp_path.iterdir()) == [target]


def test_all_is_on_the_disk_before_it_has_its_name(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a name without its content, of the texts of a folder and of a YAML neither."""
    synced: set[int] = set()
    fsync = os.fsync

    def note(number: int) -> None:
        fsync(number)
        synced.add(os.fstat(number).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    models = tmp_path / "models"
    models.mkdir()
    convert(single, models / "folder")
    carry_out(plan_setup(single, (models,), how="copy"), (models,))
    written = [path for path in models.rglob("*") if path.is_file()]
    assert len(written) > 12 and [path.name for path in written if path.stat().st_ino not in synced] == []


def listed_by_rule(folder: Path) -> Iterable[str]:
    """List the files that the WebUI finds below a folder of checkpoints: by suffix, hidden folders included."""
    places = (os.path.join(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    return [path for path in places if os.path.splitext(path)[1].lower() in (".ckpt", ".safetensors")]


def listed_by_the_host(folder: Path) -> Iterable[str]:
    """The same by the WebUI's own `modules.util.walk_files`."""
    if "WEBUI_DIR" not in os.environ:
        pytest.skip("compares with the real WebUI: set WEBUI_DIR (CONTRIBUTING.md)")
    source = (Path(os.environ["WEBUI_DIR"]) / "modules" / "util.py").read_text(encoding="utf8")
    wanted = ("natural_sort_key", "walk_files")
    body = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names: dict[str, Any] = {
        "os": os,
        "re": re,
        "shared": SimpleNamespace(opts=SimpleNamespace(list_hidden_files=True)),
    }
    exec(compile(ast.Module(body, []), "the host", "exec"), names)
    return list(names["walk_files"](str(folder), allowed_extensions=[".ckpt", ".safetensors"]))


@pytest.mark.parametrize("listed", [listed_by_rule, listed_by_the_host])
def test_nothing_half_written_is_in_the_hosts_list(
    single: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: Callable[[Path], Iterable[str]]
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    seen: list[list[str]] = []

    def look(*_: int) -> None:
        if any(path.is_file() and path.stat().st_size for path in models.rglob("*")):  # the sources are hashed before
            seen.append(list(listed(models)))

    def check(writing: Callable[[], object], count: int) -> None:
        seen.clear()
        writing()
        assert len(seen) > 10 and not any(seen)
        assert len(list(listed(models))) == count
        shutil.rmtree(models)
        models.mkdir()

    check(lambda: convert(folder, models / "file.safetensors", look), 1)
    check(lambda: convert(single, models / "folder", look), 4)
    check(lambda: merge(single, single, models / "merged.safetensors", multiplier=0.5, progress=look), 1)
    monkeypatch.setattr("depth2img.checkpoints.setup.CHUNK", 1 << 18)
    check(lambda: carry_out(plan_setup(single, (models,), how="copy"), (models,), progress=look), 1)


def test_progress_counts_to_its_end(folder: Path, tmp_path: Path) -> None:
    def check(go: Callable[[Any], Any]) -> None:
        told: list[tuple[int, int]] = []
        go(lambda done, total: told.append((done, total)))
        assert told == sorted(told) and len({total for _, total in told}) == 1
        assert told[-1][0] >= 0.999 * told[-1][1] and told[-1][0] <= told[-1][1]

    check(lambda tell: convert(folder, tmp_path / "file.safetensors", tell))
    check(lambda tell: convert(tmp_path / "file.safetensors", tmp_path / "two", tell))
