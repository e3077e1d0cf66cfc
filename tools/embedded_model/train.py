"""The stages in order; each continues from its checkpoint, and is passed over once it is complete.

    python -m tools.embedded_model --work FOLDER

needs about three hours on one thread with a core to itself (render 4 minutes, estimator 10,
autoencoder 45, encoding 6, diffusion 75, decoder 5, evaluation 10; more on a busy machine) and makes
weights of the quality in the model card. `--longer 2` sees twice as many samples. `--workers 2` trains
the two long stages on two cores. A deadline shortens a stage instead: the rate then falls
with the clock.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.dataset import Rendered, load_or_render
from tools.embedded_model.evaluate import evaluate
from tools.embedded_model.export import Networks, read, write
from tools.embedded_model.loop import one_thread, save_atomically
from tools.embedded_model.plan import PLAN, Plan
from tools.embedded_model.scenes import HELD_OUT_SEEDS, TRAINING_SEEDS
from tools.embedded_model.stage_depth import train_depth
from tools.embedded_model.stage_diffusion import train_denoiser
from tools.embedded_model.stage_latents import Encoded, encode_set
from tools.embedded_model.stage_vae import refine_decoder, train_vae

STAGES = ("render", "depth", "vae", "encode", "unet", "decoder", "export", "evaluate")


def deadlines(texts: list[str]) -> dict[str, float]:
    """["unet=16:45", ...] -> {"unet": seconds since the epoch}, each the next such time of day."""
    out = {}
    for text in texts:
        stage, _, clock = text.partition("=")
        hours, _, minutes = clock.partition(":")
        now = time.localtime()
        then = time.mktime((now.tm_year, now.tm_mon, now.tm_mday, int(hours), int(minutes), 0, 0, 0, -1))
        out[stage] = then
    return out


def rendered_sets(plan: Plan, work: Path, workers: int) -> tuple[Rendered, Rendered]:
    """Training and held-out scenes."""
    training = load_or_render(work / "training.pkl", TRAINING_SEEDS[: plan.geometries], plan.looks, workers=workers)
    held_out = load_or_render(work / "held-out.pkl", HELD_OUT_SEEDS[: plan.held_out], 1, workers=workers)
    return training, held_out


def depth_stage(training: Rendered, plan: Plan, work: Path, deadline: float) -> TinyDepthNet:
    """The estimator."""
    relative, solid = torch.from_numpy(training.relative_depth()), torch.from_numpy(training.regions) >= 2
    return train_depth(torch.from_numpy(training.pictures), relative, solid, plan, work, deadline=deadline)


def encode_stage(training: Rendered, vae: AutoencoderKL, depth: TinyDepthNet, plan: Plan, work: Path) -> Encoded:
    """Latents, conditioning and captions, kept on disk."""
    path = work / "encoded.pt"
    if not path.exists():
        encoded = encode_set(training.first_looks(plan.encoded_looks), vae, depth, plan.captions, plan.seed)
        save_atomically(vars(encoded), path)
    return Encoded(**torch.load(path, weights_only=True))


def run(plan: Plan, work: Path, *, workers: int, until: str, ends: dict[str, float]) -> None:
    """Every stage up to and with `until`."""
    last = STAGES.index(until)
    training, held_out = rendered_sets(plan, work, workers)
    pictures = torch.from_numpy(training.pictures).flatten(0, 1)
    if last < STAGES.index("depth"):
        return
    depth = depth_stage(training, plan, work, ends.get("depth", 0.0))
    if last < STAGES.index("vae"):
        return
    vae = train_vae(pictures, plan, work, workers=workers, deadline=ends.get("vae", 0.0))
    if last < STAGES.index("encode"):
        return
    encoded = encode_stage(training, vae, depth, plan, work)
    if last < STAGES.index("unet"):
        return
    denoiser = train_denoiser(encoded, plan, work, workers=workers, deadline=ends.get("unet", 0.0))
    if last < STAGES.index("decoder"):
        return
    seen = torch.from_numpy(training.pictures[:, : plan.encoded_looks]).flatten(0, 1)
    latents = encoded.latents / encoded.scaling_factor
    vae = refine_decoder(vae, seen, latents, plan, work, deadline=ends.get("decoder", 0.0))
    if last < STAGES.index("export"):
        return
    path = work / "export" / "depth2img-tiny.safetensors"
    path.parent.mkdir(exist_ok=True)
    networks = Networks(denoiser.unet, vae, denoiser.text, depth, encoded.scaling_factor)
    print(f"{path.name}: {write(networks, path, {'seed': plan.seed})} bytes")
    if until == "evaluate":
        print(evaluate(read(path), training, held_out, work / "export", count=plan.held_out))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for sets, checkpoints, logs and the result")
    parser.add_argument("--workers", type=int, default=1, help="single-threaded processes on the same weights")
    parser.add_argument("--until", choices=STAGES, default="evaluate", help="last stage to run")
    parser.add_argument(
        "--deadline", action="append", default=[], metavar="STAGE=HH:MM", help="end a stage by the clock"
    )
    parser.add_argument(
        "--longer", type=float, default=1.0, metavar="FACTOR", help="train on so many times the samples"
    )
    arguments = parser.parse_args()
    plan = PLAN if arguments.longer == 1.0 else PLAN.longer(arguments.longer)
    one_thread()
    torch.manual_seed(plan.seed)
    arguments.work.mkdir(parents=True, exist_ok=True)
    run(plan, arguments.work, workers=arguments.workers, until=arguments.until, ends=deadlines(arguments.deadline))
