"""Draw what a training of `tools.embedded_model` logged.

    python -m tools.training_curves training.log FILE.png

The autoencoder's PSNR and the denoising error of the UNet, at all noise levels ("eps") and at the strong ones, which
decide about layout ("late"), against the seconds of each stage.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

STAGES: Final = {"vae": "PSNR, dB", "unet": "denoising error"}
"""Stage -> what its figures are."""
LEFT_OUT: Final = ("kl",)
LINE: Final = re.compile(r"^\S+ (\w+): step \d+, \d+ %, ([\d.]+) s, (.+)$")

Curve = list[tuple[float, float]]


def read(log: str) -> dict[str, dict[str, Curve]]:
    """Stage -> figure -> (seconds, value), in the order of the log."""
    found: dict[str, dict[str, Curve]] = {}
    for stage, seconds, figures in (match.groups() for match in map(LINE.match, log.splitlines()) if match):
        for figure in figures.split(", "):
            name, value = figure.split()
            found.setdefault(stage, {}).setdefault(name, []).append((float(seconds), float(value)))
    return found


def draw(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    """One panel a stage, logarithmic but for decibels."""
    figure, panels = pyplot.subplots(1, len(STAGES), figsize=(8, 2.8), layout="constrained")
    for (stage, title), axes in zip(STAGES.items(), panels, strict=True):
        for name, points in curves.get(stage, {}).items():
            if name not in LEFT_OUT:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set(title=f"{stage}: {title}", xlabel="seconds", yscale="linear" if stage == "vae" else "log")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Read the log and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    draw(read(given.log.read_text(encoding="utf-8")), given.out)


if __name__ == "__main__":
    main()
