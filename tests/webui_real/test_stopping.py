"""Whatever of ours fails during a job stops it on the real WebUI, which would swallow it and return another picture."""

from __future__ import annotations

import numpy as np
import pytest
from host import Host, Refused
from PIL import Image

INSIDE = {
    "before_process": ("script", "_switch"),
    "process": ("jobs.hook", "begin"),
    "the conditioning": ("jobs.maps", "condition"),
    "a step of the sampler": ("jobs.denoise", "request_of"),
    "postprocess_image": ("jobs.results", "score"),
    "postprocess": ("page.preview", "keep"),
}
"""Method that the host calls during a job -> (module, function) of ours that runs in it."""


@pytest.mark.parametrize("hook", INSIDE)
def test_a_hook_that_fails_stops_the_job(depth_host: Host, astronaut: Image.Image, hook: str) -> None:
    module, name = INSIDE[hook]
    depth_host.run("probe.seeded = True")
    before = depth_host.img2img(astronaut)
    depth_host.run(
        f"m = sys.modules['depth2img_webui.{module}']; probe.kept = m.{name}\n"
        f"def broken(*_): raise ZeroDivisionError('a defect')\n"
        f"m.{name} = broken"
    )
    try:
        with pytest.raises(Refused, match=rf"failed in {hook}.*ZeroDivisionError: a defect") as refused:
            depth_host.img2img(astronaut, depth={"strength": 0.5})
        assert refused.value.status == 500
    finally:
        depth_host.run(f"sys.modules['depth2img_webui.{module}'].{name} = probe.kept")
    after = depth_host.img2img(astronaut)
    assert np.array_equal(*(np.asarray(result.images[0]) for result in (before, after)))
    assert after.infotexts == before.infotexts
