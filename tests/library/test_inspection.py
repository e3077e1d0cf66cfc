"""Check the reports on checkpoint files as users have them: the kind of each, and its faults."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import re
import shlex
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import depth2img
from depth2img import CheckpointError
from depth2img.checkpoints import inspect, open_checkpoint
from depth2img.checkpoints.download import mirrors
from depth2img.checkpoints.inspection.report import Report
from depth2img.checkpoints.inspection.sidecar import OFFICIAL_SHA256
from depth2img.checkpoints.layout import keys, ldm_yaml
from depth2img.checkpoints.layout.keys import MIDAS_FILE
from depth2img.checkpoints.storage import hashes
from depth2img.cli.root import app
from tests.library import sparse

NAMES = sparse.sd2()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """512-depth-ema in half precision, as far as anybody can tell without reading its 2.9 GB."""
    return sparse.write(tmp_path / "depth.safetensors", NAMES)


def codes(report: Report) -> list[str]:
    return [fault.code for fault in report.faults]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        inspect(path)
    for word in words:
        assert word in str(caught.value)


# --- what it is -------------------------------------------------------------------------------------------------------


def test_a_whole_depth_checkpoint(file: Path) -> None:
    report = inspect(file)
    assert report.usable and not report.faults
    assert (report.kind, report.channels, report.midas) == ("Stable Diffusion 2, depth", 5, "inside")
    assert (report.text_layout, report.ema, report.tensors) == ("OpenCLIP", 0, 1608)
    assert list(report.types) == ["float16"]
    assert report.values == pytest.approx(865.9e6 + 83.7e6 + 354.0e6 + 123.1e6, rel=1e-3)  # UNet, VAE, text, MiDaS
    assert report.sidecar is not None and report.sidecar.state == "none"
    assert report.lines()[-1] == "This depth checkpoint is whole and works."


def test_precision_is_that_of_most_bytes(tmp_path: Path) -> None:
    kinds = {name: "F32" if name.startswith(keys.DEPTH) else "F16" for name in NAMES}
    report = inspect(sparse.write(tmp_path / "mixed.safetensors", NAMES, kinds))
    assert list(report.types) == ["float16", "float32"]
    assert dict(report.rows())["Precision"].startswith("fp16 (fp32 1")
    assert report.usable


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({keys.UNET + "input_blocks.0.0.weight": (320, 4, 3, 3)}, "Stable Diffusion 2, text to image"),
        ({keys.UNET + "input_blocks.0.0.weight": (320, 9, 3, 3)}, "Stable Diffusion 2, inpainting"),
        ({keys.UNET + "input_blocks.0.0.weight": (320, 6, 3, 3)}, "UNet with 6 input channels"),
        ({"conditioner.embedders.1.model.ln_final.weight": (1280,)}, "Stable Diffusion XL"),
    ],
)
def test_other_checkpoints(tmp_path: Path, changed: dict[str, tuple[int, ...]], kind: str) -> None:
    tensors = {**NAMES, keys.UNET + "input_blocks.0.0.weight": (320, 4, 3, 3), **changed}
    report = inspect(sparse.write(tmp_path / "other.safetensors", tensors))
    assert kind in report.kind and not report.usable and codes(report) == ["kind"]
    assert report.midas is None and report.sidecar is None


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("unet.down_blocks.0.lora_A.weight", "a LoRA"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("pretrained.model.cls_token", "MiDaS alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "the UNet of a diffusers folder, alone"),
        ("text_model.final_layer_norm.weight", "a text encoder alone"),
        ("first_stage_model.encoder.conv_in.weight", "an autoencoder (VAE) alone"),
        ("model.diffusion_model.joint_blocks.0.x_block.weight", "Stable Diffusion 3"),
        ("something.else", "not a Stable Diffusion checkpoint"),
    ],
)
def test_parts_and_other_kinds(tmp_path: Path, name: str, what: str) -> None:
    report = inspect(sparse.write(tmp_path / "part.safetensors", {name: (4, 3)}))
    assert what in report.kind and report.channels is None and not report.usable


def test_the_compact_bundled_model_is_told_from_an_installed_one() -> None:
    from depth2img import embedded

    report = inspect(embedded.WEIGHTS)
    assert "bundled model in its compact form" in report.kind
    assert "depth2img checkpoint convert tiny" in report.faults[0].fix


# --- what is wrong with it --------------------------------------------------------------------------------------------


def test_missing_and_misshaped_tensors_are_named(tmp_path: Path) -> None:
    gone = [keys.UNET + "out.2.weight", keys.VAE + "decoder.conv_out.bias"]
    tensors = {name: shape for name, shape in NAMES.items() if name not in gone}
    tensors[keys.TEXT + "ln_final.bias"] = (1023,)
    report = inspect(sparse.write(tmp_path / "holes.safetensors", tensors))
    assert list(report.missing) == gone and codes(report) == ["missing", "misshaped"]
    assert [(one.name, one.shape, one.wanted) for one in report.misshaped] == [
        (keys.TEXT + "ln_final.bias", (1023,), (1024,))
    ]
    assert "2 of 1,580 tensors are missing" in report.faults[0].what
    assert "1023 instead of 1024" in report.faults[1].what


def test_what_is_never_run_may_be_missing(tmp_path: Path) -> None:
    needed = {name: shape for name, shape in NAMES.items() if "resblocks.23" not in name and "." in name}
    report = inspect(sparse.write(tmp_path / "pruned.safetensors", needed))
    assert len(needed) < len(NAMES) - 12 and report.usable and not report.faults


def test_without_midas(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in NAMES.items() if not name.startswith(keys.DEPTH)}
    report = inspect(sparse.write(tmp_path / "converted.safetensors", tensors))
    assert report.midas == "missing" and codes(report) == ["midas-missing"] and not report.missing
    assert "models/midas" in report.faults[0].fix


def test_with_a_part_of_midas(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in NAMES.items() if "scratch.refinenet1" not in name}
    report = inspect(sparse.write(tmp_path / "cut.safetensors", tensors))
    assert report.midas == "incomplete" and codes(report) == ["missing"] and len(report.missing) == 10


def test_with_an_unknown_depth_network(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in NAMES.items() if not name.startswith(keys.DEPTH)}
    report = inspect(sparse.write(tmp_path / "zoe.safetensors", {**tensors, "depth_model.zoe.weight": (3, 3)}))
    assert report.midas == "other" and codes(report) == ["depth-unknown"]


def test_the_text_encoder_that_some_converters_write(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in NAMES.items() if not name.startswith(keys.TEXT)}
    old = "cond_stage_model.transformer.text_model."
    tensors |= {old + "embeddings.token_embedding.weight": (49408, 1024), old + "final_layer_norm.bias": (1024,)}
    report = inspect(sparse.write(tmp_path / "broken.safetensors", tensors))
    assert report.text_layout == "SD1" and codes(report) == ["text-layout"]
    assert "Stable Diffusion 1" in report.faults[0].what and not report.missing
    none = {name: shape for name, shape in tensors.items() if not name.startswith("cond_stage_model")}
    assert codes(inspect(sparse.write(tmp_path / "none.safetensors", none))) == ["text-missing"]


def test_ema_and_extra_tensors_are_notes(tmp_path: Path) -> None:
    extra = {"model_ema.diffusion_modelout2weight": (4, 320, 3, 3), "model_ema.decay": (), "optimizer.state": (7,)}
    report = inspect(sparse.write(tmp_path / "trained.safetensors", {**NAMES, **extra}))
    assert report.usable and report.ema == 2 and list(report.extra) == ["optimizer.state"]
    assert codes(report) == ["ema", "extra"]


def test_a_name_that_says_another_kind(tmp_path: Path, file: Path) -> None:
    wrong = file.rename(tmp_path / "depth.ckpt")
    report = inspect(wrong)
    assert report.format == "safetensors" and codes(report) == ["suffix"]
    assert "depth.safetensors" in report.faults[0].fix


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    tensors = {**NAMES, "\x1b]0;owned\x07": (1,)}
    lines = inspect(sparse.write(tmp_path / "escape.safetensors", tensors)).lines()
    assert any("owned" in line for line in lines) and all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"interp_method": "Add difference", "multiplier": 0.5, "models": {"A": "one.ckpt", "B": "two.ckpt"}},
            "Add difference 0.5, A = one.ckpt, B = two.ckpt",
        ),
        (
            {"interp_method": "Weighted sum", "multiplier": 1, "primary_model_hash": "ab", "tertiary_model_hash": None},
            "Weighted sum 1, A = ab",
        ),
        ([1, 2], None),
        ({"models": 5, "multiplier": {"a": []}}, "None {'a': []}"),
    ],
)
def test_a_recipe_is_shown(tmp_path: Path, recipe: Any, words: str | None) -> None:
    """As the WebUI's merger writes it (modules/extras.py), and as `merge` does."""
    metadata = {"sd_merge_recipe": json.dumps(recipe)}
    report = inspect(sparse.write(tmp_path / "merged.safetensors", NAMES, metadata=metadata))
    assert dict(report.rows()).get("Merged") == words and report.usable


# --- remedies -------------------------------------------------------------------------------------------------------


def without(*beginnings: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in NAMES.items() if not name.startswith(beginnings)}


FAULTY: dict[str, Any] = {
    "kind": {"a": (3,)},
    "text-layout": {**without(keys.TEXT), "cond_stage_model.transformer.x": (3,)},
    "text-missing": without(keys.TEXT),
    "midas-missing": without(keys.DEPTH),
    "depth-unknown": {**without(keys.DEPTH), "depth_model.zoe.weight": (3, 3)},
    "missing": without(keys.VAE + "decoder"),
    "incomplete": without(keys.MIDAS + "scratch"),
    "yaml-none": {**NAMES, keys.UNET + "input_blocks.0.0.weight": (64, 5, 3, 3)},
}


def commands(text: str) -> list[list[str]]:
    """Return the commands in a sentence, split as a shell does."""
    return [shlex.split(found) for found in re.findall(r"`(depth2img [^`]+)`", text)]


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """A command as the command line understands it; nothing is run."""
    found: click.Command = app
    name, rest = words[0], words[1:]
    while isinstance(found, click.Group):
        given, inner, rest = found.resolve_command(click.Context(found), rest)
        assert given is not None and inner is not None
        name, found = f"{name} {given}", inner
    return name, found.make_context(name, list(rest)).params


@pytest.mark.parametrize("fault", FAULTY)
def test_a_remedy_is_a_command_for_this_file(tmp_path: Path, fault: str) -> None:
    path = sparse.write(tmp_path / "my model's.safetensors", FAULTY[fault])
    (found,) = [f for f in inspect(path).faults if f.code == fault.replace("incomplete", "missing")]
    (words,) = commands(found.fix)
    name, values = parse(words)
    new = path.with_name("my model's-midas.safetensors")
    midas = ("depth2img checkpoint convert", {"source": str(path), "target": new, "midas": Path(MIDAS_FILE)})
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "kind": ("depth2img checkpoint fetch", {"file": None}),
        "text-layout": ("depth2img checkpoint convert", {"source": "FOLDER", "target": path}),
        "text-missing": ("depth2img checkpoint fetch", {"file": None}),
        "missing": ("depth2img checkpoint inspect", {"file": path, "whole": True}),
        "yaml-none": ("depth2img checkpoint setup", {"file": path}),
        **dict.fromkeys(["midas-missing", "depth-unknown", "incomplete"], midas),
    }
    assert (name, {key: values[key] for key in wanted[fault][1]}) == wanted[fault]


def test_every_command_in_a_message_parses() -> None:
    """Those that the sources spell out, apart from the help of the command line itself."""
    folders = [Path(depth2img.__file__).parent, Path(depth2img.__file__).parent.parent / "depth2img_webui"]
    told = []
    for source in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                texts = [word.value for word in ast.walk(node) if isinstance(word, ast.Constant)]
                told += [words for text in texts if isinstance(text, str) for words in commands(text)]
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command" and node.args:
                words = [word.value if isinstance(word, ast.Constant) else "X" for word in node.args]
                told.append(["depth2img", *map(str, words)])
    assert len(told) > 8
    for words in told:
        assert parse(words)[0].startswith("depth2img "), words


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_hashes_are_the_hosts(tmp_path: Path) -> None:
    """`model_hash` and `calculate_sha256` as in the WebUI's modules/sd_models.py and modules/hashes.py."""
    content = bytes(range(256)) * 8192
    path = tmp_path / "any.bin"
    path.write_bytes(content)
    told: list[tuple[int, int]] = []
    with path.open("rb") as file:
        assert hashes.model_hash(file) == hashlib.sha256(content[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    assert hashes.sha256_of(path, lambda done, total: told.append((done, total))) == hashlib.sha256(content).hexdigest()
    assert told[-1] == (len(content), len(content))


def test_published_files_are_known_by_their_hash(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = next(iter(mirrors.published()))
    assert inspect(open_checkpoint(file, sha256=digest)).published == mirrors.published()[digest]
    assert inspect(open_checkpoint(file, sha256="0" * 64)).published == ""
    assert inspect(open_checkpoint(file, sha256=digest)).short_hash == digest[:10]
    monkeypatch.setattr(mirrors, "MODEL_HASHES", {open_checkpoint(file).model_hash: "512-depth-ema.ckpt"})
    assert "as the old hash goes" in dict(inspect(file).rows())["Published as"]
    damaged = inspect(open_checkpoint(file, sha256="0" * 64))
    assert codes(damaged) == ["damaged"] and not damaged.usable


def test_another_file_under_a_published_name_is_noted(tmp_path: Path) -> None:
    path = sparse.write(tmp_path / "512-depth-ema-fp16.safetensors", NAMES)
    report = inspect(open_checkpoint(path, sha256="0" * 64))
    assert codes(report) == ["hash"] and report.usable and "1edad039" in report.faults[0].fix


def test_the_whole_file_is_read_on_demand(tmp_path: Path) -> None:
    path = sparse.write(tmp_path / "part.safetensors", {"a": (3, 5)}, "F32")
    assert inspect(path).sha256 is None
    assert inspect(path, whole=True).sha256 == hashes.sha256_of(path)


# --- the YAML beside it -----------------------------------------------------------------------------------------------


def beside(file: Path, change: Any = None) -> Report:
    """The report with Stable Diffusion 2's own description beside the file, changed."""
    model = json.loads(json.dumps(ldm_yaml.SD2_YAML))
    if change is not None:
        change(model["model"])
    file.with_suffix(".yaml").write_text(yaml.safe_dump(model))
    return inspect(file)


def test_the_right_yaml(file: Path) -> None:
    report = beside(file)
    assert report.usable and report.sidecar is not None and report.sidecar.state == "right"


def test_stabilitys_own_yaml(file: Path) -> None:
    path = Path("repositories/stable-diffusion-stability-ai/configs/stable-diffusion/v2-midas-inference.yaml")
    webui = os.environ.get("WEBUI_DIR")
    if webui is None:
        pytest.skip("needs a WebUI's configuration: set WEBUI_DIR")
    content = (Path(webui) / path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == OFFICIAL_SHA256
    file.with_suffix(".yaml").write_bytes(content)
    report = inspect(file)
    assert report.usable and report.sidecar is not None and "v2-midas-inference" in report.sidecar.detail


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["params"]["unet_config"]["params"].update(in_channels=4), "v2-inference.yaml does"),
        (lambda m: m["params"]["unet_config"]["params"].update(in_channels=9), "v2-inpainting-inference.yaml"),
        (lambda m: m["params"]["unet_config"]["params"].update(context_dim=768), "attn2.to_k.weight is 320 x 1024"),
        (lambda m: m["params"]["unet_config"].update(target="ldm.x.Y"), "unet_config is ldm.x.Y"),
        (lambda m: m["params"]["first_stage_config"]["params"]["ddconfig"].update(ch=64), "autoencoder is another"),
        (lambda m: m["params"].update(conditioning_key="crossattn"), "conditioning_key"),
        (lambda m: m["params"].pop("depth_stage_config"), "depth network is None"),
        (lambda m: m["params"]["cond_stage_config"].update(target="ldm.clip.FrozenCLIPEmbedder"), "not OpenCLIP"),
        (lambda m: m["params"]["cond_stage_config"]["params"].update(arch="depth2img-text-w64-h2-l3"), "64 wide"),
        (lambda m: m.update(target="ldm.models.diffusion.ddpm.LatentDiffusion"), "LatentDepth2ImageDiffusion"),
    ],
)
def test_a_wrong_yaml(file: Path, change: Any, words: str) -> None:
    report = beside(file, change)
    assert codes(report) == ["yaml-wrong"] and words in report.faults[0].what
    assert "depth2img checkpoint setup" in report.faults[0].fix


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(target="os.system"),
        lambda m: m["params"]["first_stage_config"]["params"]["lossconfig"].update(target="subprocess.Popen"),
        lambda m: m["params"].update(more=[{"deep": {"target": "builtins.exec"}}]),
    ],
)
def test_a_yaml_that_names_foreign_code(file: Path, change: Any) -> None:
    report = beside(file, change)
    assert codes(report) == ["yaml-hostile"] and "malicious" in report.faults[0].what
    assert not report.usable


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01",
        b"\xff\xfe",
        b"just a text",
        b"model: 5",
        b"model: {params: {}}",
        b"model: {params: {unet_config: [1, 2]}}",
        b"!!python/object/apply:os.system ['true']",
        b"a: " + b"[" * 5000,
        b"x: &a [*a]",
        b"model: {params: {unet_config: {params: {in_channels: 5}}}, target: " + b"x" * 70_000 + b"}",
        b"a: &a [x, x]\nb: &b [*a, *a]\n"
        + b"".join(b"%c: &%c [*%c, *%c]\n" % (n + 1, n + 1, n, n) for n in range(98, 122)),
    ],
)
def test_a_yaml_that_is_no_description(file: Path, content: bytes) -> None:
    file.with_suffix(".yaml").write_bytes(content)
    report = inspect(file)
    assert codes(report) == ["yaml-unreadable"] and all(line.isprintable() for line in report.lines())


def test_endless_descriptions_are_not_followed(file: Path, tmp_path: Path) -> None:
    def deep(m: Any) -> None:
        m["params"]["unet_config"]["params"]["num_res_blocks"] = 10**9

    assert codes(beside(file, deep)) == ["yaml-unreadable"]
    config = json.loads(sparse.FULL.to_json())
    config["unet"]["layers_per_block"] = 1000
    config["unet"]["use_linear_projection"] = True
    metadata = {ldm_yaml.METADATA: json.dumps(config)}
    refused(sparse.write(tmp_path / "endless.safetensors", NAMES, metadata=metadata), "not of a Stable Diffusion model")


def test_a_narrow_checkpoint_needs_a_yaml(tmp_path: Path) -> None:
    narrow = {**NAMES, keys.UNET + "input_blocks.0.0.weight": (64, 5, 3, 3)}
    assert "yaml-none" in codes(inspect(sparse.write(tmp_path / "narrow.safetensors", narrow)))


# --- files that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><head><title>404</title>", "an HTML page"),
        (b"\n  <html lang='en'>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ece79d93", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00", "a packed archive"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        (b"hello world, this is a text", "neither a safetensors nor"),
        (struct.pack("<Q", 2**40) + b'{"a":', "header"),
        (struct.pack("<Q", 100) + b'{"a":', "read"),
        (struct.pack("<Q", 10) + b"{{{{{{{{{{", "read"),
        (b"PK\x03\x04" + b"\x00" * 60, "read"),
        (b"\x80\x02}q\x00.", ""),
    ],
)
def test_what_people_have_instead_of_a_checkpoint(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, word)


def test_folders_missing_files_and_special_files(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder", "checkpoint convert")
    refused(tmp_path / "nowhere.safetensors", "There is no file")
    os.mkfifo(tmp_path / "pipe.ckpt")
    refused(tmp_path / "pipe.ckpt", "There is no file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission(file: Path) -> None:  # pragma: no cover - CI's user is not root
    file.chmod(0)
    refused(file, "cannot be read", "Permission denied")
    file.chmod(stat.S_IRWXU)


def test_refusal_of_the_system_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refused(file, "cannot be read", "Permission denied")


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = sparse.write(tmp_path / "whole.safetensors", {"a": (64, 64), "b": (9,)}).read_bytes()
    for length in range(len(whole)):
        if length % 97 and length > 200:
            continue
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:length])
        refused(path, f"{length:,} bytes" if length else "is empty")
        if length > 150:
            refused(path, f"of {len(whole):,}", "truncated")


# --- pickles ----------------------------------------------------------------------------------------------------------


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def save_pickle(path: Path, value: Any, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle(tmp_path: Path, zipped: bool) -> None:
    state = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3), "b": torch.zeros(5).half()}
    path = save_pickle(tmp_path / "plain.ckpt", {"state_dict": state, "global_step": 7}, zipped=zipped)
    report = inspect(path)
    assert report.format == "pickle" and report.channels == 4 and report.tensors == 2
    assert report.types == {"float32": 8 * 4 * 9 * 4, "float16": 10}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_pickle(tmp_path / "evil.ckpt", {"state_dict": {"a": torch.zeros(2)}, "x": Hostile()}, zipped=zipped)
    refused(path, "evil.ckpt", "run code", "system")
    assert not (tmp_path / "owned").exists()


def test_flipped_bits_in_a_pickle_are_found_when_the_whole_file_is_read(tmp_path: Path) -> None:
    path = save_pickle(tmp_path / "flipped.ckpt", {"state_dict": {"a": torch.arange(5000.0)}})
    assert codes(inspect(path, whole=True)) == ["kind"]
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 4000.0))] ^= 4
    path.write_bytes(content)
    assert codes(inspect(path)) == ["kind"]
    assert codes(inspect(path, whole=True)) == ["damaged", "kind"]


def test_a_plain_archive_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "archive.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("depth.safetensors", b"x" * 100)
    refused(path, "archive.ckpt")


# --- anything at all --------------------------------------------------------------------------------------------------

LEAF = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.floats()
ANYTHING = st.recursive(LEAF, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4))
NAME = st.sampled_from([*list(NAMES)[::150], "depth_model.x", "model_ema.y", "__metadata__", ""]) | st.text(max_size=20)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "F32", "BF16", "F8_E4M3", "I64", "BOOL", "Q4"]),
        "shape": st.lists(st.integers(-1, 6), max_size=4),
        "data_offsets": st.lists(st.integers(-1, 400), min_size=2, max_size=2),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(NAME, ENTRY | ANYTHING, max_size=6), spare=st.integers(-3, 400))
def test_any_header_gives_a_report_or_a_sentence(tmp_path: Path, header: Any, spare: int) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "any.safetensors"
    path.write_bytes(struct.pack("<Q", max(0, len(text) + min(spare, 0))) + text + b"\0" * max(spare, 0))
    _answers(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1400), value=st.integers(0, 255), zipped=st.booleans())
def test_a_changed_byte_of_a_pickle_gives_a_report_or_a_sentence(
    tmp_path: Path, place: int, value: int, zipped: bool
) -> None:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": {"c": 1}}, content, _use_new_zipfile_serialization=zipped)
    changed = bytearray(content.getvalue())
    changed[place % len(changed)] = value
    path = tmp_path / "any.ckpt"
    path.write_bytes(changed)
    _answers(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=ANYTHING)
def test_any_yaml_gives_a_report(tmp_path: Path, value: Any) -> None:
    path = sparse.write(tmp_path / "depth.safetensors", {keys.UNET + "input_blocks.0.0.weight": (4, 5, 3, 3)})
    described = {"model": {"params": value}} if isinstance(value, dict) else value
    path.with_suffix(".yaml").write_text(yaml.safe_dump(described, allow_unicode=True), encoding="utf-8")
    assert not inspect(path).usable


@pytest.mark.parametrize("value", [[1, 2], 5, "text", None, {"a": 1}, {1: torch.zeros(1)}])
def test_pickles_of_other_things(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "other.ckpt"
    path.write_bytes(pickle.dumps(value, protocol=2) if not isinstance(value, dict) else b"")
    if isinstance(value, dict):
        save_pickle(path, value)
    refused(path, "other.ckpt")


def _answers(path: Path) -> None:
    try:
        report = inspect(path)
    except CheckpointError as error:
        message = str(error)
    else:
        message = path.name if json.dumps(report.to_json()) and report.lines() else ""
    assert path.name in message or "description" in message or "element type" in message
