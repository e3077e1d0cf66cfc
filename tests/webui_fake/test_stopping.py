"""Whatever of ours fails during a job stops it with a sentence: the host would swallow it and go on."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from depth2img import Depth2ImgError
from tests.webui_fake.standin import Host, ramp

INSIDE = {
    "before_process": ("script", "_switch"),
    "process": ("jobs.hook", "begin"),
    "the conditioning": ("jobs.maps", "condition"),
    "a step of the sampler": ("jobs.denoise", "request_of"),
    "postprocess_image": ("jobs.results", "score"),
    "postprocess": ("page.preview", "keep"),
}
"""Method that the host calls during a job -> (module, function) of ours that runs in it."""


def broken(*_: Any) -> None:
    raise ZeroDivisionError("a defect")


@pytest.mark.parametrize("hook", INSIDE)
def test_a_hook_that_fails_stops_the_job(host: Host, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    module, name = INSIDE[hook]
    p = host.img2img(ramp(), args=({"gamma": 2.0},))
    with monkeypatch.context() as patch:
        patch.setattr(host.ours(module), name, broken)
        with pytest.raises(Depth2ImgError, match=f"failed in {hook}.*ZeroDivisionError: a defect") as caught:
            host.run(p)
    assert vars(caught.value)["status_code"] == 500 and vars(caught.value)["detail"] == str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert host.reported == [] and host.left_on(p) == [] and p.extra_generation_params == {}
    assert len(host.run(p).images) == 1 and host.seen[-1].max() == 1  # the host, and `p`, are usable


def test_every_hook_is_tested(host: Host) -> None:
    """All methods that the host calls with a job."""
    own = vars(host.ours("script").DepthToImage)
    methods = {name: method for name, method in own.items() if inspect.isfunction(method)}
    hooks = {name for name, method in methods.items() if "p" in inspect.signature(method).parameters}
    assert hooks == set(INSIDE) - {"the conditioning", "a step of the sampler"}


@pytest.mark.parametrize("hook", INSIDE)
def test_a_job_within_a_job_stops_both(host: Host, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    """As of a script that repaints faces: what it raises is swallowed, and the picture would come without them."""
    module, name = INSIDE[hook]
    inner, outer = host.img2img(ramp()), host.img2img(ramp())

    class Repaints(host.scripts.Script):
        def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(host.ours(module), name, broken)
                host.run(inner)

    outer.scripts.fake_add(Repaints(), True)
    with pytest.raises(Depth2ImgError, match=f"failed in {hook}"):
        host.run(outer)
    assert host.reported == [] and host.left_on(inner) == host.left_on(outer) == []
    assert len(host.run(host.img2img(ramp())).images) == 1


def test_an_error_of_the_host_itself_leaves_nothing_on_p(host: Host) -> None:
    p = host.img2img(ramp(), args=({"gamma": 2.0},))
    p.sample = broken
    with pytest.raises(ZeroDivisionError):
        host.run(p)
    assert host.left_on(p) == [] and p.extra_generation_params == {}


def test_outside_a_job_errors_stay_what_they_are(host: Host) -> None:
    """The host's thread would not survive anything else."""
    p = host.img2img(ramp(), args=({"near": 7},))
    with pytest.raises(Depth2ImgError, match="near"):
        p.scripts.alwayson_scripts[0].process(p, *p.script_args[1:])
