"""Run a thousand jobs on the bundled model in the real WebUI, and report what grows.

    WEBUI_DIR=... WEBUI_PYTHON=... python benchmarks/endurance.py [--jobs 1000]

Prints what the WebUI's process holds as the jobs go by, and what it has gained since the first sixteenth of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "webui_real"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import endurance
from host import running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the samples here as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = endurance.install(Path(folder) / "models")
        model = f"{endurance.CHECKPOINT}.safetensors"
        with running(Path(folder) / "data", checkpoints=checkpoints, checkpoint=model) as host:
            begun = time.monotonic()
            samples = endurance.run(host, given.jobs, given.samples)
            seconds = time.monotonic() - begun
    names = list(samples[0])
    print(" ".join(f"{name:>11}" for name in names))
    for sample in samples:
        print(" ".join(f"{sample[name]:11,.0f}" for name in names))
    first, last = samples[0], samples[-1]
    print(f"{given.jobs} jobs in {seconds:.0f} s; gained since job {first['done']:.0f}:")
    print(", ".join(f"{name} {last[name] - first[name]:+,.0f}" for name in names[1:]))
    if given.json is not None:
        given.json.write_text(json.dumps({"jobs": given.jobs, "seconds": seconds, "samples": samples}, indent=1))


if __name__ == "__main__":
    main()
