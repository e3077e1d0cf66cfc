"""Loading a depth checkpoint in the real WebUI: with the extension against the WebUI alone, with and without network.

    WEBUI_DIR=... WEBUI_PYTHON=... python benchmarks/bench_loading.py [CHECKPOINT]

CHECKPOINT is a depth checkpoint with MiDaS inside; the small random one of the tests by default. One WebUI is started;
the extension's patches are taken off for the rows of the WebUI alone. There the network is a server on this machine
that has MiDaS' file, so that the download is as fast as one can be; "no network" means that every request is refused at
once. Prints the seconds of `sd_models.load_model`, the least of several in turns where nothing is downloaded, and
ratios. Writes benchmarks/results/loading.json.
"""

from __future__ import annotations

import functools
import http.server
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "webui_real"))

import record  # noqa: E402
from host import Host, random_models, running  # noqa: E402

TURNS = 3
MIDAS_FILE = "dpt_hybrid-midas-501f0c75.pt"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def load(host: Host, *, ours: bool, server: int | None = None) -> tuple[float, str]:
    """Seconds of one load, and how it ended; without `server` nothing is reached."""
    code = (
        "import time, urllib.request as request\n"
        "loader = sys.modules['depth2img_webui.hosts.loader']\n"
        f"loader.{'apply' if ours else 'undo'}()\n"
        "original = request.urlretrieve\n"
        f"port = {server!r}\n"
        "if port:\n"
        "    request.urlretrieve = lambda url, path: original(f'http://127.0.0.1:{port}/midas.pt', path)\n"
        "start = time.perf_counter()\n"
        "try:\n"
        "    sd_models.load_model()\n"
        "    end = 'loaded'\n"
        "except Exception as problem:\n"
        "    end = f'fails: {problem}'\n"
        "finally:\n"
        "    request.urlretrieve = original\n"
        "seconds = time.perf_counter() - start\n"
        "loader.apply()\n"
        "result = [seconds, end]"
    )
    seconds, end = host.run(code)
    return float(seconds), str(end)


def main() -> None:
    """Measure, print, write."""
    if "WEBUI_DIR" not in os.environ:
        sys.exit("Set WEBUI_DIR and WEBUI_PYTHON to a WebUI 1.10.1 (see CONTRIBUTING.md).")
    models = random_models()
    checkpoint = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else models / "small-depth.safetensors"
    handler = functools.partial(Quiet, directory=str(models))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows: dict[str, tuple[float, str]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "data", checkpoints=checkpoint.parent, checkpoint=checkpoint.name) as host,
    ):
        midas = host.data / "models" / "midas" / MIDAS_FILE
        rows["WebUI alone, no network"] = load(host, ours=False)
        rows["WebUI alone, network, first time"] = load(host, ours=False, server=server.server_address[1])
        turns = [(load(host, ours=True), load(host, ours=False)) for _ in range(TURNS)]
        rows["WebUI alone, MiDaS' file there"] = min(theirs for _, theirs in turns)
        midas.unlink()
        rows["with the extension, no network"] = min(load(host, ours=True) for _ in range(TURNS))
    server.shutdown()
    print(f"{checkpoint.name}: {checkpoint.stat().st_size / 1e9:.2f} GB")
    for name, (seconds, end) in rows.items():
        print(f"{name:34} {seconds:7.2f} s  {end[:80]}")
    ours = rows["with the extension, no network"][0]
    ratios = {
        f"{name} / with the extension": rows[name][0] / ours
        for name in ("WebUI alone, network, first time", "WebUI alone, MiDaS' file there")
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    record.write("loading", {"rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
