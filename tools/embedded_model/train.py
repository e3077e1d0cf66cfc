"""The whole training, from nothing to weights, table and sheet, within a number of seconds.

    python -m tools.embedded_model --seconds 440 --work FOLDER --out FOLDER [--device cuda]

Every stage gets a share of the seconds (`plan.SHARES`) and goes on from what the work folder holds. If a stage fails,
those after it work with what there is, and the failure is in the log.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from diffusers import AutoencoderKL

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.dataset import Rendered, render_set
from tools.embedded_model.evaluate import Judges, evaluate, format_table
from tools.embedded_model.export import Networks, read, split, write
from tools.embedded_model.judges import JointNet, StyleNet
from tools.embedded_model.loop import LOG
from tools.embedded_model.models import build_depth, build_vae
from tools.embedded_model.plan import SHARES, Plan
from tools.embedded_model.scenes import TRAINING_SEEDS
from tools.embedded_model.stage_depth import train_depth, train_joints, train_style
from tools.embedded_model.stage_diffusion import Denoiser, train_denoiser
from tools.embedded_model.stage_latents import Encoded, encode_set
from tools.embedded_model.stage_vae import refine_decoder, train_vae

NAME: Final = "depth2img-tiny"
Made = TypeVar("Made")
Net = TypeVar("Net", bound=torch.nn.Module)


@dataclass
class Clock:
    """Seconds of every stage, and what went wrong."""

    total: float
    begun: float = field(default_factory=time.monotonic)
    used: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds that are not used up."""
        return self.total - (time.monotonic() - self.begun)

    def stage(self, name: str, work: Callable[[], Made], otherwise: Callable[[], Made]) -> Made:
        """Run a stage; if it fails, log why and go on with something else in its place."""
        start = time.monotonic()
        LOG.info("%s: begins, %.0f s left", name, self.left)
        try:
            return work()
        except Exception as error:
            LOG.exception("%s: failed", name)
            self.failed[name] = repr(error)
            return otherwise()
        finally:
            self.used[name] = time.monotonic() - start
            LOG.info("%s: %.1f s%s", name, self.used[name], _memory())


def _memory() -> str:
    if not torch.cuda.is_available():
        return ""
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return f", peak {peak:.1f} GiB"


def _kept(folder: Path, name: str, fresh: Net) -> Net:
    """Load what a stage that failed kept last, or return the network as it was."""
    path = folder / f"{name}.ckpt"
    if path.exists():
        fresh.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["mean"])
    return fresh.eval().requires_grad_(False)


@dataclass(frozen=True)
class Run:
    """A training: its numbers, its folder and device, its clock."""

    plan: Plan
    work: Path
    device: torch.device
    clock: Clock
    workers: int

    def seconds(self, name: str) -> float:
        """Return the seconds that a stage may use: its share of what is left for it and for those after it."""
        names = list(SHARES)
        later = sum(SHARES[other] for other in names[names.index(name) :])
        return max(0.0, self.clock.left) * SHARES[name] / later

    def rendered(self) -> Rendered:
        """Render the training set; nothing else can be done without it."""
        plan = self.plan
        return render_set(
            TRAINING_SEEDS[: plan.scenes], plan, self.device, workers=self.workers, seconds=self.seconds("render")
        )

    def estimator(self, data: Rendered, start: Networks | None) -> TinyDepthNet:
        """Train the depth estimator; that of an earlier model stays as it is, since its UNet knows its maps."""
        if start is not None:
            return start.depth
        net: TinyDepthNet = self.clock.stage(
            "depth", lambda: train_depth(data, self.plan, self.work, self.seconds("depth")),
            lambda: _kept(self.work, "depth", build_depth()).to(self.device),
        )  # fmt: skip
        return net

    def judges(self, data: Rendered, start: Judges | None) -> Judges:
        """Train the judges; those of an earlier training judge alike."""
        if start is not None:
            return start
        style: StyleNet = self.clock.stage(
            "style", lambda: train_style(data, self.plan, self.work, self.seconds("style")),
            lambda: _kept(self.work, "style", StyleNet()).to(self.device),
        )  # fmt: skip
        joints: JointNet = self.clock.stage(
            "joints", lambda: train_joints(data, self.plan, self.work, self.seconds("joints")),
            lambda: _kept(self.work, "joints", JointNet()).to(self.device),
        )  # fmt: skip
        return Judges(style, joints, data.mean_depth())

    def autoencoder(self, data: Rendered, start: Networks | None) -> AutoencoderKL:
        """Train the autoencoder; that of an earlier model stays as it is, since its UNet knows its latents."""
        if start is not None:
            return start.vae
        net: AutoencoderKL = self.clock.stage(
            "vae", lambda: train_vae(data.pictures.flatten(0, 1), self.plan, self.work, self.seconds("vae")),
            lambda: _kept(self.work, "vae", build_vae()).to(self.device),
        )  # fmt: skip
        return net

    def denoiser(self, encoded: Encoded, start: Networks | None) -> Denoiser:
        """UNet and text encoder."""
        fresh = Denoiser() if start is None else Denoiser.of(start)
        net: Denoiser = self.clock.stage(
            "unet", lambda: train_denoiser(fresh.to(self.device), encoded, self.plan, self.work, self.seconds("unet")),
            lambda: _kept(self.work, "unet", Denoiser()).to(self.device),
        )  # fmt: skip
        return net

    def decoder(self, vae: AutoencoderKL, data: Rendered, encoded: Encoded) -> AutoencoderKL:
        """Refine the autoencoder's decoder."""
        latents, pictures = encoded.latents, data.pictures.flatten(0, 1)[: len(encoded.latents)]
        kept = {key: value.clone() for key, value in vae.state_dict().items()}

        def before() -> AutoencoderKL:
            vae.load_state_dict(kept)
            return vae.eval().requires_grad_(False)

        def refined() -> AutoencoderKL:
            seconds = self.seconds("decoder")
            return refine_decoder(vae, pictures, latents, encoded.scaling_factor, self.plan, self.work, seconds)

        return self.clock.stage("decoder", refined, before)


def run(training: Run, out: Path, start: Networks | None = None, judged: Judges | None = None) -> dict[str, Any]:
    """Every stage; write the model's parts, the judges, table, sheet and summary to `out`; return the summary."""
    clock, plan, device = training.clock, training.plan, training.device
    data: Rendered = clock.stage("render", training.rendered, training.rendered)
    LOG.info("render: %d scenes with %d looks", *data.pictures.shape[:2])
    depth, judges = training.estimator(data, start), training.judges(data, judged)
    vae = training.autoencoder(data, start)
    factor = None if start is None else start.scaling_factor

    def encode() -> Encoded:
        return encode_set(data, vae, depth, training.seconds("latents"), factor)

    encoded = clock.stage("latents", encode, encode)
    denoiser = training.denoiser(encoded, start)
    vae = training.decoder(vae, data, encoded)
    scenes = len(data.pictures)
    path = training.work / f"{NAME}.safetensors"
    networks = Networks(denoiser.unet, vae, denoiser.text, depth, encoded.scaling_factor)
    notes = {"seed": plan.seed, "scenes": scenes, "looks": plan.looks, "seconds": clock.used}

    def exported() -> int:
        size = write(networks, path, notes)
        split(path, out)
        judges.save(out / "judges.safetensors")
        return size

    size = clock.stage("export", exported, lambda: 0)
    metrics: dict[str, Any] = clock.stage("evaluate", lambda: evaluate(
        read(path).to(device), judges, out, plan.held_out, plan.side), dict)  # fmt: skip
    summary = {"bytes": size, "scenes": scenes, "seconds": clock.used, "failed": clock.failed, "metrics": metrics}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and the whole file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=float, required=True, help="for everything, evaluation included")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="processes that draw scenes"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--start", type=Path, help="an exported model to train on: its autoencoder and estimator stay")
    parser.add_argument("--judges", type=Path, help="judges.safetensors of an earlier training, in place of new ones")
    parser.add_argument("--compile", dest="compiled", action="store_true", help="compile the UNet's training step")
    for name in ("scenes", "looks", "held_out", "side", "vae_batch", "unet_batch", "judge_batch"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Plan, name))
    for name in ("unet_rate", "vae_rate"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Plan, name))
    arguments = parser.parse_args()
    clock = Clock(arguments.seconds)
    for folder in (arguments.work, arguments.out):
        folder.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(arguments.out / "training.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    chosen = {key: value for key, value in vars(arguments).items() if hasattr(Plan, key)}
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(Plan.seed)
    start = None if arguments.start is None else read(arguments.start).to(device)
    training = Run(replace(Plan(), **chosen), arguments.work, device, clock, arguments.workers)
    judged = None if arguments.judges is None else Judges.load(arguments.judges, device)
    summary = run(training, arguments.out, start, judged)
    LOG.info("all: %.1f s, failed: %s", arguments.seconds - clock.left, summary["failed"] or "nothing")
    if summary["metrics"]:
        LOG.info("\n%s", format_table(summary["metrics"]["table"], summary["metrics"]["psnr_db"]))
