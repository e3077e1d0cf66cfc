"""Estimators by name in the WebUI: the same in preview, job, route, axis and score; none by a path."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from depth2img import OPTIONS, DepthMap, DepthOptions, NoDepthModelError, OptionError
from depth2img.depth.resolve import PlacedMap
from tests.webui_fake.page import Page
from tests.webui_fake.standin import Host, ramp
from tests.webui_fake.test_api import base64_of, client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette", "ignore::DeprecationWarning:anyio")


class Blue:
    """Nearer where it is bluer; counts."""

    key = "blue"

    def __init__(self) -> None:
        self.calls = 0

    def estimate(self, picture: np.ndarray) -> DepthMap:
        self.calls += 1
        return DepthMap(np.ascontiguousarray(picture[:, :, 2] + np.linspace(0, 1, picture.shape[1])), origin="Blue")


@pytest.fixture
def blue(host: Host) -> Blue:
    import depth2img

    made = Blue()
    depth2img.register_estimator("blue", lambda: made)
    return made


@pytest.fixture(autouse=True)
def registry(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from depth2img.estimators import base

    monkeypatch.setattr(base, "_REGISTRY", {})
    host.ours("jobs.maps").CACHE.clear()


def conditioning_of(host: Host, **options: Any) -> np.ndarray:
    host.run(host.img2img(ramp(), args=(options,)))
    return host.seen[-1][0, 0].numpy()


def test_a_job_uses_it_and_says_so(host: Host, blue: Blue) -> None:
    estimates = host.count_estimates()
    p = host.img2img(ramp(), args=({"estimator": "blue"},))
    host.run(p)
    assert blue.calls == 1 and estimates == []
    columns = host.seen[-1][0, 0].mean(axis=0)
    assert (columns.diff() > 0).all(), "near is right, as the estimator says"
    assert not np.allclose(conditioning_of(host), host.seen[0][0, 0])


def test_infotext(host: Host, blue: Blue) -> None:
    p = host.img2img(ramp(), args=({"estimator": "blue"},))
    host.run(p)
    assert p.extra_generation_params["Depth estimator"] == "blue"


def test_the_score_is_by_the_same_estimator(host: Host, blue: Blue) -> None:
    host.select("plain")
    p = host.img2img(ramp())
    asked = blue.estimate(np.asarray(ramp(), np.float32) / 255)
    asking = host.ours("jobs.request").Request(
        DepthOptions(score=True, estimator="blue"), used={0: [PlacedMap(asked, None, asked)]}
    )
    setattr(p, host.ours("jobs.request").REQUEST, asking)
    host.ours("jobs.results").score(p, ramp())
    assert blue.calls == 2 and p.extra_generation_params["Depth fidelity"] == "1.000"


def test_preview_and_job_share_a_map(host: Host, blue: Blue) -> None:
    page = Page(host, "img2img")
    around = (None, 4, 0, 0, 1, 0, 32)
    values = dict(zip(OPTIONS, page.defaults, strict=True)) | {"estimator": "blue"}
    page.press("Estimate depth", 0, 0, ramp(), None, None, None, None, *around, 1, 96, 64, 1.0, *values.values())
    assert blue.calls == 1
    host.run(host.img2img(ramp(), args=tuple(values.values())))
    assert blue.calls == 1


def test_each_estimator_has_maps_of_its_own(host: Host, blue: Blue) -> None:
    first = conditioning_of(host)
    other = conditioning_of(host, estimator="blue")
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(conditioning_of(host), first)
    np.testing.assert_array_equal(conditioning_of(host, estimator="blue"), other)


@pytest.mark.parametrize("name", ["nothing", "/etc", "../models", "owner/name"])
def test_names_that_are_not_there_stop_the_job(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(OptionError) as caught:
        host.run(host.img2img(ramp(), args=({"estimator": name},)))
    assert caught.value.status_code == 422


def test_a_path_to_a_model_is_no_name(host: Host, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text(json.dumps({"model_type": "dpt"}))
    with pytest.raises(OptionError, match="There is no such depth estimator"):
        host.run(host.img2img(ramp(), args=({"estimator": str(tmp_path / "outside")},)))


def test_the_folder_of_models(host: Host) -> None:
    pool = host.ours("estimators").POOL
    assert pool.folder == host.folder / "depth2img" and not pool.paths
    (pool.folder / "depth-anything-v2").mkdir(parents=True)
    (pool.folder / "depth-anything-v2" / "config.json").write_text(json.dumps({"model_type": "depth_anything"}))
    assert pool.names() == ["checkpoint", "depth-anything-v2"]
    shown = Page(host, "img2img").controls[list(OPTIONS).index("estimator")]
    assert shown.choices == ["checkpoint", "depth-anything-v2"]
    assert shown.allow_custom_value, "a pasted name that is not there must show, and be refused"


def test_downloads_only_if_the_setting_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.script_callbacks.fake_call("ui_settings")
    assert host.shared.opts.data_labels["depth2img_estimator_downloads"].restrict_api, "no request can switch it on"
    estimators = host.ours("estimators")
    assert not estimators.pool().downloads
    host.shared.opts.depth2img_estimator_downloads = True
    assert estimators.pool().downloads
    monkeypatch.setattr(host.shared.OptionInfo, "__init__", lambda self, default=None, label="": None)
    assert not estimators.pool().downloads, "a host that cannot restrict it"


def test_idle_time(host: Host) -> None:
    estimators = host.ours("estimators")
    assert estimators.pool().idle == 300
    host.shared.opts.depth2img_estimator_idle_minutes = 2
    assert estimators.pool().idle == 120
    host.shared.opts.depth2img_estimator_idle_minutes = "soon"
    assert estimators.pool().idle == 300


def test_routes(host: Host, blue: Blue) -> None:
    routes = client(host)
    assert routes.get("/depth2img/v1/estimators").json() == {
        "estimators": ["checkpoint", "blue"],
        "default": "checkpoint",
    }
    host.select("plain")  # its own network is not needed
    answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp()), "estimator": "blue"})
    assert answer.status_code == 200 and answer.json()["origin"] == "Blue"
    answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp()), "estimator": "../x"})
    assert answer.status_code == 422 and "There is no such depth estimator" in answer.json()["detail"]


def test_an_axis_stops_before_the_grid_begins(host: Host, blue: Blue) -> None:
    class AxisOption(SimpleNamespace):
        def __init__(self, label: str, type: Any, apply: Any, confirm: Any = None, choices: Any = None) -> None:
            super().__init__(label=label, type=type, apply=apply, confirm=confirm, choices=choices)

    module = SimpleNamespace(AxisOption=AxisOption, axis_options=[])
    host.scripts.scripts_data[:] = [SimpleNamespace(path="/scripts/xyz_grid.py", module=module)]
    host.ours("xyz").add()
    axis = next(axis for axis in module.axis_options if axis.label == "Depth estimator")
    assert axis.choices() == ["checkpoint", "blue"]
    axis.confirm(None, ["checkpoint", "blue"])
    with pytest.raises(RuntimeError, match="Depth estimator: There is no such depth estimator"):
        axis.confirm(None, ["checkpoint", "nothing"])


def test_a_checkpoint_without_depth_still_needs_one_for_a_job(host: Host, blue: Blue) -> None:
    host.select("plain")
    with pytest.raises(NoDepthModelError):
        host.run(host.img2img(ramp(), args=({"source": "reference", "reference": ramp(), "estimator": "blue"},)))


def test_leaving_frees_the_memory(host: Host, blue: Blue) -> None:
    conditioning_of(host, estimator="blue")
    assert host.ours("estimators").POOL.loaded
    host.script_callbacks.fake_call("script_unloaded")
    assert not host.ours("estimators").POOL.loaded
