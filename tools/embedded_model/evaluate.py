"""Quality on held-out scenes: structure, silhouettes, colours asked for; a table with standard errors and a grid.

Structure is the correlation of the input's true relative inverse depth with the depth estimated from
the output, after the training set's mean map is taken off both: what all scenes share does not count.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from depth2img import DepthMap
from depth2img.depth.scores import structure
from tools.embedded_model.captions import plain_caption
from tools.embedded_model.dataset import Rendered, load_or_render
from tools.embedded_model.export import Networks, read
from tools.embedded_model.grid import save_grid
from tools.embedded_model.loop import one_thread
from tools.embedded_model.palette import LIGHT_NAMES, nearest_colour
from tools.embedded_model.plan import PLAN
from tools.embedded_model.sampling import generate
from tools.embedded_model.scenes import HELD_OUT_SEEDS, TRAINING_SEEDS, Look, recolour
from tools.embedded_model.stage_latents import conditioning
from tools.embedded_model.stage_vae import psnr, to_tensor

Scores = dict[str, float]
Table = dict[str, dict[str, tuple[float, float]]]
BATCH = 32
OTHER_LIGHT = 64
"""Scenes of the last row, which changes the light word as well."""


@dataclass(frozen=True)
class Case:
    """One row of the table: pictures uint8 (N, S, S, 3) and the looks they should show."""

    name: str
    pictures: Tensor
    looks: Sequence[Look]


def overlap(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two masks."""
    return float((one & two).sum() / max(int((one | two).sum()), 1))


def colour_scores(
    picture: npt.NDArray[np.uint8], look: Look, regions: npt.NDArray[np.uint8], inverse_depth: npt.NDArray[np.float32]
) -> Scores:
    """Share of each region's pixels that show the colour the look asks for there."""
    shown = nearest_colour(picture.astype(np.float32) / 255, look.light, inverse_depth)
    asked = np.array([look.sky, look.floor, *look.solids])[regions]
    right = shown == asked
    return {
        "objects": float(right[regions >= 2].mean()),
        "floor": float(right[regions == 1].mean()),
        "sky": float(right[regions == 0].mean()),
    }


@torch.no_grad()
def score(
    case: Case, held_out: Rendered, networks: Networks, mean: npt.NDArray[np.float32]
) -> dict[str, tuple[float, float]]:
    """Mean and standard error of each figure over the scenes of a case."""
    rows: list[Scores] = []
    relative = held_out.relative_depth()
    for start in range(0, len(case.pictures), BATCH):
        part = case.pictures[start : start + BATCH]
        depth, logit = networks.depth.both(to_tensor(part))
        for offset in range(len(part)):
            index = start + offset
            regions, true = held_out.regions[index], held_out.inverse_depth[index].astype(np.float32)
            found = colour_scores(part[offset].numpy(), case.looks[index], regions, true)
            maps = (relative[index], depth[offset, 0].numpy(), mean)
            found["structure"] = structure(*(DepthMap(values) for values in maps))
            found["iou"] = overlap(regions >= 2, logit[offset, 0].numpy() > 0)
            rows.append(found)
    return {key: mean_and_error([row[key] for row in rows]) for key in ("structure", "iou", "objects", "floor", "sky")}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, leaving out regions that a scene does not have (NaN)."""
    known = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    return float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known)))


@torch.no_grad()
def build_cases(networks: Networks, held_out: Rendered, count: int, guidance: float) -> tuple[list[Case], Tensor]:
    """The rows of the table, and the depth conditioning (N, 1, h, w) that was used."""
    pictures = torch.from_numpy(held_out.pictures[:count, 0])
    own = [looks[0] for looks in held_out.looks[:count]]
    rng = np.random.default_rng(PLAN.seed)
    new = [recolour(rng, look) for look in own]
    other_light = [
        Look(look.solids, look.floor, look.sky, LIGHT_NAMES[(LIGHT_NAMES.index(look.light) + 1 + n % 3) % 4])
        for n, look in enumerate(new)
    ]
    captions = {
        name: [plain_caption(geometry, look) for geometry, look in zip(held_out.geometries, looks, strict=False)]
        for name, looks in (("new", new), ("light", other_light))
    }
    made: dict[str, list[Tensor]] = {"rebuilt": [], "on": [], "off": [], "light": []}
    depths = []
    for start in tqdm(range(0, count, BATCH), desc="evaluate", mininterval=10):
        seen = to_tensor(pictures[start : start + BATCH])
        latents = networks.vae.encode(seen).latent_dist.mean * networks.scaling_factor
        depth = conditioning(networks.depth(seen), (latents.shape[2], latents.shape[3]))
        depths.append(depth)
        rebuilt = networks.vae.decode(latents / networks.scaling_factor).sample
        made["rebuilt"].append(rebuilt.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1))
        here = slice(start, start + BATCH)
        runs = {"on": (depth, "new"), "off": (torch.zeros_like(depth), "new")}
        if start < OTHER_LIGHT:
            runs["light"] = (depth, "light")
        for name, (its_depth, text) in runs.items():
            made[name].append(
                generate(networks, latents, its_depth, captions[text][here], seed=start, guidance=guidance)
            )
    joined = {name: torch.cat(parts) for name, parts in made.items()}
    cases = [
        Case("input, own caption", pictures, own),
        Case("autoencoder, own caption", joined["rebuilt"], own),
        Case("another scene, own caption", pictures.roll(1, 0), own),
        Case("depth on, new caption", joined["on"], new),
        Case("depth off, new caption", joined["off"], new),
        Case("depth on, new caption, other light", joined["light"], other_light),
    ]
    return cases, torch.cat(depths)


def format_table(table: Table, quality: tuple[float, float]) -> str:
    """The table as Markdown."""
    keys = ("structure", "iou", "objects", "floor", "sky")
    lines = ["| case | structure | IoU | objects | floor | sky |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {name} | " + " | ".join(f"{row[k][0]:.3f} ± {row[k][1]:.3f}" for k in keys) + " |"
        for name, row in table.items()
    ]
    return "\n".join([*lines, "", f"Autoencoder: {quality[0]:.2f} ± {quality[1]:.2f} dB PSNR"])


def evaluate(
    networks: Networks, training: Rendered, held_out: Rendered, folder: Path, *, count: int = 256, guidance: float = 4.0
) -> str:
    """Write metrics.json, metrics.md and grid.png to `folder`; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    mean = training.relative_depth().mean(axis=0)
    cases, depth = build_cases(networks, held_out, count, guidance)
    table = {case.name: score(case, held_out, networks, mean) for case in cases}
    quality = mean_and_error(psnr(networks.vae, cases[0].pictures).tolist())
    text = format_table(table, quality)
    metrics = {"scenes": count, "steps": 20, "strength": 1.0, "guidance": guidance, "psnr_db": quality, "table": table}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (folder / "metrics.md").write_text(text + "\n", encoding="utf-8")
    save_grid(cases, depth, held_out, folder / "grid.png")
    return text


def main() -> None:
    """Evaluate a file: `python -m tools.embedded_model.evaluate FILE --work FOLDER --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the rendered sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=PLAN.held_out)
    parser.add_argument("--guidance", type=float, default=4.0)
    arguments = parser.parse_args()
    one_thread()
    training = load_or_render(arguments.work / "training.pkl", TRAINING_SEEDS[: PLAN.geometries], PLAN.looks)
    held_out = load_or_render(arguments.work / "held-out.pkl", HELD_OUT_SEEDS[: PLAN.held_out], 1)
    print(
        evaluate(
            read(arguments.file), training, held_out, arguments.out, count=arguments.count, guidance=arguments.guidance
        )
    )


if __name__ == "__main__":
    main()
