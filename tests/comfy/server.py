"""Starts and stops the real ComfyUI, and talks to it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240
JOB_SECONDS = 600

# No request of the host may leave the machine: urllib and requests obey these, and nothing listens on port 9.
OFFLINE = {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1,localhost",
}

Graph = dict[str, dict[str, Any]]
"""A workflow as `/prompt` takes it: id of a node -> `class_type` and `inputs`."""


class Failed(Exception):
    """A job or a graph was refused: `node` is the class of the node that complains, `message` what it says."""

    def __init__(self, node: str, message: str) -> None:
        self.node, self.message = node, message
        super().__init__(f"{node}: {message}")


class Server:
    """A running ComfyUI.

    Attributes:
        url: its address.
        base: its `--base-directory`.
        log: file with all it printed.
    """

    def __init__(self, url: str, base: Path, log: Path) -> None:
        self.url, self.base, self.log = url, base, log

    def get(self, path: str) -> Any:
        answer = requests.get(self.url + path, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        answer = requests.post(self.url + path, json=body, timeout=60)
        if answer.status_code == 400:
            found = answer.json()
            errors = [one for node in found["node_errors"].values() for one in node["errors"]]
            raise Failed("graph", f"{found['error']['message']} {json.dumps(errors)}")
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def upload(self, name: str, picture: npt.NDArray[Any] | bytes) -> str:
        """Put a picture into the input folder."""
        content = picture if isinstance(picture, bytes) else png(picture)
        (self.base / "input").mkdir(exist_ok=True)
        (self.base / "input" / name).write_bytes(content)
        return name

    def run(self, graph: Graph) -> dict[str, Any]:
        """Run a workflow: id of each node that shows something -> what it shows."""
        job = self.post("/prompt", prompt=graph, client_id=uuid.uuid4().hex)["prompt_id"]
        end = time.monotonic() + JOB_SECONDS
        while time.monotonic() < end:
            found = self.get(f"/history/{job}").get(job)
            if found:
                for kind, message in found["status"]["messages"]:
                    if kind == "execution_error":
                        raise Failed(message["node_type"], message["exception_message"].strip())
                outputs: dict[str, Any] = found["outputs"]
                return outputs
            time.sleep(0.3)
        raise TimeoutError(f"the job took more than {JOB_SECONDS} s")

    def pictures(self, shown: dict[str, Any]) -> list[npt.NDArray[np.uint8]]:
        """Read what a node has saved or shown."""
        return [self.picture(one) for one in shown["images"]]

    def picture(self, saved: dict[str, str]) -> npt.NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(self.content(saved))).convert("RGB"))

    def content(self, saved: dict[str, str]) -> bytes:
        answer = requests.get(f"{self.url}/view", params=saved, timeout=60)
        answer.raise_for_status()
        return answer.content


def png(picture: npt.NDArray[Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


@contextlib.contextmanager
def serving(tree: Path, python: str, base: Path, *flags: str, nodes: tuple[Path, ...] = ()) -> Iterator[Server]:
    """Run ComfyUI on the CPU with this repository linked among its custom nodes.

    Args:
        tree: ComfyUI's checkout.
        python: with its requirements and this repository's `requirements.txt`.
        base: an empty folder.
        flags: further ones of the command line.
        nodes: folders of further custom nodes.
    """
    (base / "models" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes").mkdir(exist_ok=True)
    for folder in (ROOT, *nodes):
        name = "sd-webui-depth2img" if folder == ROOT else folder.name
        (base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, url = base / "log.txt", f"http://127.0.0.1:{port}"
    command = [python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)]
    command += ["--disable-auto-launch", "--database-url", f"sqlite:///{base}/comfy.db", *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env={**os.environ, **OFFLINE},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, url, log)
            yield Server(url, base, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            requests.get(f"{url}/system_stats", timeout=10)
            return
        time.sleep(0.3)
    raise RuntimeError("ComfyUI did not start:\n" + log.read_text(errors="replace")[-4000:])
