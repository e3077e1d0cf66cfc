"""REST routes."""

from __future__ import annotations

import base64
import io
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from depth2img import OPTIONS
from tests.webui_fake.standin import Host, blobs, depth_of, ramp

with warnings.catch_warnings():
    # The host's starlette uses a name of anyio that newer anyio calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from starlette.testclient import TestClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette", "ignore::DeprecationWarning:anyio")

FLAGS: dict[str, Any] = {"api": True, "hide_ui_dir_config": False, "nowebui": False, "api_auth": None}


def client(host: Host, **flags: Any) -> TestClient:
    host.shared.cmd_opts = SimpleNamespace(**{**FLAGS, **flags})
    app = FastAPI()
    for _ in range(2):  # again after "Reload UI"
        host.ours("api").add(None, app)
    return TestClient(app)


def base64_of(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def routes(host: Host) -> TestClient:
    return client(host)


def test_status(host: Host, routes: TestClient) -> None:
    answer = routes.get("/depth2img/v1/status").json()
    assert answer["state"] == "ready" and answer["checkpoint"] in answer["message"]
    host.select("plain")
    answer = routes.get("/depth2img/v1/status").json()
    assert answer["state"] == "wrong" and "Needs a depth checkpoint" in answer["message"]


def test_options(routes: TestClient) -> None:
    answer = routes.get("/depth2img/v1/options").json()
    assert [item["name"] for item in answer] == list(OPTIONS)
    by_name = {item["name"]: item for item in answer}
    assert by_name["gamma"]["minimum"] == 0.1 and by_name["gamma"]["maximum"] == 10
    assert by_name["source"]["choices"]["map"] == "My own depth map"
    assert by_name["region"]["infotext"] == "" and by_name["invert"]["default"] is False


def test_estimators(routes: TestClient) -> None:
    answer = routes.get("/depth2img/v1/estimators").json()
    assert answer["default"] == "checkpoint" == answer["estimators"][0]


def test_estimate(routes: TestClient) -> None:
    answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp())}).json()
    values = decoded(answer["depth_map"])
    assert values.dtype == np.uint16 and values.shape == (answer["height"], answer["width"])
    assert values.min() == 0 and values.max() == 65535
    assert (np.diff(values[5].astype(int)) >= 0).all()
    depth = depth_of(ramp())
    assert answer["minimum"] == pytest.approx(depth.min(), abs=0.05)
    assert answer["maximum"] == pytest.approx(depth.max(), abs=0.05)
    assert decoded(answer["preview"]).shape == (*values.shape, 3)


def test_adjustments_apply(routes: TestClient) -> None:
    plain = routes.post("/depth2img/v1/estimate", json={"image": base64_of(blobs(3))}).json()
    body = {"image": base64_of(blobs(3)), "options": {"invert": True}, "colour_map": "turbo"}
    inverted = routes.post("/depth2img/v1/estimate", json=body).json()
    assert np.abs(decoded(plain["depth_map"]) + decoded(inverted["depth_map"]).astype(int) - 65535).max() <= 1
    assert (inverted["minimum"], inverted["maximum"]) == (plain["minimum"], plain["maximum"])
    assert np.ptp(decoded(inverted["preview"]), axis=2).max() > 100


def test_adjust_keeps_size_and_bits(routes: TestClient) -> None:
    sixteen = Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(30, 40))
    answer = routes.post("/depth2img/v1/adjust", json={"depth_map": base64_of(sixteen), "options": {"far": 0.5}}).json()
    assert (answer["width"], answer["height"]) == (40, 30)
    assert len(np.unique(decoded(answer["depth_map"]))) > 500
    assert (answer["minimum"], answer["maximum"]) == (0, 1199)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("estimate", {"image": "no base64 at all!"}, "base64"),
        ("estimate", {"image": base64.b64encode(b"text").decode()}, "picture"),
        ("estimate", {"image": "", "options": {"gamma": 99}}, "'gamma' must be"),
        ("estimate", {"image": "", "options": {"strength": 0.5}}, "is not an adjustment"),
        ("adjust", {"depth_map": "", "options": {"near": 0.1, "far": 0.5}}, "greater than"),
    ],
)
def test_what_is_wrong_is_said(routes: TestClient, path: str, body: dict[str, Any], sentence: str) -> None:
    answer = routes.post(f"/depth2img/v1/{path}", json=body)
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


def test_an_unknown_estimator_or_colour_map(routes: TestClient) -> None:
    image = base64_of(ramp())
    answer = routes.post("/depth2img/v1/estimate", json={"image": image, "estimator": "zoe"})
    assert answer.status_code == 422 and "checkpoint" in answer.json()["detail"]
    answer = routes.post("/depth2img/v1/estimate", json={"image": image, "colour_map": "rainbow"})
    assert answer.status_code == 422 and "viridis" in answer.json()["detail"]


def test_without_a_depth_checkpoint(host: Host, routes: TestClient) -> None:
    host.select("plain")
    answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp())})
    assert answer.status_code == 422 and "needs a depth checkpoint" in answer.json()["detail"]
    assert host.call_queue.queue_lock.acquire(blocking=False)


def test_a_missing_field(routes: TestClient) -> None:
    answer = routes.post("/depth2img/v1/estimate", json={})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][-1] == "image"


def test_large_bodies_are_not_read(host: Host, routes: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.ours("api"), "LARGEST_BODY", 1000)
    answer = routes.post("/depth2img/v1/adjust", json={"depth_map": "A" * 2000})
    assert answer.status_code == 413

    def pieces():
        yield b'{"depth_map": "AAAA"}'

    answer = routes.post("/depth2img/v1/adjust", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 411


def test_a_length_of_thousands_of_digits(routes: TestClient) -> None:
    headers = {"content-length": "9" * 5000, "content-type": "application/json"}
    assert routes.post("/depth2img/v1/adjust", content=b"{}", headers=headers).status_code == 413


def test_a_misspelt_field_is_named(routes: TestClient) -> None:
    answer = routes.post("/depth2img/v1/adjust", json={"depth_map": "", "option": {"gamma": 2}})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][-1] == "option"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"image": "", "options": {"gamma": ' + b"9" * 10_000 + b"}}",
        b'{"image": "\\ud800"}',
        b'{"image": "", "options": {"\\ud800": 1}}',
        b'{"image": "", "estimator": "\\udfff"}',
        b'{"image": "", "colour_map": "\\ud8ff"}',
        b'{"image": "", "options": {"gamma": NaN}}',
        b'{"image": "", "options": {"near": -Infinity}}',
        b"\xff\xfe{}",
        b"null",
        b'{"image": "", "\\ud800": 1}',
        '{"image": "\ud800"'.encode("utf-16-be", "surrogatepass"),
        b"[" + b"0," * 50_000,
        b'{"image": "", ' + b", ".join(b'"%d": 1' % n for n in range(9999)) + b"}",
    ],
)
def test_bodies_that_break_readers(routes: TestClient, body: bytes) -> None:
    answer = routes.post("/depth2img/v1/estimate", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500 and answer.json()["detail"]
    assert len(answer.content) < 10_000, "what is refused is not sent back"


def unusual(kind: str) -> bytes:
    """The content of a picture that is seldom sent."""
    content = io.BytesIO()
    if "x" in kind:
        width, height = map(int, kind.split("x"))
        strip = np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)
        Image.fromarray(strip).save(content, "PNG")
    elif kind == "CMYK":
        ramp().convert("CMYK").save(content, "JPEG")
    elif kind == "animated":
        ramp().convert("L").save(content, "GIF", save_all=True, append_images=[blobs(1).convert("L")])
    else:
        ramp().convert("L").convert("P").save(content, "TIFF")  # the colours of its palette have 16 bits each
    return content.getvalue()


@pytest.mark.parametrize("kind", ["1x1", "65535x1", "1x65535", "CMYK", "animated", "palette"])
def test_pictures_that_are_seldom_sent(routes: TestClient, kind: str) -> None:
    payload = base64.b64encode(unusual(kind)).decode()
    estimated = routes.post("/depth2img/v1/estimate", json={"image": payload, "options": {"blur": 1.0}})
    assert estimated.status_code == 200 and np.ptp(decoded(estimated.json()["depth_map"])) in (0, 65535)
    adjusted = routes.post("/depth2img/v1/adjust", json={"depth_map": payload, "options": {"near": 0.9}})
    if kind == "CMYK":
        assert adjusted.status_code == 422 and "colour" in adjusted.json()["detail"]
        return
    size = (adjusted.json()["width"], adjusted.json()["height"])
    assert size == (tuple(map(int, kind.split("x"))) if "x" in kind else (96, 64))


@pytest.mark.parametrize("size", [(65_536, 1), (8193, 8192), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs(routes: TestClient, size: tuple[int, int]) -> None:
    """A header that promises more than its content has."""
    whole = io.BytesIO()
    Image.new("L", (1, 1)).save(whole, "PNG")
    head = b"IHDR" + struct.pack(">II", *size) + b"\x08\0\0\0\0"
    content = whole.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole.getvalue()[33:]
    payload = base64.b64encode(content).decode()
    for path, field in (("estimate", "image"), ("adjust", "depth_map")):
        answer = routes.post(f"/depth2img/v1/{path}", json={field: payload})
        assert answer.status_code == 422 and "too large" in answer.json()["detail"]


def test_what_can_be_refused_at_once_is_not_queued(host: Host, routes: TestClient) -> None:
    """While a job runs, which may take minutes."""
    with host.call_queue.queue_lock:
        for body in ({"estimator": "a" * 5000}, {"colour_map": "rainbow"}, {"options": {"gamma": 0}}):
            answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp()), **body})
            assert answer.status_code == 422


def test_large_maps_wait_for_room(host: Host, routes: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests come at once, only two maps are decoded at a time."""
    api = host.ours("api")
    inside, most, lock = [], [], threading.Lock()
    read = api.MapReader.__call__

    def slow(self: Any, content: str) -> Any:
        with lock:
            inside.append(1)
            most.append(len(inside))
        time.sleep(0.02)
        with lock:
            inside.pop()
        return read(self, content)

    monkeypatch.setattr(api.MapReader, "__call__", slow)
    body = {"depth_map": base64_of(ramp().convert("L"))}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: routes.post("/depth2img/v1/adjust", json=body).json(), range(8)))
    assert len({answer["depth_map"] for answer in answers}) == 1 and max(most) == 2


def test_an_estimation_on_the_cpu_is_told(host: Host, routes: TestClient) -> None:
    network = host.model.depth_model
    inner, full = network.forward, [torch.cuda.OutOfMemoryError("CUDA out of memory")]

    def forward(x: torch.Tensor) -> Any:
        if full:
            raise full.pop()
        return inner(x)

    network.forward = forward
    answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp())}).json()
    assert "on the CPU" in answer["notice"] and len(answer["depth_map"]) > 100


def test_a_failing_estimator_is_told(host: Host, routes: TestClient) -> None:
    def forward(x: torch.Tensor) -> Any:
        raise RuntimeError("no kernel image is available")

    host.model.depth_model.forward = forward
    answer = routes.post("/depth2img/v1/estimate", json={"image": base64_of(ramp())})
    assert answer.status_code == 500 and "no kernel image" in answer.json()["detail"]
    assert host.call_queue.queue_lock.acquire(blocking=False)


def test_behind_the_hosts_password(host: Host) -> None:
    routes = client(host, api_auth="ann:secret,bob:pass")
    for path in ("status", "options", "estimators"):
        assert routes.get(f"/depth2img/v1/{path}").status_code == 401
        assert routes.get(f"/depth2img/v1/{path}", auth=("ann", "pass")).status_code == 401
        assert routes.get(f"/depth2img/v1/{path}", auth=("bob", "pass")).status_code == 200
    assert routes.post("/depth2img/v1/adjust", json={"depth_map": ""}).status_code == 401


def test_only_where_the_hosts_api_is(host: Host) -> None:
    assert client(host, api=False).get("/depth2img/v1/status").status_code == 404
    assert client(host, api=False, nowebui=True).get("/depth2img/v1/status").status_code == 200


def test_in_the_openapi_page(routes: TestClient) -> None:
    paths = routes.get("/openapi.json").json()["paths"]
    assert {path: list(methods) for path, methods in paths.items()} == {
        "/depth2img/v1/status": ["get"],
        "/depth2img/v1/options": ["get"],
        "/depth2img/v1/estimators": ["get"],
        "/depth2img/v1/estimate": ["post"],
        "/depth2img/v1/adjust": ["post"],
    }


def test_every_error_has_its_status(host: Host) -> None:
    from depth2img import errors

    ours = host.ours("errors")
    known = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Depth2ImgError)
    }
    assert set(ours.STATUS) == known
    for kind, status in ours.STATUS.items():
        error = kind("field", "A sentence.") if kind is errors.OptionError else kind("A sentence.")
        assert vars(ours.for_client(error))["status_code"] == status and vars(error)["detail"] == "A sentence."
    other = ValueError("not ours")
    assert ours.for_client(other) is other and vars(other) == {}


# --- depth maps as people bring them ---------------------------------------------------------------------------------

CASES = Path(__file__).parents[1] / "library" / "cases"
TRUTH = np.load(CASES / "hw.npy")


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("zinv.npy", {"holds": "distance"}, 0.99),
        ("bl_Z.exr", {"holds": "distance"}, 0.99),
        ("bl_V.exr", {"holds": "distance"}, 0.99),
        ("rgbaz.exr", {"holds": "distance"}, 0.99),
        ("half65504.exr", {"holds": "distance"}, 0.99),
        ("mm_sky65535.png", {"holds": "distance"}, 0.99),
        ("zneg.tif", {"holds": "distance"}, 0.99),
        ("rs_mm.png", {"holds": "distance"}, 0.97),
        ("carla.png", {"holds": "distance", "map_channel": "R+256G+65536B"}, 0.99),
        *((name, {}, 0.99) for name in ("f64.tif", "f16.tif", "midas.pfm", "x.npz", "da_1hw.npy", "inferno.png")),
    ],
)
def test_maps_from_anywhere(routes: TestClient, name: str, options: dict[str, Any], least: float) -> None:
    """As base64url without padding, which some clients send."""
    content = base64.urlsafe_b64encode((CASES / name).read_bytes()).decode().rstrip("=")
    answer = routes.post("/depth2img/v1/adjust", json={"depth_map": content, "options": options}).json()
    assert np.corrcoef(decoded(answer["depth_map"]).ravel(), TRUTH.ravel())[0, 1] >= least


def test_notices_of_a_map(routes: TestClient) -> None:
    def notices(name: str, **options: Any) -> list[str]:
        body = {"depth_map": base64.b64encode((CASES / name).read_bytes()).decode(), "options": options}
        answer: list[str] = routes.post("/depth2img/v1/adjust", json=body).json()["notices"]
        return answer

    assert notices("hw.npy") == notices("zinv.npy", holds="distance") == notices("zinv.npy", invert="true") == []
    assert [one.partition(":")[0] for one in notices("bl_Z.exr")] == ["The depth map seems to hold distances"]
    assert [one[:22] for one in notices("zinv.npy")] == ["Black seems to be near"]
    assert any("lies within" in one for one in notices("rgbaz.exr"))
    assert not any("lies within" in one for one in notices("rgbaz.exr", range="percentile"))
    assert notices("rs_mm.png", holds="distance")[0].startswith("12.9 % (2,118 values) of the map held no measurement")


def test_a_range_without_outliers(routes: TestClient) -> None:
    values = np.linspace(0, 1, 10_000).reshape(100, 100)
    values[0, :50], values[99, 50:] = -1000, 1000
    file = io.BytesIO()
    np.save(file, values)
    body = {"depth_map": base64.b64encode(file.getvalue()).decode(), "options": {"range": "percentile"}}
    shown = decoded(routes.post("/depth2img/v1/adjust", json=body).json()["depth_map"])
    inside = values[1:99]
    # One per cent of the values is left out at each end.
    assert np.abs(shown[1:99] / 65535 - np.clip((inside - 0.0051) / 0.9898, 0, 1)).max() < 0.01
