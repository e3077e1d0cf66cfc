"""Coverage-guided fuzzing (atheris, on libFuzzer): `make fuzz`, or `python -m tests.fuzz.fuzz --seconds 600 picture`.

Each target runs in a process of its own, so that a crash of a native decoder is a finding as well. What it finds is
left in `.fuzz/`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
DONE = re.compile(r"#(\d+)\s+(?:DONE|RELOAD|pulse|REDUCE|NEW)\s+cov: (\d+) ft: (\d+)")
MEMORY_MB, SLOWEST_SECONDS, LONGEST = 4096, 60, 65_536
"""The largest pictures that are read take some seconds, and a busy machine several times as long."""


def worker(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process; does not return."""
    import warnings

    import atheris

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["depth2img", "depth2img_webui", "PIL", "yaml", "numpy.lib.format"]):
        from tests.fuzz import bodies, targets

        targets.prepare(name)

    def one(content: bytes) -> None:
        targets.run(name, content)

    def change(content: bytes, most: int, seed: int) -> bytes:
        return bodies.changed(content, most, seed, atheris.Mutate, skip=name == "script")

    mutator = {"custom_mutator": change} if name in targets.SERVED else {}
    atheris.Setup([sys.argv[0], *arguments], one, **mutator)
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> tuple[int, int, int, list[Path]]:
    """Executions, edges, features and what was found for one target."""
    from tests.fuzz import targets

    corpus, found = WORK / "corpus" / name, WORK / "found" / name
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True)
    for number, content in enumerate(targets.seeds(name)):
        (corpus / f"seed-{number:02}").write_bytes(content)
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}"]
    options += [f"-timeout={SLOWEST_SECONDS}", f"-report_slow_units={SLOWEST_SECONDS}"]
    options += [f"-artifact_prefix={found}/", "-print_final_stats=1", str(corpus)]
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--worker", name, *options]
    log = WORK / f"{name}.log"
    # What a worker leaves behind goes with its folder: libFuzzer ends the process without any of Python's own endings.
    with log.open("wb") as file, tempfile.TemporaryDirectory(prefix="depth2img-fuzz-") as folder:
        there = {**os.environ, "TMPDIR": folder}
        code = subprocess.run(command, cwd=ROOT, env=there, stdout=file, stderr=subprocess.STDOUT).returncode
    text = log.read_text(errors="replace")
    lines = [tuple(map(int, numbers)) for numbers in DONE.findall(text)]
    executions, edges, features = max(lines, default=(0, 0, 0))
    artifacts = sorted(found.iterdir())
    if code != 0 and not artifacts:
        (found / "log.txt").write_text(text[-20_000:])
        artifacts = [found / "log.txt"]
    return executions, edges, features, artifacts


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3:])
    from tests.fuzz import targets

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", default=list(targets.TARGETS), help="of: " + ", ".join(targets.TARGETS))
    given = parser.parse_args()
    print(f"{'target':12} {'executions':>11} {'edges':>7} {'features':>9}  findings", flush=True)
    bad = 0
    for name in given.targets:
        executions, edges, features, artifacts = fuzz(name, given.seconds)
        bad += len(artifacts)
        names = ", ".join(str(path.relative_to(ROOT)) for path in artifacts) or "none"
        print(f"{name:12} {executions:11,} {edges:7,} {features:9,}  {names}", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
