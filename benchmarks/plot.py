"""Draw the ratios of all measurements: benchmarks/results/*.json -> benchmarks/results/ratios.png.

    python benchmarks/plot.py [FILE]

A bar right of 1 means more of what its label names: "conditioning: cold, batch 1" is how many times faster than the
host, "over" is the first over the second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import record

matplotlib.use("Agg")
from matplotlib import pyplot


def ratios(folder: Path) -> dict[str, float]:
    """Label -> ratio, of every result that has some, in the order of the files' names."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        for label, value in json.loads(path.read_text(encoding="utf-8")).get("ratios", {}).items():
            found[f"{path.stem}: {label}"] = float(value)
    return found


def draw(values: dict[str, float], path: Path) -> None:
    """One bar per ratio on a logarithmic axis, with its figure."""
    labels = list(values)[::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(labels) + 1), layout="constrained")
    shown = [values[label] for label in labels]
    axes.barh(labels, [value - 1 for value in shown], left=1, color="#4a7ebb")
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    for row, value in enumerate(shown):
        axes.text(max(value, 1), row, f"  {value:,.0f} x" if value >= 100 else f"  {value:.3g} x", va="center")
    axes.set_xlim(min(*shown, 1) / 2, max(*shown, 1) * 6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw what there is."""
    values = ratios(record.RESULTS)
    if not values:
        sys.exit(f"No ratios in {record.RESULTS}: run `make bench` first.")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else record.RESULTS / "ratios.png"
    draw(values, path)
    print(path)


if __name__ == "__main__":
    main()
