"""The training of the embedded model: its loop, its clock, the form of its results, and a whole run, small."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from depth2img.embedded import WEIGHTS, open_embedded
from depth2img.embedded.depth_net import TinyDepthNet
from tools import training_curves
from tools.embedded_model import evaluate, export, train
from tools.embedded_model.evaluate import Judges
from tools.embedded_model.export import Networks, join, read, split, write
from tools.embedded_model.judges import JointNet, StyleNet
from tools.embedded_model.loop import Schedule
from tools.embedded_model.loop import train as train_stage
from tools.embedded_model.models import build_depth, build_text, build_unet, build_vae
from tools.embedded_model.plan import Plan
from tools.embedded_model.stage_diffusion import Denoiser

SCHEDULE = Schedule("line", seconds=0.6, rate=0.05, seed=3, warm_up=1, mean_decay=0.5)


def line_loss(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Fit y = 3x - 1."""
    x = torch.randn(4, 1, generator=generator)
    loss = (model(x) - (3 * x - 1)).pow(2).mean()
    return loss, {"loss": loss.detach()}


def fresh() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(1, 1)


def kept(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "line.ckpt", weights_only=True)
    return state


def test_a_stage_learns_and_is_passed_over_once_it_is_over(tmp_path: Path) -> None:
    whole = train_stage(fresh(), line_loss, SCHEDULE, tmp_path)
    assert abs(whole.weight.item() - 3) < 0.1
    assert abs(whole.bias.item() + 1) < 0.1
    steps = kept(tmp_path)["step"]
    again = train_stage(fresh(), line_loss, dataclasses.replace(SCHEDULE, seconds=5.0), tmp_path)
    assert torch.equal(again.weight, whole.weight)  # what came after it rests on these
    assert kept(tmp_path)["step"] == steps


def test_a_stage_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """A stage resumes from its last checkpoint: weights, moments, steps and seconds."""

    class CutOffError(Exception):
        pass

    def cut(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        if progress > 0.5:
            raise CutOffError
        return line_loss(model, generator, progress)

    often = dataclasses.replace(SCHEDULE, keep_seconds=0.0)
    with pytest.raises(CutOffError):
        train_stage(fresh(), cut, often, tmp_path)
    before = kept(tmp_path)
    assert 0.2 < before["seconds"] < 0.5
    seen: list[float] = []

    def rest(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        if not seen:
            assert torch.equal(model.weight, before["model"]["weight"])
        seen.append(progress)
        return line_loss(model, generator, progress)

    train_stage(fresh(), rest, often, tmp_path)
    assert seen[0] >= before["seconds"] / SCHEDULE.seconds
    assert kept(tmp_path)["step"] == before["step"] + len(seen)


def test_the_rate_warms_up_and_falls() -> None:
    slow = dataclasses.replace(SCHEDULE, warm_up=10, constant=0.4, floor=0.1)
    assert slow.rate_at(0, 0.0) == pytest.approx(0.005)
    assert slow.rate_at(100, 0.4) == pytest.approx(0.05)
    assert slow.rate_at(100, 0.7) == pytest.approx(0.05 * 0.55)
    assert slow.rate_at(100, 1.0) == pytest.approx(0.005)


def test_what_fails_is_logged_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    clock = train.Clock(10.0)

    def broken() -> int:
        raise RuntimeError("out of memory")

    with caplog.at_level(logging.INFO, "training"):
        assert clock.stage("unet", broken, lambda: 7) == 7
    assert clock.failed == {"unet": "RuntimeError('out of memory')"}
    assert "Traceback" in caplog.text
    assert clock.used["unet"] >= 0


def test_compiling_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: asked.append(how))
    for name, compiled in (("plain", False), ("compiled", True)):
        assert not asked
        (tmp_path / name).mkdir()
        train_stage(fresh(), line_loss, dataclasses.replace(SCHEDULE, compiled=compiled), tmp_path / name)
    assert asked == [{"dynamic": False, "mode": "reduce-overhead"}]


def test_what_an_earlier_training_made_is_kept(tmp_path: Path, networks: Networks) -> None:
    training = train.Run(Plan(), tmp_path, torch.device("cpu"), train.Clock(1.0), 1)
    judges = Judges(StyleNet(), JointNet(), torch.zeros(256, 256))
    nothing: Any = None  # neither is trained, so that the pictures are not looked at
    assert training.autoencoder(nothing, networks) is networks.vae
    assert training.estimator(nothing, networks) is networks.depth
    assert training.judges(nothing, judges) is judges


def test_the_evaluation_refuses_the_shipped_model(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    judges = tmp_path / "judges.safetensors"
    Judges(StyleNet(), JointNet(), torch.zeros(256, 256)).save(judges)
    words = ["evaluate", str(WEIGHTS), "--judges", str(judges), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "is made for 128 x 128 pixels, the judges for 256" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_log_becomes_curves(tmp_path: Path) -> None:
    log = "\n".join(
        f"22:35:0{n} {stage}: step {n}, {n} %, {n}.5 s, {figures}"
        for stage, figures in (("unet", "eps 0.5000, late 0.2500"), ("vae", "psnr 20.0000, kl 5.0000"))
        for n in (1, 2)
    )
    curves = training_curves.read(log + "\n22:35:09 unet: over after 2 steps, eps 0.1, late 0.1\nTraceback")
    assert curves["unet"] == {"eps": [(1.5, 0.5), (2.5, 0.5)], "late": [(1.5, 0.25), (2.5, 0.25)]}
    assert set(curves) == {"unet", "vae"}
    training_curves.draw(curves, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 100


@pytest.fixture(scope="module")
def networks() -> Networks:
    """The networks at their real size, untrained."""
    torch.manual_seed(5)
    made = Networks(build_unet(), build_vae(), build_text(), build_depth(), 0.3)
    for network in (made.unet, made.vae, made.text, made.depth):
        network.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def exported(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.safetensors"
    assert write(networks, path, {"seed": 5}) == path.stat().st_size <= export.LIMIT_BYTES
    return path


def test_parts_join_to_the_same_file(exported: Path, tmp_path: Path) -> None:
    parts = split(exported, tmp_path)
    assert len(parts) > 1
    assert all(part.stat().st_size <= 15 * 2**20 for part in parts)
    join(list(reversed(parts)), tmp_path / "whole.safetensors")
    with safe_open(exported, "pt") as one, safe_open(tmp_path / "whole.safetensors", "pt") as two:
        assert one.metadata() == two.metadata()
        assert set(one.keys()) == set(two.keys())
        assert all(torch.equal(one.get_tensor(key), two.get_tensor(key)) for key in one.keys())
    with pytest.raises(ValueError, match="another number"):
        join(parts[:1], tmp_path / "half.safetensors")


def test_weights_that_are_not_finite_are_not_written(networks: Networks, tmp_path: Path) -> None:
    broken = build_depth()
    with torch.no_grad():
        broken.head.bias[0] = 1e6  # beyond fp16
    with pytest.raises(ValueError, match="not finite"):
        write(dataclasses.replace(networks, depth=broken), tmp_path / "broken.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_an_exported_model_can_be_trained_on(networks: Networks, exported: Path) -> None:
    """Its text encoder has the short table again, and says the same."""
    again = Denoiser.of(read(exported))
    rows = torch.arange(77)[None]
    with torch.no_grad():
        ours, theirs = (text(input_ids=rows).last_hidden_state for text in (networks.text, again.text.eval()))
    assert float((ours - theirs).abs().max()) < 2e-2  # fp16 weights through two layers; states are of size 1
    assert float(ours.std()) > 0.3


def test_the_library_and_stability_s_code_load_it(exported: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("ldm", reason="Stability's ldm is not installed (tests/requirements-no-deps.txt)")
    import open_clip
    import pytorch_lightning.utilities.rank_zero as rank_zero
    from omegaconf import OmegaConf
    from safetensors.torch import load_file

    from depth2img.checkpoints.conversion import to_single_file
    from depth2img.checkpoints.layout.ldm_yaml import open_clip_config

    monkeypatch.setitem(sys.modules, "pytorch_lightning.utilities.distributed", rank_zero)
    from ldm.util import instantiate_from_config

    path = tmp_path / "single.safetensors"
    to_single_file(open_embedded(exported), path)
    config = OmegaConf.load(path.with_suffix(".yaml"))
    config.model.params.cond_stage_config.params.device = "cpu"
    arch = config.model.params.cond_stage_config.params.arch
    (tmp_path / f"{arch}.json").write_text(json.dumps(open_clip_config(arch)))
    open_clip.add_model_config(tmp_path / f"{arch}.json")
    whole = instantiate_from_config(config.model).eval()
    missing, unexpected = whole.load_state_dict(load_file(path), strict=False)
    assert not missing
    assert not unexpected
    depth = torch.rand(1, 3, 256, 320) * 2 - 1
    with torch.no_grad():
        assert torch.equal(whole.depth_model(depth), read(exported).depth(depth))


@pytest.mark.parametrize(("levels", "side"), [(5, 128), (6, 256)])
def test_an_estimator_works_at_the_size_that_its_levels_set(levels: int, side: int, monkeypatch: Any) -> None:
    net, seen = TinyDepthNet((8, 8, 8, 8, 8, 8)[:levels]).eval(), []
    both = net.both
    monkeypatch.setattr(net, "both", lambda picture: seen.append(tuple(picture.shape[-2:])) or both(picture))
    with torch.no_grad():
        assert net(torch.rand(1, 3, 512, 768) * 2 - 1).shape == (1, 1, 512, 768)
        net(torch.rand(1, 3, 128, 128) * 2 - 1)
    assert seen == [(side, side * 3 // 2), (128, 128)]


def test_a_whole_run_makes_a_model_that_the_engine_opens(tmp_path: Path) -> None:
    """Everything from rendering to the sheet at 64 pixels, within its seconds and what evaluation takes beyond."""
    out = tmp_path / "out"
    words = "--seconds 6 --side 64 --scenes 10 --held-out 2 --vae-batch 2 --unet-batch 2 --judge-batch 2 --workers 1"
    command = [sys.executable, "-m", "tools.embedded_model", "--work", str(tmp_path / "work"), "--out", str(out)]
    subprocess.run([*command, *words.split()], check=True, capture_output=True, timeout=240)
    summary = json.loads((out / "summary.json").read_text())
    assert not summary["failed"]
    assert summary["seconds"]["vae"] < 6
    assert set(summary["metrics"]["table"]) > {"depth on, new caption", "wrestlers out of dancers"}
    made = {path.name for path in out.iterdir()}
    assert made == {"summary.json", "training.log", "sheet.png", "judges.safetensors",
                    "depth2img-tiny.part1.safetensors", "depth2img-tiny.part2.safetensors"}  # fmt: skip
    join(sorted(out.glob("*.part?.safetensors")), tmp_path / "model.safetensors")
    assert open_embedded(tmp_path / "model.safetensors").config.unet["block_out_channels"] == [64, 128, 192]
