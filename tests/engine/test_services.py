"""The engine in programs that run long: threads, closing, cancelling, and the guide's service."""

from __future__ import annotations

import io
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
    import gc
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaves streams to the end
def test_the_guides_service_answers() -> None:
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "service"}
    content = io.BytesIO()
    Image.fromarray(picture()).save(content, "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of FastAPI's and the client's own dependencies
        exec(compile(code, str(GUIDE), "exec", dont_inherit=True), names)
        from fastapi.testclient import TestClient

        with TestClient(names["app"]) as client:
            asked = {"prompt": "a red cube", "strength": 0.2}
            answer = client.post("/generate", params=asked, content=content.getvalue())
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "image/png"
            assert Image.open(io.BytesIO(answer.content)).size == (192, 128)  # at the model's side
            refused = client.post("/generate", params=asked, content=b"no picture")
            assert refused.status_code == 422 and "icture" in refused.text
            engine = names["app"].state.engine
    with pytest.raises(Depth2ImgError, match="closed"):
        _ = engine.networks
