"""Merging a depth checkpoint with 4-channel ones: the formulas, what is kept, the recipe, and what is refused."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import convert, inspect, merge, open_model, to_single_file
from depth2img.checkpoints.merging import Merged, formula
from depth2img.errors import CheckpointError, OptionError
from tests.engine import small

INPUT = "model.diffusion_model.input_blocks.0.0.weight"
MERGED = ("model.diffusion_model.", "cond_stage_model.model.")
State = dict[str, torch.Tensor]


def is_merged(name: str) -> bool:
    return name.startswith(MERGED)


def plain(state: State, seed: int) -> State:
    """A text-to-image checkpoint of the same size with weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    names = [name for name in state if not name.startswith("depth_model.")]
    made = {name: torch.randn(state[name].shape, generator=generator) for name in names}
    made["alphas_cumprod"] = state["alphas_cumprod"]
    return {**made, INPUT: made[INPUT][:, :4].contiguous()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """depth, style and base (4 channels), and depth2; read only."""
    folder = tmp_path_factory.mktemp("merge")
    to_single_file(small.model(), folder / "depth.safetensors")
    state = load_file(folder / "depth.safetensors")
    for seed, name in enumerate(("style", "base"), 1):
        save_file(plain(state, seed), folder / f"{name}.safetensors", metadata={"format": "pt"})
    generator = torch.Generator().manual_seed(3)
    save_file(
        {k: v + torch.randn(v.shape, generator=generator) for k, v in state.items()}, folder / "depth2.safetensors"
    )
    shutil.copy(folder / "depth.yaml", folder / "depth2.yaml")
    return folder


@pytest.fixture
def run(models: Path, tmp_path: Path) -> Callable[..., tuple[State, Merged]]:
    def go(a: str, b: str, m: float, c: str | None = None, **more: Any) -> tuple[State, Merged]:
        paths = [models / f"{name}.safetensors" for name in (a, b)]
        third = None if c is None else models / f"{c}.safetensors"
        done = merge(*paths, tmp_path / "result.safetensors", multiplier=m, tertiary=third, **more)
        return load_file(tmp_path / "result.safetensors"), done

    return go


def load(models: Path, name: str) -> State:
    return load_file(models / f"{name}.safetensors")


def hosts_functions() -> dict[str, Callable[..., torch.Tensor]]:
    """The WebUI's own arithmetic, out of the middle of its merger."""
    if "WEBUI_DIR" not in os.environ:
        pytest.skip("needs the WebUI's source: set WEBUI_DIR")
    path = Path(os.environ["WEBUI_DIR"], "modules", "extras.py")
    [merger] = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == "run_modelmerger"]
    wanted = ("weighted_sum", "get_difference", "add_difference")
    functions = [node for node in merger.body if getattr(node, "name", "") in wanted]
    found: dict[str, Any] = {}
    exec(compile(ast.Module(functions, []), str(path), "exec"), found)
    return {name: found[name] for name in wanted}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_formulas_are_the_webuis_bit_for_bit(dtype: torch.dtype) -> None:
    host = hosts_functions()
    a, b, c = torch.randn(3, 64, 48, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for m in (0.0, 0.3, 0.55, 1.0):
        assert torch.equal(formula(a.clone(), b.clone(), m=m), host["weighted_sum"](a, b, m))
        difference = host["get_difference"](b, c)
        assert torch.equal(formula(a.clone(), b.clone(), c, m=m), host["add_difference"](a, difference, m))


@pytest.mark.parametrize("m", [0.0, 0.3, 1.0])
def test_weighted_sum_keeps_what_takes_the_depth(models: Path, run: Callable[..., Any], m: float) -> None:
    result, done = run("depth", "style", m)
    a, b = load(models, "depth"), load(models, "style")
    assert result.keys() == a.keys()
    for name, value in result.items():
        if name == INPUT:
            assert torch.equal(value[:, :4], a[name][:, :4] * (1 - m) + b[name] * m)
            assert torch.equal(value[:, 4:], a[name][:, 4:])
        else:
            assert torch.equal(value, a[name] * (1 - m) + b[name] * m if is_merged(name) else a[name]), name
    assert done.counts()["merged but for depth"] == 1
    assert done.counts()["merged"] == sum(map(is_merged, a)) - 1


def test_depth_may_be_the_secondary_model(models: Path, run: Callable[..., Any]) -> None:
    result, _ = run("style", "depth", 0.25)
    a, b = load(models, "style"), load(models, "depth")
    assert torch.equal(result[INPUT][:, :4], a[INPUT] * 0.75 + b[INPUT][:, :4] * 0.25)
    assert torch.equal(result[INPUT][:, 4:], b[INPUT][:, 4:])
    assert result.keys() == b.keys()
    for name, value in result.items():
        if name.startswith("depth_model."):
            assert torch.equal(value, b[name])
        elif name.startswith("first_stage_model."):
            assert torch.equal(value, a[name])


def test_add_difference(models: Path, run: Callable[..., Any]) -> None:
    result, done = run("depth", "style", 0.8, "base")
    a, b, c = (load(models, name) for name in ("depth", "style", "base"))
    for name, value in result.items():
        if name == INPUT:
            assert torch.equal(value[:, :4], a[name][:, :4] + (b[name] - c[name]) * 0.8)
            assert torch.equal(value[:, 4:], a[name][:, 4:])
        else:
            assert torch.equal(value, a[name] + (b[name] - c[name]) * 0.8 if is_merged(name) else a[name]), name
    assert {one.sources for one in done.tensors if one.what == "merged"} == {("A", "B", "C")}


def test_two_depth_checkpoints_share_the_fifth_channel_too(models: Path, run: Callable[..., Any]) -> None:
    result, done = run("depth", "depth2", 0.5)
    a, b = load(models, "depth"), load(models, "depth2")
    assert torch.equal(result[INPUT], a[INPUT] * 0.5 + b[INPUT] * 0.5)
    assert all(torch.equal(result[name], a[name]) for name in a if name.startswith("depth_model."))
    assert "merged but for depth" not in done.counts()


def test_autoencoder_of_the_secondary_model(models: Path, run: Callable[..., Any]) -> None:
    result, done = run("depth", "style", 0.5, vae="B")
    b = load(models, "style")
    assert all(torch.equal(result[name], b[name]) for name in b if name.startswith("first_stage_model."))
    assert done.recipe["bake_in_vae"] == "style.safetensors"


def test_precision(models: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_file({k: v.half() if is_merged(k) else v for k, v in load(models, "style").items()}, half)
    result, _ = run("depth", str(half.with_suffix("")), 0.5)
    assert result["model.diffusion_model.out.2.bias"].dtype == torch.float32  # the wider one
    result, done = run("depth", str(half.with_suffix("")), 0.5, precision="float16")
    assert result["model.diffusion_model.out.2.bias"].dtype == torch.float16
    assert result["depth_model.model.scratch.output_conv.4.bias"].dtype == torch.float16
    assert result["alphas_cumprod"].dtype == torch.float32 and done.recipe["save_as_half"] is True
    # Two halves give a half, rounded once.
    shutil.copy(tmp_path / "result.safetensors", tmp_path / "depth16.safetensors")
    shutil.copy(tmp_path / "result.yaml", tmp_path / "depth16.yaml")
    result, _ = run(str(tmp_path / "depth16"), str(half.with_suffix("")), 0.3)
    name = "model.diffusion_model.out.2.weight"
    a, b = load_file(tmp_path / "depth16.safetensors")[name].float(), load_file(half)[name].float()
    assert torch.equal(result[name], (a * 0.7 + b * 0.3).half())


def test_the_result_is_a_whole_depth_checkpoint(models: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    run("style", "depth", 0.4)
    report = inspect(tmp_path / "result.safetensors")
    assert report.usable and not report.faults, report.lines()
    assert open_model(tmp_path / "result.safetensors").config == open_model(models / "depth.safetensors").config
    assert (tmp_path / "result.yaml").read_text() == (models / "depth.yaml").read_text()
    convert(tmp_path / "result.safetensors", tmp_path / "folder")


def test_recipe_in_the_metadata(models: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    """Field by field as the WebUI writes it (modules/extras.py), so that it reads it too, through two generations."""
    run("depth", "style", 0.25, "base")
    digests = {
        n: hashlib.sha256((models / f"{n}.safetensors").read_bytes()).hexdigest() for n in ("depth", "style", "base")
    }
    with safe_open(tmp_path / "result.safetensors", framework="pt") as file:
        recipe, merged = (json.loads(file.metadata()[name]) for name in ("sd_merge_recipe", "sd_merge_models"))
    assert recipe["interp_method"] == "Add difference" and recipe["multiplier"] == 0.25
    assert [recipe[f"{rank}_model_hash"] for rank in ("primary", "secondary", "tertiary")] == list(digests.values())
    assert recipe["models"] == {"A": "depth.safetensors", "B": "style.safetensors", "C": "base.safetensors"}
    assert recipe["formula"] == "A + (B - C) * M" and recipe["version"]
    assert {digest: entry["name"] for digest, entry in merged.items()} == {
        digest: f"{name}.safetensors" for name, digest in digests.items()
    }
    first = shutil.copy(tmp_path / "result.safetensors", tmp_path / "first.safetensors")
    run(str(tmp_path / "first"), "style", 0.5)
    with safe_open(tmp_path / "result.safetensors", framework="pt") as file:
        again = json.loads(file.metadata()["sd_merge_models"])
    assert again.keys() == {*digests.values(), hashlib.sha256(Path(first).read_bytes()).hexdigest()}
    assert again[hashlib.sha256(Path(first).read_bytes()).hexdigest()]["sd_merge_recipe"] == recipe


def test_onto_one_of_its_own_models(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "depth.safetensors"
    shutil.copy(models / "depth.safetensors", path)
    merge(path, models / "style.safetensors", path, multiplier=1)
    b = load(models, "style")
    assert torch.equal(load_file(path)["model.diffusion_model.out.2.bias"], b["model.diffusion_model.out.2.bias"])


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(models: Path, tmp_path: Path, change: Callable[[State], object]) -> Path:
    state = load(models, "style")
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


def narrower(state: State) -> None:
    name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    state[name] = state[name][:, :-1].contiguous()


def as_sd1(state: State) -> None:
    name = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    state[name] = torch.zeros(32, 768)


def with_sd1_text(state: State) -> None:
    for name in [name for name in state if name.startswith("cond_stage_model.")]:
        state[name.replace("cond_stage_model.model", "cond_stage_model.transformer")] = state.pop(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (narrower, "has another shape than A's"),
        (as_sd1, "Stable Diffusion 1, text to image"),
        (lambda s: s.update({"conditioner.embedders.1.model.ln_final.weight": torch.ones(2)}), "Stable Diffusion XL"),
        (lambda s: s.update({INPUT: torch.zeros(32, 9, 3, 3)}), "inpainting"),
        (with_sd1_text, "cannot be merged|laid out like Stable Diffusion 1's"),
        (lambda s: s.pop("model.diffusion_model.out.0.bias"), "have different layers.*out.0.bias"),
        (lambda s: (s.clear(), s.update({"lora_unet_a.lora_up.weight": torch.ones(2)})), "a LoRA"),
    ],
    ids=["narrower", "SD1", "SDXL", "inpainting", "SD1 text", "missing", "LoRA"],
)
def test_models_that_do_not_fit(models: Path, tmp_path: Path, change: Callable[[State], object], words: str) -> None:
    other = changed(models, tmp_path, change)
    for kwargs in ({}, {"tertiary": models / "base.safetensors"}):
        with pytest.raises(CheckpointError, match=words):
            merge(models / "depth.safetensors", other, tmp_path / "result.safetensors", multiplier=0.5, **kwargs)
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]


def test_models_that_predict_v(models: Path, tmp_path: Path) -> None:
    other = changed(models, tmp_path, lambda state: None)
    other.with_suffix(".yaml").write_text("model: {params: {parameterization: v}}")
    with pytest.raises(CheckpointError, match=r"other\.safetensors predicts v"):
        merge(models / "depth.safetensors", other, tmp_path / "result.safetensors", multiplier=0.5)


def test_neither_is_a_depth_checkpoint(models: Path, run: Callable[..., Any]) -> None:
    with pytest.raises(CheckpointError, match="Neither A nor B is a depth checkpoint"):
        run("style", "base", 0.5)
    with pytest.raises(CheckpointError, match="Neither A nor B"):
        run("style", "base", 0.5, "depth")


def test_options_out_of_range(run: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    for m in (-0.1, 1.1, float("nan")):
        with pytest.raises(OptionError, match="multiplier is out of range"):
            run("depth", "style", m)
    with pytest.raises(OptionError, match="no precision"):
        run("depth", "style", 0.5, precision="int8")
    with pytest.raises(OptionError, match="Use A or B"):
        run("depth", "style", 0.5, vae="C")
    with pytest.raises(CheckpointError, match="safetensors only"):
        merge(models / "depth.safetensors", models / "style.safetensors", tmp_path / "a.ckpt", multiplier=0.5)


def test_command(models: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from depth2img.cli.root import app

    names = [str(models / f"{name}.safetensors") for name in ("depth", "style", "base")]
    given = ["checkpoint", "merge", *names[:2], str(tmp_path / "result.safetensors"), "--minus", names[2], "-M", "0.8"]
    done = CliRunner().invoke(app, [*given, "--ledger", str(tmp_path / "ledger.json"), "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.output)
    content = (tmp_path / "result.safetensors").read_bytes()
    assert values["sha256"] == hashlib.sha256(content).hexdigest() and values["recipe"]["multiplier"] == 0.8
    lines = json.loads((tmp_path / "ledger.json").read_text())["tensors"]
    assert {line["name"] for line in lines} == set(load_file(tmp_path / "result.safetensors"))
