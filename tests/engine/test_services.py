"""The engine in programs that run long: threads, closing, cancelling, and the guide's service."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depth2img import Cancelled, Depth2ImgError, Engine, Settings
from depth2img.diffusion.networks import build
from tests.engine import small

GUIDE = Path(__file__).parents[2] / "docs" / "services.md"
SETTINGS = Settings(prompt="a red box", steps=3, denoising_strength=1.0)


@pytest.fixture
def engine() -> Engine:
    return Engine(build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)


def test_threads_take_turns_and_get_their_own_results(engine: Engine) -> None:
    """Two jobs at once give what they give one by one, and their steps do not interleave."""
    alone = [engine.generate([picture(n)], SETTINGS)[0].picture for n in range(2)]
    steps: list[int] = []
    made: dict[int, Any] = {}

    def work(n: int) -> None:
        [made[n]] = engine.generate([picture(n)], SETTINGS, on_step=lambda done, total: steps.append(n))

    threads = [threading.Thread(target=work, args=[n]) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert steps in ([0] * 3 + [1] * 3, [1] * 3 + [0] * 3)
    assert all(np.array_equal(made[n].picture, alone[n]) for n in range(2))


def test_a_callback_may_use_the_engine(engine: Engine) -> None:
    found: list[Any] = []
    engine.generate([picture()], SETTINGS, on_step=lambda done, total: found.append(engine.estimate(picture(1))))
    assert len(found) == 3


def test_cancelling_ends_the_job_after_the_step_and_leaves_the_engine_usable(engine: Engine) -> None:
    steps: list[int] = []

    def stop(done: int, total: int) -> None:
        steps.append(done)
        raise Cancelled

    before = engine.generate([picture()], SETTINGS)[0].picture
    with pytest.raises(Cancelled):
        engine.generate([picture()], SETTINGS, on_step=stop)
    assert steps == [1]
    assert np.array_equal(engine.generate([picture()], SETTINGS)[0].picture, before)


def test_a_closed_engine_holds_nothing_and_says_so(engine: Engine) -> None:
    import weakref

    engine.estimate(picture())
    held = weakref.ref(engine.networks.unet)
    with engine as same:
        assert same is engine
    engine.close()
    gc.collect()
    assert held() is None
    for use in (lambda: engine.estimate(picture()), lambda: engine.generate([picture()], SETTINGS)):
        with pytest.raises(Depth2ImgError, match="The engine is closed"):
            use()


def test_closing_waits_for_the_job(engine: Engine) -> None:
    inside, ended = threading.Event(), threading.Event()

    def work() -> None:
        engine.generate([picture()], SETTINGS, on_step=lambda done, total: inside.set())
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    engine.close()
    assert ended.wait(60)
    thread.join()


CLIENT = """
import io, sys
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image
import service
from depth2img import Depth2ImgError

content = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(content, "PNG")
with TestClient(service.app) as client:
    for body in (content.getvalue(), b"no picture"):
        answer = client.post("/generate", params={"prompt": "a red cube", "strength": 0.2}, content=body)
        picture = answer.headers["content-type"] == "image/png"
        print(answer.status_code, Image.open(io.BytesIO(answer.content)).size if picture else answer.text)
try:
    service.app.state.engine.networks
except Depth2ImgError as error:
    print(error)
"""


def test_the_guides_service_answers(tmp_path: Path) -> None:
    """In a process of its own: FastAPI's client leaves streams open, which warn whenever they are collected."""
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "service.py").write_text(code, encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), str(GUIDE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CLIENT],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made, refused, closed = done.stdout.splitlines()
    assert made == "200 (192, 128)"  # at the model's side
    assert refused.startswith("422 ") and "picture" in refused
    assert "The engine is closed" in closed
