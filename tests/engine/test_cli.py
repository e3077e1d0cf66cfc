"""The command line: what it writes, what it says, and how it fails."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from depth2img import DepthMap, read_depth_map
from depth2img.checkpoints import to_single_file
from depth2img.io.atomic import LOCK
from depth2img.io.saving import save_picture
from depth2img.options import OPTIONS, WEBUI_ONLY
from tests.engine import small
from tests.engine.conftest import Result, Run
from tests.library import mirror


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    to_single_file(small.model(midas=False), path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """48 x 80 pixels, not square."""
    rows, columns = np.mgrid[:48, :80]
    values = np.stack([rows * 5, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    values = np.zeros((48, 80), np.uint8)
    values[8:32, 16:56] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(values).save(path)
    return path


QUICK = ("--steps", 2, "--width", 96, "--height", 64)


def left(folder: Path) -> set[str]:
    """Names of the files in a folder, hidden ones too."""
    return {path.name for path in folder.iterdir()}


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [None, "INFINITY"])
def test_threads_do_not_spin_for_long_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch, own: str | None) -> None:
    """OpenMP's variables are set before torch loads it."""
    if own is None:
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    else:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    code = (
        "import os, sys\n"
        "from depth2img import cli\n"
        "assert 'torch' not in sys.modules\n"
        "sys.argv = ['depth2img', '--version']\n"
        "cli.main()\n"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == (own or "1000")


def test_estimate_writes_sixteen_bits(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    result = run("estimate", picture, "-m", model, "--colour-map", "turbo", "--json")
    assert result.code == 0, result.err
    [found] = result.json()["maps"]
    assert found["files"] == ["picture-depth.png", "picture-depth-turbo.png"]
    assert read_depth_map(tmp_path / "picture-depth.png").bits == 16
    with Image.open(tmp_path / "picture-depth-turbo.png") as view:
        assert view.size == (80, 48)


def test_estimate_several_into_a_folder_with_adjustments(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    other = tmp_path / "other.png"
    Image.open(picture).rotate(180).save(other)
    assert run("estimate", picture, other, "-m", model, "-o", "maps", "--invert", "--gamma", 2).code == 0
    assert left(tmp_path / "maps") == {"picture-depth.png", "other-depth.png"}


def test_estimate_keeps_raw_values_in_npy(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    assert run("estimate", picture, "-m", model, "-o", "raw.npy").code == 0
    assert np.load(tmp_path / "raw.npy").dtype == np.float32


def test_generate_is_repeatable_and_says_what_it_used(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    arguments = ("generate", picture, "-m", model, "-p", "a red box", "--seed", 4, *QUICK, "--json")
    first = run(*arguments, "-o", "one.png")
    assert first.code == 0, first.err
    assert run(*arguments, "-o", "two.png").code == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    [result] = first.json()["results"]
    with Image.open(tmp_path / "one.png") as made:
        infotext = made.text["parameters"]
    assert result == {"picture": str(picture), "files": ["one.png"], "seed": 4, "infotext": infotext}
    assert infotext.startswith("a red box\n") and "Seed: 4" in infotext
    assert first.json()["settings"]["prompt"] == "a red box"


def test_generate_with_mask_own_map_and_saved_map(
    run: Run, model: Path, picture: Path, mask: Path, tmp_path: Path
) -> None:
    DepthMap(np.tile(np.linspace(0, 1, 80, dtype=np.float32), (48, 1))).save(tmp_path / "own.tiff")
    result = run(
        *("generate", picture, "-m", model, "--mask", mask, "--mask-blur", 0, "--depth", "own.tiff", *QUICK),
        *("--masked-content", "fill", "--save-map", "--append-map", "--inpaint-area", "only masked"),
    )
    assert result.code == 0, result.err
    done = np.asarray(Image.open(tmp_path / "picture-depth2img.png"))
    kept = np.asarray(Image.open(mask)) == 0
    assert np.array_equal(done[kept], np.asarray(Image.open(picture))[kept])
    saved = read_depth_map(tmp_path / "picture-depth2img-depth.png")
    assert saved.bits == 16
    assert saved.values[10, 5] < saved.values[10, -5], "the map rises from left to right"
    assert (tmp_path / "picture-depth2img-depth-view.png").exists()


def test_generate_with_depth_of_another_picture(run: Run, model: Path, picture: Path) -> None:
    assert run("generate", picture, "-m", model, "--depth-from", picture, "-o", "out.webp", *QUICK).code == 0


def test_compare_draws_a_labelled_grid(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    result = run("compare", picture, "-m", model, "--strength", 0.5, "--strength", 1, *QUICK, "--json")
    assert result.code == 0, result.err
    assert [row["denoising_strength"] for row in result.json()["correlation"]] == [0.5, 1.0]
    with Image.open(tmp_path / "picture-compare.png") as figure:
        # Three columns of 96 pixels, two rows of 64, and room for labels.
        assert figure.width > 3 * 96
        assert figure.height > 2 * 64


def test_convert_there_and_back(run: Run, model: Path, tmp_path: Path) -> None:
    first = run("convert", model, "folder", "--ledger", "ledger.json", "--json")
    assert first.code == 0, first.err
    assert run("checkpoint", "convert", "folder", "again.safetensors").code == 0
    one, two = load_file(model), load_file(tmp_path / "again.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert len(ledger["tensors"]) == sum(first.json()["counts"].values()) == len(one)


def test_inspect_says_yes_no_or_why_not(run: Run, model: Path, tmp_path: Path) -> None:
    good = run("checkpoint", "inspect", model, "--hash", "--json")
    assert good.code == 0, good.err
    assert good.json()["usable"] and len(good.json()["sha256"]) == 64
    model.with_suffix(".yaml").rename(tmp_path / "right.yaml")
    try:
        model.with_suffix(".yaml").write_text("no description")
        bad = run("checkpoint", "inspect", model)
    finally:
        (tmp_path / "right.yaml").rename(model.with_suffix(".yaml"))
    assert bad.code == 1 and "Fault: small.yaml" in bad.out and "does not work" in bad.out
    (tmp_path / "page.ckpt").write_text("<html>")
    refused(run("checkpoint", "inspect", "page.ckpt"), "an HTML page")


def test_setup_shows_a_plan_asks_and_does_it(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    refused(run("checkpoint", "setup", model), "--webui")
    first = run("checkpoint", "setup", model, "--ckpt-dir", folder)
    assert first.code == 0 and "linked" in first.err and "choose small" in first.out
    assert "Nothing to do" in run("checkpoint", "setup", model, "--ckpt-dir", folder).out
    (folder / "small.yaml").write_text("no description")
    refused(run("checkpoint", "setup", folder / "small.safetensors", "--ckpt-dir", folder), "Add --yes")
    assert (folder / "small.yaml").read_text() == "no description"
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run("checkpoint", "setup", folder / "small.safetensors", "--ckpt-dir", folder).code == 130
    last = run("checkpoint", "setup", folder / "small.safetensors", "--ckpt-dir", folder, "--yes", "--json")
    assert last.json()["yaml"] == "replace" and Path(last.json()["backup"]).read_text() == "no description"
    assert left(folder) == {"small.safetensors", "small.yaml", "small.yaml.bak"}


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


def test_demo_fills_a_folder_and_says_what_is_next(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("depth2img.cli.demo.STRENGTHS", (0.5, 1.0))
    result = run("demo", "-m", model, "-o", "shown")
    assert result.code == 0, result.err
    wanted = {"input.png", "depth.png", "compare.png", "light.png", "repainted.png", "removed.png", "scores.json"}
    assert wanted <= left(tmp_path / "shown")
    assert "Next:" in result.out
    scores = json.loads((tmp_path / "shown" / "scores.json").read_text())
    assert len(scores["comparison"]) == 2
    assert set(scores["structure"]) == {"recoloured", "light", "repainted", "removed"}


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["estimate", "generate", "compare", "convert", "demo", "app"])
def test_help_has_examples(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"depth2img {command}" in result.out


def test_every_depth_option_is_a_flag_with_its_own_help(run: Run) -> None:
    text = " ".join(run("generate", "--help").out.split())
    renamed = {"depth_map": "--depth ", "reference": "--depth-from"}
    for name, option in OPTIONS.items():
        if name not in ("source", *WEBUI_ONLY):  # follows from the files that are given
            assert renamed.get(name, "--" + name.replace("_", "-")) in text
            assert " ".join(option.help.split()) in text


def test_help_loads_no_engine() -> None:
    code = (
        "import sys\nfrom depth2img.cli import app\n"
        "try: app(['generate', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'diffusers', 'transformers', 'gradio', 'open_clip', 'timm', 'scipy'}.intersection(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what a user can correct ------------------------------------------------------------------------------------------


def refused(result: Result, *words: str) -> None:
    """Exit code 2, nothing on stdout, one sentence or two on stderr with the words, no traceback."""
    assert result.code == 2, (result.code, result.out, result.err)
    assert result.out == ""
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def test_missing_and_foreign_files(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:10_000])
    (tmp_path / "empty.png").write_bytes(b"")
    before = left(tmp_path)
    refused(run("generate", "nowhere.png", "-m", model), "nowhere.png", "cannot be read")
    refused(run("generate", "text.png", "-m", model), "not a picture")
    refused(run("generate", "empty.png", "-m", model), "not a picture")
    refused(run("generate", picture, "-m", "cut.safetensors"), "truncated")
    refused(run("generate", picture, "-m", "nowhere.safetensors"), "no model")
    refused(run("generate", picture, "-m", picture), "neither a safetensors nor a PyTorch file")
    refused(run("convert", "text.png", "folder"), "neither a safetensors nor a PyTorch file")
    assert left(tmp_path) == before


def test_sizes(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    Image.new("1", (100_000, 1)).save(huge)
    refused(run("estimate", huge, "-m", model), "too large", "100000 x 1")
    other = tmp_path / "other.png"
    Image.new("L", (10, 10), 255).save(other)
    refused(run("generate", picture, "-m", model, "--mask", other, *QUICK), "another size", "10 x 10")
    refused(run("generate", picture, "-m", model, "--width", 100_000), "'width'")


def test_depth_files(run: Run, model: Path, picture: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((4, 5), np.nan, np.float32))
    refused(run("generate", picture, "-m", model, "--depth", "nan.npy", *QUICK), "NaN")
    both = ("--depth", "nan.npy", "--depth-from", picture)
    refused(run("generate", picture, "-m", model, *both), "not both")
    refused(run("generate", picture, "-m", model, "--depth", "nan.npy", "--no-enabled"), "no effect")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--gamma", "100"], "gamma"),
        (["--near", "0.2", "--far", "0.5"], "near"),
        (["--steps", "many"], "many"),
        (["--steps", "1000"], "steps"),
        (["--sampler", "plms"], "plms"),
        (["--device", "tpu"], "tpu"),
        (["--dtype", "float16", "--device", "cpu"], "float16"),
        (["--model", "nobody/nothing/at/all"], "no model"),
        (["-o", "out.bmp"], "out.bmp"),
        (["-o", "nowhere/out.png"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(run: Run, model: Path, picture: Path, arguments: list[str], word: str) -> None:
    refused(run("generate", picture, "-m", model, *arguments), word)


def test_results_never_overwrite_the_picture(run: Run, model: Path, picture: Path) -> None:
    refused(run("generate", picture, "-m", model, "-o", picture, *QUICK), "overwrite")


def test_several_pictures_need_a_folder(run: Run, model: Path, picture: Path) -> None:
    refused(run("generate", picture, picture, "-m", model, "-o", "one.png", *QUICK), "need a folder")
    refused(run("generate", picture, "-m", model, "--mask", picture, "--mask", picture, *QUICK), "one mask")


def test_unwritable_folder(
    run: Run, model: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.touch

    def refuse(self: Path, *given: Any, **more: Any) -> None:
        if self.suffix == LOCK:
            raise PermissionError(13, "Permission denied")
        original(self, *given, **more)

    monkeypatch.setattr(Path, "touch", refuse)  # root may write anywhere, so it is told no
    before = left(tmp_path)
    refused(run("estimate", picture, "-m", model), "cannot be written", "Permission denied")
    refused(run("generate", picture, "-m", model, *QUICK), "cannot be written")
    refused(run("convert", model, "new.safetensors"), "cannot be written")
    assert left(tmp_path) == before


def test_interruption_leaves_nothing(
    run: Run, model: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from depth2img.diffusion import sampling

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "decode", interrupt)
    before = left(tmp_path)
    result = run("generate", picture, "-m", model, *QUICK)
    assert result.code == 130
    assert "Interrupted" in result.err
    assert left(tmp_path) == before


# --- fetching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mirror.Mirror]:
    """A mirror, and a table that names it in own.yaml."""
    monkeypatch.setenv("NO_PROXY", "*")
    data = mirror.content()
    with mirror.running(data) as source:
        digest = mirror.published(data=data).sha256
        lines = [f"depth.safetensors: {{size: {len(data)}, sha256: '{digest}', urls: ['{source.url}']}}"]
        lines += [f"other.safetensors: {{size: {len(data)}, urls: ['{tmp_path}/depth.safetensors']}}"]
        (tmp_path / "own.yaml").write_text("\n".join(lines), encoding="utf-8")
        yield source


FETCH = ("checkpoint", "fetch", "depth", "--mirrors", "own.yaml", "-o", ".")


def test_fetch_lists_what_there_is(run: Run, mirrors: mirror.Mirror, tmp_path: Path) -> None:
    result = run("checkpoint", "fetch", "--list")
    assert result.code == 0
    assert result.out.startswith("File          512-depth-ema-fp16.safetensors")
    for words in ("2.85 GB", "huggingface.co", "1edad0394713", "CreativeML Open RAIL++-M"):
        assert words in result.out
    files = run(*FETCH, "--list", "--json").json()["files"]
    assert [one["file"] for one in files][-2:] == ["depth.safetensors", "other.safetensors"]
    assert files[-2]["bytes"] == [mirror.LENGTH] * 2 and files[-2]["urls"] == [mirrors.url]
    assert mirrors.requests == [] and left(tmp_path) == {"own.yaml"}


def test_fetch_says_what_and_asks(run: Run, mirrors: mirror.Mirror, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    asked = run(*FETCH, "-o", "models")
    assert asked.code == 2 and "no terminal to ask for confirmation; add --yes" in asked.err
    assert mirrors.requests == []
    done = run(*FETCH, "-o", "models", "--yes")
    assert done.code == 0
    assert "Size          200,003 bytes" in done.err and "From          127.0.0.1:" in done.err
    assert "200,003 bytes received" in done.out and "The SHA-256 is the published one." in done.out
    assert (tmp_path / "models/depth.safetensors").read_bytes() == mirrors.data
    again = run(*FETCH, "-o", "models", "--yes", "--json").json()
    assert (again["received"], again["source"], again["verified"]) == (0, None, True)
    assert left(tmp_path) == {"own.yaml", "models"} and left(tmp_path / "models") == {"depth.safetensors"}


def test_fetch_on_a_terminal(run: Run, mirrors: mirror.Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer in ("n", "y"):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _, answer=answer: answer)
        result = run(*FETCH)
        assert result.code == 0 and ("Nothing was fetched." in result.err) == (answer == "n")
        assert (tmp_path / "depth.safetensors").exists() == (answer == "y")


def test_fetch_without_a_hash(run: Run, mirrors: mirror.Mirror, tmp_path: Path) -> None:
    (tmp_path / "depth.safetensors").write_bytes(mirrors.data)
    (tmp_path / "models").mkdir()
    arguments = ("checkpoint", "fetch", "other", "--mirrors", "own.yaml", "-o", "models", "--yes")
    refused(run(*arguments), "No SHA-256 of other.safetensors is known")
    done = run(*arguments, "--unverified")
    assert done.code == 0 and "It could not be checked" in done.out
    assert f"sha256: '{mirror.published(data=mirrors.data).sha256}'" in done.out


def test_fetch_refuses(run: Run, mirrors: mirror.Mirror, tmp_path: Path) -> None:
    refused(run("checkpoint", "fetch", "nothing", "--yes"), "No such checkpoint is in the table", "Choose one of 512")
    refused(run(*FETCH, "-o", "nowhere", "--yes"), "no such folder")
    refused(run("checkpoint", "fetch", "--mirrors", "none.yaml", "--yes"), "none.yaml cannot be read")
    (tmp_path / "depth.safetensors").write_bytes(b"mine")
    refused(run(*FETCH, "--yes"), "another file than the table's")
    assert run(*FETCH, "--yes", "--replace").code == 0
    assert (tmp_path / "depth.safetensors").read_bytes() == mirrors.data


@pytest.fixture
def small_estimator(mirrors: mirror.Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of an estimator that a table of the user's names on the mirror."""
    data, name = mirrors.data, "depth_anything_v2_tiny.safetensors"
    entry = {"kind": "estimator", "size": len(data), "sha256": mirror.published(data=data).sha256}
    further = {"about": "Tiny", "licence": "CC0", "urls": [mirrors.url]}
    (tmp_path / "estimators.yaml").write_text(json.dumps({name: {**entry, **further}}), encoding="utf-8")
    monkeypatch.setenv("DEPTH2IMG_MIRRORS", str(tmp_path / "estimators.yaml"))
    return name


def test_estimators_are_listed(run: Run, small_estimator: str, mirrors: mirror.Mirror, tmp_path: Path) -> None:
    result = run("estimator", "list")
    assert result.code == 0 and result.out.startswith("File          Depth-Anything-V2-Small.safetensors")
    for words in ("Apache-2.0", "CC-BY-NC-4.0 (not for commercial use)", "3152477ce0d8", "not known: the file cannot"):
        assert words in result.out
    assert "512-depth-ema" not in result.out and "Tiny" in result.out
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / small_estimator).touch()
    assert run("estimator", "list", "--folder", "models").out.strip().endswith("In models: depth_anything_v2_tiny.")
    found = run("estimator", "list", "--folder", "models", "--json").json()
    assert found["installed"] == ["depth_anything_v2_tiny"] and found["files"][-1]["file"] == small_estimator
    assert mirrors.requests == []


def test_an_estimator_is_fetched(run: Run, small_estimator: str, mirrors: mirror.Mirror, tmp_path: Path) -> None:
    (tmp_path / "webui" / "models").mkdir(parents=True)
    (tmp_path / "webui" / "webui.py").touch()
    command = ("estimator", "fetch", "depth_anything_v2_tiny")
    asked = run(*command, "--webui", "webui")
    assert asked.code == 2 and "no terminal to ask" in asked.err and mirrors.requests == []
    assert "Licence       CC0" in asked.err
    mirrors.plan = [mirror.stop_after(70_000)]
    done = run(*command, "--webui", "webui", "--yes")
    assert done.code == 0, done.err
    assert "The SHA-256 is the published one." in done.out and "Choose depth_anything_v2_tiny as the" in done.out
    assert [one.get("range") for one in mirrors.requests] == [None, "bytes=70000-"], "resumed"
    folder = tmp_path / "webui/models/depth2img"
    assert (folder / small_estimator).read_bytes() == mirrors.data and left(folder) == {small_estimator}
    there = run(*command, "--webui", "webui", "--yes", "--json").json()
    assert (there["received"], there["estimator"]) == (0, "depth_anything_v2_tiny")
    (tmp_path / "models").mkdir()
    said = run(*command, "-o", "models", "--yes")
    assert f"--estimator {Path('models') / small_estimator}" in said.out


def test_estimators_that_are_refused(run: Run, small_estimator: str, tmp_path: Path) -> None:
    refused(run("estimator", "fetch", "512-depth-ema.ckpt", "-o", ".", "--yes"), "No such estimator is in the table")
    unknown = ("estimator", "fetch", "Depth-Anything-V2-Metric-Indoor-Small", "-o", ".", "--yes")
    refused(run(*unknown), "No SHA-256 of Depth-Anything-V2-Metric-Indoor-Small.safetensors is known")
    refused(run("estimator", "fetch", "--yes"), "It is not known where the WebUI is")
    both = run("estimator", "fetch", "--webui", "webui", "-o", ".", "--yes")
    assert both.code == 2 and "Say either" in both.err


def test_fetch_into_a_webui(run: Run, mirrors: mirror.Mirror, model: Path, tmp_path: Path) -> None:
    """From nothing to a checkpoint that can be chosen: the file and its YAML where the WebUI looks."""
    (tmp_path / "webui" / "models").mkdir(parents=True)
    (tmp_path / "webui" / "webui.py").touch()
    mirrors.data = model.read_bytes()
    entry = {"size": len(mirrors.data), "sha256": mirror.published(data=mirrors.data).sha256, "urls": [mirrors.url]}
    (tmp_path / "own.yaml").write_text(json.dumps({"small.safetensors": entry}), encoding="utf-8")
    arguments = ("checkpoint", "fetch", "small", "--mirrors", "own.yaml", "--yes")
    refused(run(*arguments), "It is not known where the WebUI is")
    assert run(*arguments, "--webui", "webui", "-o", ".").code == 2
    done = run(*arguments, "--webui", "webui")
    assert done.code == 0 and "Refresh the WebUI's list of checkpoints and choose small" in done.out
    folder = tmp_path / "webui" / "models" / "Stable-diffusion"
    assert left(folder) == {"small.safetensors", "small.yaml"}
    assert (folder / "small.yaml").read_bytes() == model.with_suffix(".yaml").read_bytes()
    values = run(*arguments, "--webui", "webui", "--json").json()
    assert values["received"] == 0 and values["setup"]["yaml"] == "keep"
    assert run("checkpoint", "inspect", folder / "small.safetensors").code == 0


def test_fetch_interrupted_goes_on(
    run: Run, mirrors: mirror.Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    mirrors.plan = [mirror.stop_after(90_000)]
    monkeypatch.setattr("time.sleep", interrupt)
    result = run(*FETCH, "--yes")
    assert result.code == 130 and "the same command resumes it" in result.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("DEPTH2IMG_MIRRORS", "own.yaml")
    done = run("checkpoint", "fetch", "depth.safetensors", "-o", ".", "--yes")
    assert "110,003 bytes received, and 90,000 bytes by an earlier run" in done.out


# --- guides -----------------------------------------------------------------------------------------------------------


def commands(group: click.Group) -> Iterator[click.Command]:
    """All commands of a group and of the groups in it."""
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


def examples() -> list[str]:
    """Every command line in the guides and in the commands' own help."""
    from depth2img.cli.root import app

    docs = Path(__file__).parents[2] / "docs"
    guides = [(docs / f"{name}.md").read_text(encoding="utf-8") for name in ("standalone", "checkpoints")]
    texts = [*guides, *(command.epilog or "" for command in commands(app))]
    lines = [line.strip().partition(" #")[0] for text in texts for line in text.replace("\\\n", "").splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith("depth2img ")))


@pytest.mark.parametrize("line", examples())
def test_examples_are_command_lines_that_exist(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from depth2img.cli.root import app

    words, command = shlex.split(line)[1:], app
    monkeypatch.chdir(tmp_path)
    if "--from" in words:  # the one file that is read with the flags
        infotext = "a cube\nSteps: 4, Sampler: Euler, Seed: 1"
        save_picture(np.zeros((8, 8, 3), np.uint8), Path(words[words.index("--from") + 1]), infotext=infotext)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


def test_there_are_examples() -> None:
    assert len(examples()) > 15
