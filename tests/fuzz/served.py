"""Serve our routes and our script on the stand-in of tests/webui_fake, for fuzzing.

A request goes through the very application that the WebUI would serve, called as a server calls it, without a socket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from depth2img import Depth2ImgError, DepthOptions
from depth2img.options import OPTIONS
from tests.webui_fake import standin

PREFIX = "/depth2img/v1/"
KINDS = ("img2img", "inpaint", "batch", "txt2img", "hires")
"""Jobs that a generation request may start: its first byte chooses one."""


class Site:
    """The stand-in with a depth checkpoint, while `close` has not been called.

    Args:
        folder: for checkpoints and pictures; it goes with `close`.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import gradio  # noqa: F401 - its dependencies warn when they are first imported
            from fastapi import FastAPI

        self._left = contextlib.ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        self._left.callback(shutil.rmtree, folder, ignore_errors=True)
        self.host = host = self._left.enter_context(standin.running(folder))
        host.ours("script").register()
        host.add("depth", lambda: standin.state_dict(5, midas=True))
        host.select("depth")
        host.shared.cmd_opts = SimpleNamespace(api=True, nowebui=True, api_auth=None, hide_ui_dir_config=False)
        self._app = FastAPI()
        host.ours("api").add(None, self._app)
        self._promised = {
            path: {int(status) for operation in methods.values() for status in operation["responses"]}
            for path, methods in self._app.openapi()["paths"].items()
        }
        host.processing.fake_save_to = folder / "out"
        host.processing.fake_save_to.mkdir()
        self._runners = {name: host.runner(name not in ("txt2img", "hires")) for name in KINDS}
        self._loop = asyncio.new_event_loop()
        self._left.callback(self._loop.close)
        self._left.callback(self._loop.run_until_complete, self._loop.shutdown_default_executor())

    def close(self) -> None:
        self._left.close()

    def ask(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and body of the answer to a POST.

        Raises:
            AssertionError: the answer is none that the OpenAPI page promises.
        """
        self._forget()
        status, content = self._loop.run_until_complete(self._answer(PREFIX + path, body))
        assert status in self._promised[PREFIX + path] and status != 500, (status, content)
        answer = json.loads(content)
        assert status == 200 or answer["detail"], "a refusal says why"
        return status, answer

    async def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST"}
        scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http"}
        scope |= {"root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860)}
        answer: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        await self._app(scope, receive, send)
        return answer[0]["status"], b"".join(message.get("body", b"") for message in answer[1:])

    def generate(self, kind: str, args: list[Any]) -> Any:
        """A job whose script gets these `args`, as `init_script_args` of the host lays them over its own.

        Raises:
            Depth2ImgError: the job was refused; the API would answer with 422.
            AssertionError: something else happened that must not.
        """
        self._forget()
        p = self._job(kind)
        own = [option.default for option in OPTIONS.values()]
        given = args[: len(own)]
        p.scripts, p.script_args = self._runners[kind], (0, *given, *own[len(given) :])
        try:
            done = self.host.run(p)
        except Depth2ImgError as error:
            answer: Any = error
            if answer.status_code != 422 or answer.detail != str(error):
                raise AssertionError("the API would not answer with 422 and the sentence") from error
            raise
        finally:
            maps = self.host.ours("jobs.maps")  # what a sequence of jobs shares stays until another one begins
            left = [name for name in self.host.left_on(p) if name not in (maps.FIRST, maps.SPAN)]
            assert not left and not self.host.reported, (left, self.host.reported)
        assert len(done.images) >= (2 if kind == "batch" else 1)
        return p

    def _forget(self) -> None:
        """Nothing may follow from the input before."""
        self.host.ours("jobs.maps").CACHE.clear()
        self.host.reported.clear()

    def _job(self, kind: str) -> Any:
        if kind in ("txt2img", "hires"):
            p = self.host.txt2img(enable_hr=kind == "hires")
            p.hr_upscale_to_x, p.hr_upscale_to_y, p.latent_scale_mode = 144, 96, {"mode": "bilinear"}
            return p
        if kind == "inpaint":
            mask = Image.new("L", (96, 64))
            mask.paste(255, (20, 10, 70, 50))
            return self.host.img2img(standin.ramp(), mask=mask)
        return self.host.img2img(*[standin.ramp(), standin.blobs(3)][: 2 if kind == "batch" else 1])


def body(content: bytes) -> Any:
    """Parse a body as a server does: JSON, or `ValueError`."""
    try:
        return json.loads(content)
    except RecursionError as problem:
        raise ValueError("too deep") from problem


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def requests() -> list[bytes]:
    """Whole bodies for the routes."""
    picture, grey = encoded(standin.blobs(1, 9, 7)), encoded(standin.ramp(7, 5).convert("L"))
    options = {"near": 0.9, "far": 0.1, "gamma": 2.0, "blur": 1.5, "invert": True}
    bodies: list[dict[str, Any]] = [
        {"image": picture},
        {"image": f"data:image/png;base64,{picture}", "options": options, "colour_map": "turbo"},
        {"image": grey, "estimator": "checkpoint", "options": {}, "colour_map": "inferno"},
        {"depth_map": grey},
        {"depth_map": grey, "options": options, "colour_map": "viridis"},
        {"depth_map": picture, "estimator": "other"},
    ]
    return [json.dumps(one).encode() for one in bodies]


def generations() -> list[bytes]:
    """The number of a kind of job, and `args`."""
    picture, grey = encoded(standin.blobs(1, 9, 7)), encoded(standin.ramp(7, 5).convert("L"))
    named: list[dict[str, Any]] = [
        {"near": 0.8, "far": 0.2, "gamma": 0.5, "blur": 2, "invert": True, "append_map": True, "save_map": True},
        {"depth_map": grey, "strength": 0.5, "start": 0.1, "end": 0.8, "neutral": 0.5, "under_mask": "map"},
        {"reference": picture, "region": grey, "guidance": 2.0, "ignore_colours": True, "score": True},
        {"under_mask": "fill", "estimate_on": "original", "range": "fixed", "range_far": 0.1, "range_near": 2.0},
        {"source": "map", "depth_map": grey, "hires": "estimate", "keep_first": True, "range": "shared"},
        {"enabled": False, "estimator": "checkpoint", "map_directory": "maps"},
    ]
    lists = [*([one] for one in named), [value for value in DepthOptions().__dict__.values()]]
    return [f"{index % len(KINDS)}{json.dumps(one)}".encode() for index, one in enumerate(lists)]
