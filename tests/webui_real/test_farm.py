"""Two WebUIs behind one client: a job is plain JSON with all it needs inside, so either of them can do it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import hosted
from host import Host, to_base64
from judge import FIELDS, kept, mirrored, sample, scene
from PIL import Image

OTHER = sample().prompts["other"]
STEPS = {**FIELDS, "steps": 4}


@pytest.fixture(scope="module")
def second_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Another process with a data folder of its own."""
    with hosted(tmp_path_factory.mktemp("second")) as started:
        yield started


def exact_map() -> str:
    """The sample's exact depth as a 16-bit PNG."""
    return to_base64(Image.fromarray(np.round(sample().depth.normalised() * 65535).astype(np.uint16)))


def jobs() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Kind, fields and depth options; all different."""
    mask = Image.fromarray(sample().mask)
    init = {"init_images": [to_base64(scene())], "denoising_strength": 1.0}
    inpaint = {**init, "mask": to_base64(mask), "inpainting_fill": 1, "inpaint_full_res": True}
    return [
        ("img2img", init, {"gamma": 0.6}),
        ("img2img", init, {"depth_map": exact_map(), "append_map": True}),
        ("txt2img", {}, {"reference": to_base64(mirrored())}),
        ("txt2img", {}, {"depth_map": exact_map(), "strength": 0.7, "end": 0.5}),
        ("img2img", inpaint, {"under_mask": "fill"}),
        ("img2img", init, {"enabled": False}),
        ("img2img", init, {"region": to_base64(mask), "guidance": 2.0, "score": True}),
    ]


@pytest.fixture(autouse=True)
def seeded(bundled: Host, second_host: Host) -> Iterator[None]:
    """The host draws from the autoencoder's distribution without a seed, so that no job of its own is like another."""
    for host in (bundled, second_host):
        host.run("probe.seeded = True")
    yield
    bundled.run("probe.seeded = False")


def ask(host: Host, job: tuple[str, dict[str, Any], dict[str, Any]]) -> tuple[list[bytes], list[str]]:
    """The pictures as bytes, and the infotexts."""
    kind, fields, depth = job
    script = {"alwayson_scripts": {"depth to image": {"args": [depth]}}}
    body = host.post(f"/sdapi/v1/{kind}", **{"prompt": OTHER, **STEPS, **fields, **script})
    return body["images"], json.loads(body["info"])["infotexts"]


def test_either_gives_the_same_picture_whoever_else_asks(bundled: Host, second_host: Host) -> None:
    """Each job alone on the first, then all of them twice, in turns over both and at once."""
    alone = [ask(bundled, job) for job in jobs()]
    assert len({images[0] for images, _ in alone}) == len(alone)
    turns = itertools.cycle((second_host, bundled))
    twice = [*enumerate(jobs()), *enumerate(jobs())]  # an odd number of jobs: the second time each goes to the other
    with ThreadPoolExecutor(4) as pool:
        answers = [(index, pool.submit(ask, next(turns), job)) for index, job in twice]
        for index, answer in answers:
            assert answer.result() == alone[index], jobs()[index][2].keys()


def test_a_preview_of_one_serves_a_job_of_the_other(bundled: Host, second_host: Host) -> None:
    """Nothing rests in the process that estimated: its map travels in the request, with all its bits."""
    estimated = bundled.post("/depth2img/v1/estimate", image=to_base64(scene()))
    depth = {"depth_map": estimated["depth_map"]}
    there, here = (host.txt2img(prompt=OTHER, depth=depth, **FIELDS).images[0] for host in (second_host, bundled))
    assert there.tobytes() == here.tobytes()
    assert kept(there) > 0.6


def test_one_that_goes_away_leaves_nothing_behind(bundled: Host, tmp_path: Path) -> None:
    """A worker that joins late does what the others did, and takes nothing with it when it goes."""
    [job, *_] = jobs()
    before = ask(bundled, job)
    with hosted(tmp_path / "third") as late:
        late.run("probe.seeded = True")
        assert ask(late, job) == before
    assert ask(bundled, job) == before
