"""Starts and stops the real WebUI, and talks to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "random_checkpoint.py"
RELATIVE = Path(os.environ.get("WEBUI_DIR", ""), "modules_forge").is_dir()
"""True if the host is Forge or a relative of it."""

CPU = ["--use-cpu", "all", "--no-half", "--precision", "full", "--no-download-sd-model"]
CPU += ["--disable-console-progressbars"]
CPU_RELATIVE = ["--always-cpu", "--skip-python-version-check"]
START_SECONDS = 240
JOB_SECONDS = 600

STARTED = "Startup time:"
"""Last line that the host prints. It cannot bear a request between its page and its API: then it adds middleware to an
application that has begun to serve, and ends."""

OFFLINE = {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
# No request of the host may leave the machine: urllib obeys these, and nothing listens on port 9.
NO_NETWORK = {
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1,localhost",
}


FEATURES = {
    "LCM": ("modules/sd_samplers_lcm.py", "", "no LCM sampler before 1.8.0"),
    "skip_early_cond": ("modules/shared_options.py", "skip_early_cond", "'Ignore negative prompt' came with 1.10.0"),
    "s_min_uncond_all": ("modules/shared_options.py", "s_min_uncond_all", "'NGMS all steps' came with 1.10.0"),
    "infotext": ("modules/api/models.py", '"infotext"', "the API's field 'infotext' came with 1.8.0"),
    "soft inpainting": ("extensions-builtin/soft-inpainting", "", "soft inpainting came with 1.8.0"),
    "mask of any size": (
        "modules/processing.py",
        "self.mask_for_overlay.size != (image.width, image.height)",
        "a mask of another size than the picture fails in the host itself before 1.9.0",
    ),
}
"""Feature -> file or folder of the host that shows it, text in it, and why to skip a test where it is missing."""


OWN_DEPTH = "own depth"
"""Feature of hosts that build the depth network themselves."""


def without(feature: str) -> str:
    """Say why a test cannot run on this host; empty if it has the feature."""
    if feature == OWN_DEPTH:
        return "this WebUI: a relative of Forge has no depth-to-image of its own" if RELATIVE else ""
    name, text, reason = FEATURES[feature]
    path = Path(os.environ["WEBUI_DIR"], name)
    if path.is_dir() or (path.is_file() and text in path.read_text(encoding="utf8")):
        return ""
    return f"this WebUI: {reason}"


def without_scheduler(infotext: str) -> str:
    """Leave out the scheduler, which 1.9 names where the API was given an infotext, but not where it was given none."""
    return infotext.replace(", Schedule type: Automatic", "")


class Refused(Exception):
    """The API answered with an error: `status`, and `error`, `detail`, `errors` as in its body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status = status
        self.error, self.detail, self.errors = (str(body.get(key, "")) for key in ("error", "detail", "errors"))
        super().__init__(f"{status} {self.error}: {self.errors or self.detail}")


class Result:
    """Result of a generation: `images` (PIL), `infotexts` and `info` (parsed)."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in body["images"]]
        self.info: dict[str, Any] = json.loads(body["info"])
        self.infotexts: list[str] = self.info["infotexts"]


def to_base64(image: Image.Image) -> str:
    """PNG content as base64."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


class Host:
    """A running WebUI.

    Attributes:
        url: its address.
        data: its `--data-dir`.
        log: file with all it printed.
    """

    def __init__(self, url: str, data: Path, log: Path) -> None:
        self.url, self.data, self.log = url, data, log

    def get(self, path: str) -> Any:
        answer = requests.get(self.url + path, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        answer = requests.post(self.url + path, json=body, timeout=JOB_SECONDS)
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json())
        return answer.json()

    def run(self, code: str) -> Any:
        """Run Python in the host's process, under its queue lock; the value of `result` comes back as JSON."""
        return self.post("/probe/run", code=code)["result"]

    def img2img(self, *images: Image.Image, depth: dict[str, Any] | list[Any] | None = None, **fields: Any) -> Result:
        return self._generate("img2img", {"init_images": [to_base64(image) for image in images], **fields}, depth)

    def txt2img(self, depth: dict[str, Any] | list[Any] | None = None, **fields: Any) -> Result:
        return self._generate("txt2img", fields, depth)

    def _generate(self, kind: str, fields: dict[str, Any], depth: dict[str, Any] | list[Any] | None) -> Result:
        if depth is not None:
            args = depth if isinstance(depth, list) else [depth]
            fields = {**fields, "alwayson_scripts": {"depth to image": {"args": args}}}
        for name in ("mask",):
            if isinstance(fields.get(name), Image.Image):
                fields[name] = to_base64(fields[name])
        if fields.get("enable_hr") and RELATIVE:  # the relatives' own scale is 1 where none is named
            fields = {"hr_cfg": fields.get("cfg_scale", 5), **fields}
            if Path(os.environ["WEBUI_DIR"], "backend").is_dir():
                fields = {"hr_additional_modules": [], **fields}  # Forge's API fails without
        defaults = {"prompt": "a red vase", "seed": 11, "steps": 2, "sampler_name": "Euler", "cfg_scale": 5}
        defaults |= {"width": 192, "height": 128, "denoising_strength": 1.0}
        return Result(self.post(f"/sdapi/v1/{kind}", **{**defaults, **fields}))

    def use(self, checkpoint: str) -> None:
        """Load a checkpoint by its file name without suffix."""
        self.post("/sdapi/v1/options", sd_model_checkpoint=checkpoint)
        self.run("probe.settled()")

    @contextlib.contextmanager
    def native(self) -> Iterator[None]:
        """The host's own depth-to-image: the extension stays away from every job.

        Skips the rest of a test where the host has none.
        """
        if reason := without(OWN_DEPTH):
            pytest.skip(reason)
        self.run("probe.native(True)")
        try:
            yield
        finally:
            self.run("probe.native(False)")

    def conditionings(self) -> list[list[Any]]:
        """Shape and values of the conditioning of each step since `probe.clear()`, conditional rows first."""
        return self.run("result = probe.steps")


def random_models() -> Path:
    """Folder of small random checkpoints, made once per version of the tool: depth, plain, depth without MiDaS; and
    `midas.pt`, MiDaS alone."""
    version = hashlib.sha256(TOOL.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"random-{version}"
    wanted = {
        "small-depth.safetensors": ["--midas-file", str(folder / "midas.pt")],
        "small-plain.safetensors": ["--plain"],
        "small-nodepth.safetensors": ["--no-depth"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, flags in wanted.items():
        if not (folder / name).exists():
            python = os.environ.get("WEBUI_PYTHON", sys.executable)
            partial = folder / f"partial-{name}"
            subprocess.run([python, "-W", "ignore", str(TOOL), str(partial), "--size", "small", *flags], check=True)
            partial.with_suffix(".yaml").rename(folder / Path(name).with_suffix(".yaml"))
            partial.rename(folder / name)
    return folder


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    checkpoints: Path,
    checkpoint: str,
    flags: tuple[str, ...] = (),
    extension: str | None = "depth to image (any name)",
    midas: Path | None = None,
    interface: bool = False,
    environment: dict[str, str] | None = None,
    settled: bool = True,
    beside: tuple[str, ...] = (),
) -> Iterator[Host]:
    """Start the WebUI on the CPU as its documentation says, wait until it answers, stop it at the end.

    Args:
        folder: becomes `--data-dir`.
        checkpoints: becomes `--ckpt-dir`.
        checkpoint: file name of the one to load first.
        extension: name of the extension's folder, None to leave the extension out.
        midas: file to put where the host looks for MiDaS weights.
        interface: also serve the page.
        environment: more environment variables.
        settled: wait until the first checkpoint is loaded, or has failed to load.
        beside: names of other extensions' checkouts in the folder EXTENSIONS_DIR, which are loaded too.
    """
    webui = Path(os.environ["WEBUI_DIR"])
    extensions = folder / "extensions"
    extensions.mkdir(parents=True)
    (extensions / "probe").symlink_to(Path(__file__).parent / "probe", target_is_directory=True)
    if extension is not None:
        (extensions / extension).symlink_to(ROOT, target_is_directory=True)
    for name in beside:
        (extensions / name).symlink_to(Path(os.environ["EXTENSIONS_DIR"], name).resolve(), target_is_directory=True)
    (folder / "models" / "midas").mkdir(parents=True)
    (folder / "temporary").mkdir()  # of its own, so that what it leaves there can be counted
    if midas is not None:
        (folder / "models" / "midas" / "dpt_hybrid-midas-501f0c75.pt").symlink_to(midas)
    if RELATIVE:
        (extensions / "small").symlink_to(Path(__file__).parent / "small", target_is_directory=True)
        settings = {"live_previews_enable": False, "sd_model_checkpoint": checkpoint}  # a preview wants a download
        (folder / "config.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    command = [os.environ.get("WEBUI_PYTHON", sys.executable), "launch.py", "--skip-prepare-environment"]
    if RELATIVE:  # with a `--data-dir` elsewhere, Gradio 4 does not serve the host's own scripts
        command += [*CPU_RELATIVE, "--gradio-allowed-path", str(webui)]
    else:
        command += [*CPU, "--ckpt", str(checkpoints / checkpoint)]
    command += ["--skip-torch-cuda-test", "--api", "--skip-version-check"]
    command += ["--data-dir", str(folder), "--ckpt-dir", str(checkpoints), "--port", str(port)]
    command += [*([] if interface else ["--nowebui"]), *flags]
    variables = {**os.environ, **OFFLINE, **NO_NETWORK, "TMPDIR": str(folder / "temporary"), **(environment or {})}
    variables.pop("COMMANDLINE_ARGS", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=webui, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            host = Host(f"http://127.0.0.1:{port}", folder, log)
            _wait(host, process, "result = probe.settled()" if settled else "result = True")
            yield host
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(host: Host, process: subprocess.Popen[bytes], code: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if STARTED not in host.log.read_text(errors="replace"):
            time.sleep(0.2)
            continue
        try:
            host.run(code)
            return
        except (requests.ConnectionError, Refused):
            time.sleep(0.5)
    raise RuntimeError(f"The WebUI did not start:\n{host.log.read_text(errors='replace')[-4000:]}")
