"""Quality on held-out scenes: structure, silhouettes, colours, poses, styles; a table with standard errors and a sheet.

Structure is the correlation of the input's true relative inverse depth with the depth estimated from
the output, after the training set's mean map is taken off both: what all scenes share does not count.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tools.embedded_model.dataset import visible_joints
from tools.embedded_model.export import Networks, read
from tools.embedded_model.held_out import OTHER_LIGHT, ROWS_OF_PAIRS, Case, HeldOut, dancers, held_out
from tools.embedded_model.judges import JointNet, StyleNet, found_joints
from tools.embedded_model.looks import STYLES, tabulate
from tools.embedded_model.loop import half_precision
from tools.embedded_model.models import LATENT_FACTOR
from tools.embedded_model.palette import LIGHT_NAMES, light_table, nearest_colour
from tools.embedded_model.plan import Plan
from tools.embedded_model.sampling import generate
from tools.embedded_model.scenes import SLOT, SURROUNDINGS
from tools.embedded_model.sheet import save_sheet
from tools.embedded_model.stage_latents import conditioning
from tools.embedded_model.stage_vae import psnr, to_bytes, to_tensor

Scores = dict[str, Tensor]
KEYS: Final = ("structure", "iou", "objects", "floor", "back", "pose", "style", "light")
BATCH: Final = {"cpu": 8, "cuda": 128}


@dataclass(frozen=True)
class Judges:
    """Judges of pictures: the two networks and the mean relative depth (S, S) of the training scenes."""

    style: StyleNet
    joints: JointNet
    mean_depth: Tensor

    def save(self, path: Path) -> None:
        """Keep them in fp16 in one safetensors file."""
        nets = (("style.", self.style), ("joints.", self.joints))
        state = {name + key: value for name, net in nets for key, value in net.state_dict().items()}
        state["mean_depth"] = self.mean_depth
        save_file(
            {
                key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
                for key, value in state.items()
            },
            path,
        )

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Judges:
        """From `save`."""
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
        style, joints = StyleNet(), JointNet()
        for name, net in (("style.", style), ("joints.", joints)):
            net.load_state_dict({key.removeprefix(name): value for key, value in state.items() if key.startswith(name)})
            net.eval().requires_grad_(False).to(device)
        return cls(style, joints, state["mean_depth"].float().to(device))


def centred_correlation(one: Tensor, two: Tensor, mean: Tensor) -> Tensor:
    """Pearson's correlation (B,) of maps (B, S, S) after the mean map is taken off both."""
    first, second = ((values - mean).flatten(1).double() for values in (one, two))
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1)).clamp_min(1e-12)


def _share(right: Tensor, where: Tensor) -> Tensor:
    """Mean of `right` over `where`, (B,); NaN where a picture has no such pixels."""
    return (right & where).sum(dim=(1, 2)).double() / where.sum(dim=(1, 2)).double()


def colour_scores(pictures: Tensor, case: Case, here: slice) -> Scores:
    """Share of each region's pixels that show the colour the look asks for there, by the true regions."""
    device = pictures.device
    looks, scenes, seen = case.looks[here], case.scenes.scenes[here], case.scenes.seen
    tables = [tabulate(scene, look) for scene, look in zip(scenes, looks, strict=True)]
    names = torch.stack([torch.from_numpy(table.name) for table in tables]).to(device).long()
    slots = seen["slots"][here].long()
    asked = names.gather(1, slots.flatten(1)).view_as(slots)
    lights = light_table(device)[[LIGHT_NAMES.index(look.light) for look in looks]]
    shown = nearest_colour(pictures.permute(0, 3, 1, 2).float() / 255, lights, seen["inverse_depth"][here].float())
    right, named = shown == asked, asked >= 0
    return {
        "objects": _share(right, named & (slots >= len(SURROUNDINGS))),
        "floor": _share(right, named & (slots == SLOT["floor"])),
        "back": _share(right, named & ((slots == SLOT["sky"]) | (slots == SLOT["wall"]))),
    }


def pose_scores(heat: Tensor, scenes: HeldOut, here: slice) -> Tensor:
    """PCK of each picture (B,); NaN where there is no figure."""
    joints, depth = scenes.seen["joints"][here].cpu(), scenes.seen["inverse_depth"][here].float().cpu()
    visible = visible_joints(joints, depth)
    values = []
    for maps, its, seen in zip(heat.float().cpu(), joints, visible, strict=True):
        found, total = found_joints(maps, its, seen)
        values.append(found / total if total else math.nan)
    return torch.tensor(values, dtype=torch.float64)


@torch.no_grad()
def score(case: Case, networks: Networks, judges: Judges) -> dict[str, tuple[float, float]]:
    """Mean and standard error of each figure over the scenes of a case."""
    device = case.pictures.device
    parts: list[Scores] = []
    relative, items = case.scenes.relative_depth(), case.scenes.seen["items"]
    for start in range(0, len(case.pictures), BATCH[device.type]):
        here = slice(start, min(start + BATCH[device.type], len(case.pictures)))
        pictures = case.pictures[here]
        seen = to_tensor(pictures)
        depth, logit = networks.depth.both(seen)
        solid, found = items[here] > 0, logit[:, 0] > 0
        styles, lights = judges.style(seen)
        wanted_style = torch.tensor([STYLES.index(look.style) for look in case.looks[here]], device=device)
        wanted_light = torch.tensor([LIGHT_NAMES.index(look.light) for look in case.looks[here]], device=device)
        rows = colour_scores(pictures, case, here)
        rows["structure"] = centred_correlation(relative[here], depth[:, 0], judges.mean_depth)
        rows["iou"] = (solid & found).sum(dim=(1, 2)).double() / (solid | found).sum(dim=(1, 2)).clamp_min(1)
        rows["pose"] = pose_scores(judges.joints(seen), case.scenes, here)
        rows["style"] = (styles.argmax(dim=1) == wanted_style).double()
        rows["light"] = (lights.argmax(dim=1) == wanted_light).double()
        parts.append(rows)
    whole = {key: torch.cat([part[key].cpu() for part in parts]) for key in KEYS if key not in case.without}
    return {key: mean_and_error(values) for key, values in whole.items()}


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error, leaving out regions that a scene does not have (NaN)."""
    known = values[torch.isfinite(values)].double()
    if len(known) < 2:
        return math.nan, math.nan
    return float(known.mean()), float(known.std() / math.sqrt(len(known)))


@torch.no_grad()
def _prepare(networks: Networks, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled latents, conditioning and reconstructions of uint8 pictures."""
    latents, depths, rebuilt = [], [], []
    for part in pictures.split(BATCH[pictures.device.type]):
        seen = to_tensor(part)
        with half_precision(pictures.device):
            mean = networks.vae.encode(seen).latent_dist.mean.float()
            rebuilt.append(to_bytes(networks.vae.decode(mean).sample))
        latents.append(mean * networks.scaling_factor)
        depths.append(conditioning(networks.depth(seen), (mean.shape[2], mean.shape[3])))
    return torch.cat(latents), torch.cat(depths), torch.cat(rebuilt)


def _made(networks: Networks, latents: Tensor, depth: Tensor, captions: list[str], guidance: float) -> Tensor:
    batch = BATCH[latents.device.type]
    parts = [slice(start, start + batch) for start in range(0, len(latents), batch)]
    return torch.cat(
        [generate(networks, latents[n], depth[n], captions[n], seed=n.start, guidance=guidance) for n in parts]
    )


def build_cases(
    networks: Networks, main: HeldOut, pairs: HeldOut, guidance: float
) -> tuple[list[Case], Tensor, Tensor]:
    """Make the rows of the table, and the depth conditioning (N, 1, h, w) of both sets."""
    pictures, own, new = main.seen["pictures"], main.looks["own"], main.looks["new"]
    latents, depth, rebuilt = _prepare(networks, pictures)
    few = min(OTHER_LIGHT, len(pictures))
    made = {
        "on": _made(networks, latents, depth, main.captions["new"], guidance),
        "off": _made(networks, latents, torch.zeros_like(depth), main.captions["new"], guidance),
        "style": _made(networks, latents, depth, main.captions["style"], guidance),
        "light": _made(networks, latents[:few], depth[:few], main.captions["light"][:few], guidance),
    }
    danced, pair_depth, _ = _prepare(networks, pairs.seen["pictures"])
    wrestled = _made(networks, danced, pair_depth, pairs.captions["new"], guidance)
    colours = frozenset(("objects", "floor", "back", "light"))
    return [
        Case("input, own caption", main, pictures, own),
        Case("autoencoder, own caption", main, rebuilt, own),
        Case("another scene, own caption", main, pictures.roll(1, 0), own),
        Case("depth on, new caption", main, made["on"], new),
        Case("depth off, new caption", main, made["off"], new),
        Case("depth on, other light", main, made["light"], main.looks["light"][:few]),
        Case("depth on, other style", main, made["style"], main.looks["style"], colours),
        Case("dancers, own caption", pairs, pairs.seen["pictures"], pairs.looks["own"]),
        Case("wrestlers out of dancers", pairs, wrestled, pairs.looks["new"]),
    ], depth, pair_depth  # fmt: skip


def format_table(table: dict[str, dict[str, tuple[float, float]]], quality: tuple[float, float]) -> str:
    """Format the table as Markdown."""
    lines = ["| case | " + " | ".join(KEYS) + " |", "| --- " * (len(KEYS) + 1) + "|"]
    for name, row in table.items():
        cells = [f"{row[key][0]:.3f} ± {row[key][1]:.3f}" if key in row else "" for key in KEYS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Autoencoder: {quality[0]:.2f} ± {quality[1]:.2f} dB PSNR"])


def evaluate(
    networks: Networks, judges: Judges, folder: Path, count: int, side: int, guidance: float = 4.0
) -> dict[str, Any]:
    """Write sheet.png to `folder`; return the figures."""
    device = judges.mean_depth.device
    main, pairs = held_out(count, side, device), dancers(min(ROWS_OF_PAIRS, count), side, device)
    cases, depth, pair_depth = build_cases(networks, main, pairs, guidance)
    save_sheet(cases, depth, pair_depth, folder / "sheet.png")
    table = {case.name: score(case, networks, judges) for case in cases}
    quality = mean_and_error(psnr(networks.vae, main.seen["pictures"], BATCH[device.type]).cpu())
    return {"scenes": len(main.scenes), "pairs": len(pairs.scenes), "steps": 20, "strength": 1.0, "guidance": guidance,
               "psnr_db": quality, "table": table}  # fmt: skip


def main() -> None:
    """Evaluate a file: `python -m tools.embedded_model.evaluate FILE --judges FILE --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--judges", type=Path, required=True, help="judges.safetensors, made by the training")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=Plan.held_out)
    parser.add_argument("--side", type=int, default=Plan.side)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    networks, judges = read(arguments.file).to(device), Judges.load(arguments.judges, device)
    made_for = LATENT_FACTOR * int(networks.unet.config.sample_size)
    if {made_for, len(judges.mean_depth)} != {arguments.side}:
        parser.error(
            f"{arguments.file.name} is made for {made_for} x {made_for} pixels, the judges for "
            f"{len(judges.mean_depth)}, and --side is {arguments.side}: all three must be alike. The shipped model, "
            "for 128, knows other scenes; its scores and where they come from are in docs/model-card.md."
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    metrics = evaluate(networks, judges, arguments.out, arguments.count, arguments.side, arguments.guidance)
    (arguments.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(format_table(metrics["table"], metrics["psnr_db"]))


if __name__ == "__main__":
    main()
