"""The bundled model in the real WebUI under strain: at once, interrupted, switched, reloaded, one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import endurance
import pytest
import requests
from endurance import EXACT, Request, held, picture
from host import STARTED, Host, Refused, running, to_base64

MODEL = f"{endurance.CHECKPOINT}.safetensors"


@pytest.fixture(scope="module")
def checkpoints(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, and a checkpoint without depth."""
    folder = endurance.install(tmp_path_factory.mktemp("checkpoints"))
    for suffix in (".safetensors", ".yaml"):
        (folder / f"plain{suffix}").symlink_to(models / f"small-plain{suffix}")
    return folder


@pytest.fixture(scope="module")
def started(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with running(tmp_path_factory.mktemp("host") / "data", checkpoints=checkpoints, checkpoint=MODEL) as host:
        endurance.prepare(host)
        yield host


@pytest.fixture
def tiny(started: Host) -> Iterator[Host]:
    started.use(endurance.CHECKPOINT)
    for request in endurance.requests(2, start=7000):
        request.send(started)  # the first jobs after a model was loaded may differ in the last bit
    yield started
    started.run("probe.on_step = None")


def test_thirty_two_at_once_are_each_as_alone(tiny: Host) -> None:
    """Options, pictures, maps and refusals of one request never show in another's answer."""
    mixture = list(endurance.requests(32, steps=2, start=16))
    alone = [request.send(tiny) for request in mixture]
    assert len({str(answer)[:20_000] for answer in alone}) == 32, "all different, else crossing would go unseen"
    tiny.run("sys.modules['depth2img_webui.jobs.maps'].CACHE.clear()")
    with ThreadPoolExecutor(33) as pool:
        stop = threading.Event()
        watching = pool.submit(_watch, tiny, stop)
        together = list(pool.map(lambda request: request.send(tiny), mixture))
        stop.set()
        assert watching.result() == {"ready"}
    for number, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert one == other, mixture[number]


def _watch(host: Host, stop: threading.Event) -> set[str]:
    states = set()
    while not stop.wait(0.05):
        states.add(host.get("/depth2img/v1/status")["state"])
    return states


def job(steps: int = 4, **fields: Any) -> Request:
    body = {"prompt": "a red cube", "seed": 5, "steps": steps, "width": 64, "height": 64, "cfg_scale": 3}
    depth = {"gamma": 2.0, "end": 0.6, "append_map": True, "score": True}
    body |= {"init_images": [to_base64(picture(3))], "sampler_name": "Euler", "denoising_strength": 1.0}
    return Request("/sdapi/v1/img2img", {**body, "alwayson_scripts": {"depth to image": {"args": [depth]}}, **fields})


@pytest.mark.parametrize("what", ["interrupt", "skip"])
def test_interrupted_and_skipped_at_every_step(tiny: Host, what: str) -> None:
    """Whatever the host makes of it, the next job is as ever, and nothing of the job before is alive."""
    expected = job().send(tiny)
    before = held(tiny)
    for step in range(4):
        tiny.run(f"probe.on_step = lambda p: shared.state.{what}() if p.sampling_step == {step} else None")
        job(n_iter=1 + step % 2).send(tiny)
        tiny.run("probe.on_step = None")
        assert job().send(tiny) == expected
    after = held(tiny)
    assert {name: after[name] for name in EXACT} == {name: before[name] for name in EXACT}


def test_interrupted_while_depth_is_estimated(tiny: Host) -> None:
    expected = job().send(tiny)
    tiny.run(
        "m = shared.sd_model.depth_model; probe.kept = m.forward\n"
        "sys.modules['depth2img_webui.jobs.maps'].CACHE.clear()\n"
        "def forward(x):\n    shared.state.interrupt()\n    return probe.kept(x)\nm.forward = forward"
    )
    try:
        job().send(tiny)
    finally:
        tiny.run("del shared.sd_model.depth_model.forward; probe.kept = None")
    assert job().send(tiny) == expected


def test_out_of_memory_once_and_a_failing_network(tiny: Host) -> None:
    expected = job().send(tiny)
    fails = (
        "m = shared.sd_model.depth_model; probe.kept = m.forward; probe.errors = list(errors)\n"
        "sys.modules['depth2img_webui.jobs.maps'].CACHE.clear()\n"
        "def forward(x):\n"
        "    if probe.errors:\n        raise probe.errors.pop(0)\n"
        "    return probe.kept(x)\n"
        "m.forward = forward"
    )
    try:
        out_of_memory = "errors = [torch.cuda.OutOfMemoryError('CUDA out of memory')]\n" + fails
        tiny.run(out_of_memory)
        assert job().send(tiny) == expected
        tiny.run("del shared.sd_model.depth_model.forward\n" + out_of_memory)
        answer = tiny.post("/depth2img/v1/estimate", image=to_base64(picture(3)))
        assert "estimated on the CPU" in answer["notice"]
        tiny.run("del shared.sd_model.depth_model.forward\nerrors = [RuntimeError('no kernel image')] * 2\n" + fails)
        with pytest.raises(Refused, match=r"depth network of .* failed.*no kernel image"):
            tiny.post("/sdapi/v1/img2img", **job().body)
    finally:
        tiny.run("shared.sd_model.depth_model.__dict__.pop('forward', None); probe.kept = None; probe.errors = []")
    tiny.run("sys.modules['depth2img_webui.jobs.maps'].CACHE.clear()")
    assert job().send(tiny) == expected


def test_a_model_switched_while_jobs_wait(tiny: Host) -> None:
    """The running job keeps its model to the end; what comes after the switch gets the other one."""
    expected = job(steps=6).send(tiny)
    tiny.run("import time; probe.on_step = lambda params: time.sleep(0.3)")
    with ThreadPoolExecutor(3) as pool:
        running_job = pool.submit(job(steps=6).send, tiny)
        time.sleep(1.0)
        switch = pool.submit(tiny.use, "plain")
        time.sleep(0.3)
        assert running_job.result() == expected
        switch.result()
    tiny.run("probe.on_step = None")
    assert tiny.get("/depth2img/v1/status")["state"] == "wrong"
    with pytest.raises(Refused, match="needs a depth checkpoint"):
        tiny.post("/sdapi/v1/txt2img", **_with_map(3))
    tiny.use(endurance.CHECKPOINT)
    job().send(tiny)
    assert job(steps=6).send(tiny) == expected


def _with_map(seed: int) -> dict[str, Any]:
    args = [{"depth_map": to_base64(endurance.depth_map(seed))}]
    return {
        "prompt": "x",
        "steps": 1,
        "width": 64,
        "height": 64,
        "alwayson_scripts": {"depth to image": {"args": args}},
    }


def test_nothing_grows_over_many_jobs(tiny: Host) -> None:
    """benchmarks/endurance.py does the same with a thousand."""
    first, *_, last = endurance.run(tiny, 48, 3)
    assert {name: last[name] for name in EXACT} == {name: first[name] for name in EXACT}
    assert last["jobs"] == 0
    assert last["descriptors"] - first["descriptors"] <= 4 and last["threads"] - first["threads"] <= 4
    assert last["rss_mb"] - first["rss_mb"] < 60


def test_reload_ui_during_a_job(checkpoints: Path, tmp_path: Path) -> None:
    """The job ends somehow; afterwards the extension is there once, and jobs are as before."""
    with running(tmp_path / "data", checkpoints=checkpoints, checkpoint=MODEL, interface=True) as host:
        endurance.prepare(host)
        job().send(host)
        expected, before = job().send(host), held(host)
        host.run("probe.on_step = lambda params: shared.state.request_restart() if params.sampling_step == 3 else None")
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(_ends_somehow, job(steps=12), host)
            assert cut.result(timeout=120)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                host.run("probe.on_step = None")
                again = host.log.read_text(errors="replace").count(STARTED) > 1
                if again and host.get("/depth2img/v1/status")["state"] == "ready":
                    break
            except (requests.RequestException, Refused):
                time.sleep(0.5)
        job().send(host)
        assert job().send(host) == expected
        after = held(host)
        assert after["jobs"] == 0
        assert {name: after[name] for name in ("callbacks", "patches", "hooks")} == {
            name: before[name] for name in ("callbacks", "patches", "hooks")
        }


def _ends_somehow(request: Request, host: Host) -> bool:
    try:
        request.send(host)
    except requests.RequestException:
        return True
    return True
