"""Getting a published checkpoint from the panel: what is shown, one at a time, stopped, set up, and what is refused."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from depth2img.checkpoints import to_single_file
from tests.engine import small
from tests.library import mirror
from tests.webui_fake.page import Page
from tests.webui_fake.standin import Host

NAME = "small-depth.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("published") / NAME
    to_single_file(small.model(midas=False), path)
    return path.read_bytes()


@pytest.fixture
def source(checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mirror.Mirror]:
    """A mirror that an own table names."""
    monkeypatch.setenv("NO_PROXY", "*")
    with mirror.running(checkpoint) as running:
        sha256 = hashlib.sha256(checkpoint).hexdigest()
        entry = {"size": len(checkpoint), "sha256": sha256, "about": "Small <depth>", "urls": [running.url]}
        unchecked = {"size": len(checkpoint), "urls": [str(tmp_path / "nowhere")]}
        table = tmp_path / "own.yaml"
        table.write_text(json.dumps({NAME: entry, "unchecked.safetensors": unchecked}), encoding="utf-8")
        monkeypatch.setenv("DEPTH2IMG_MIRRORS", str(table))
        yield running


@pytest.fixture
def folder(host: Host, tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    host.sd_models.model_path = str(tmp_path / "models" / "Stable-diffusion")
    host.paths.models_path = str(tmp_path / "models")
    host.sd_models.checkpoints_list.clear()

    def list_models() -> None:
        for path in Path(host.sd_models.model_path).glob("*.safetensors"):
            host.sd_models.CheckpointInfo(str(path)).register()

    host.sd_models.list_models = list_models
    return tmp_path / "models" / "Stable-diffusion"


@pytest.fixture
def ours(host: Host, folder: Path, source: mirror.Mirror) -> Iterator[ModuleType]:
    module = host.ours("page.fetching")
    yield module
    if module._download is not None:
        module._download.stopped.set()
        module._download.thread.join()


def ended(ours: ModuleType) -> tuple[str, Any, Any]:
    until = time.monotonic() + 60
    while "running" in ours.poll()[0] and time.monotonic() < until:
        time.sleep(0.02)
    shown: tuple[str, Any, Any] = ours.poll()
    return shown


def test_the_offer_says_what_and_from_where(ours: ModuleType, folder: Path, source: mirror.Mirror) -> None:
    shown = ours.offer(NAME)
    assert f"{len(source.data):,} bytes" in shown and "127.0.0.1:" in shown and str(folder) in shown
    assert "Small &lt;depth&gt;" in shown
    first = next(iter(ours.entries()))
    assert first == "512-depth-ema-fp16.safetensors"
    for words in ("2.85 GB", "huggingface.co", "1edad0394713", "CreativeML Open RAIL++-M"):
        assert words in ours.offer(first)
    assert source.requests == [] and ours.poll()[0] == ""


def test_from_nothing_to_selected(ours: ModuleType, folder: Path, host: Host, source: mirror.Mirror) -> None:
    source.block, source.delay = len(source.data) // 20, 0.02
    host.ours("hosts.loader").last_error["message"] = "There is no checkpoint."
    shown, fetch, stop = ours.start(NAME)
    assert 'data-fetch="running"' in shown and fetch["interactive"] is False and stop["visible"] is True
    seen = set()
    while "running" in (shown := ours.poll()[0]):
        seen.add(shown)
        time.sleep(0.02)
    assert any(f"of {len(source.data) / 1e6:,.0f} MB" in one and "<progress" in one for one in seen)
    shown, fetch, stop = ours.poll()
    assert 'data-fetch="done"' in shown and f'data-title="{NAME} [0123456789]"' in shown
    assert fetch["interactive"] is True and stop["visible"] is False
    assert {path.name for path in folder.iterdir()} == {NAME, "small-depth.yaml"}
    assert (folder / NAME).read_bytes() == source.data
    assert [info.name for info in host.sd_models.checkpoints_list.values()] == [NAME]
    assert not host.ours("hosts.loader").last_error


def test_a_second_click_changes_nothing(ours: ModuleType, source: mirror.Mirror) -> None:
    source.block, source.delay = len(source.data) // 20, 0.02
    ours.start(NAME)
    assert "running" in ours.start("unchecked.safetensors")[0]
    assert "done" in ended(ours)[0]
    assert len(source.requests) == 1


def test_stop_and_go_on(ours: ModuleType, folder: Path, source: mirror.Mirror) -> None:
    source.block, source.delay = len(source.data) // 20, 0.05
    ours.start(NAME)
    while source.sent < len(source.data) // 4:
        time.sleep(0.01)
    ours.stop()
    shown, fetch, stop = ended(ours)
    assert "failed" in shown and "Stopped." in shown and "the next run resumes" in shown
    assert fetch["interactive"] is True and stop["visible"] is False
    assert not (folder / NAME).exists()
    source.delay = 0
    ours.start(NAME)
    assert "done" in ended(ours)[0]
    assert int(source.requests[1]["range"][6:-1]) >= len(source.data) // 5
    assert (folder / NAME).read_bytes() == source.data


@pytest.mark.parametrize("name", ["unchecked.safetensors", "../x.safetensors", "/etc/passwd", "", None, 3, ["a"]])
def test_refused(ours: ModuleType, folder: Path, name: Any) -> None:
    """Unknown and unverifiable files are refused: only the command line can ask for consent."""
    shown = ours.start(name)[0]
    if "running" in shown:
        shown = ended(ours)[0]
    assert "failed" in shown and ("No such checkpoint" in shown or "No SHA-256" in shown)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_mirror_that_fails_is_named(ours: ModuleType, source: mirror.Mirror) -> None:
    source.default = mirror.status(404)
    ours.start(NAME)
    shown = ended(ours)[0]
    assert "failed" in shown and "127.0.0.1" in shown and "404: the file is not there" in shown


def test_a_wrong_yaml_is_left_to_its_owner(ours: ModuleType, folder: Path) -> None:
    folder.mkdir()
    yaml = folder / "small-depth.yaml"
    yaml.write_text("model: {params: {unet_config: {params: {in_channels: 4}}}}")
    before = yaml.read_text()
    ours.start(NAME)
    assert "its YAML is wrong" in ended(ours)[0]
    assert yaml.read_text() == before


def test_what_else_fails_is_said(ours: ModuleType, host: Host, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("The list cannot be read")

    host.sd_models.list_models = broken
    with caplog.at_level("ERROR"):
        ours.start(NAME)
        shown = ended(ours)[0]
    assert "failed" in shown and "console says why" in shown
    assert "The list cannot be read" in caplog.text


ESTIMATOR = "depth_anything_v2_small.safetensors"


@pytest.fixture
def estimators(ours: ModuleType, host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of estimators."""
    there = folder.parent / "depth2img"
    monkeypatch.setattr(host.ours("estimators"), "FOLDER", there)
    monkeypatch.setattr(host.ours("estimators").POOL, "folder", there)
    return there


@pytest.fixture
def small_estimator(source: mirror.Mirror, tmp_path: Path) -> str:
    """Name of an estimator that the owner's table names on the mirror."""
    path = tmp_path / "own.yaml"
    table = json.loads(path.read_text())
    table[ESTIMATOR] = {**table[NAME], "kind": "estimator", "licence": "CC0"}
    path.write_text(json.dumps(table))
    return ESTIMATOR


def test_an_estimator_comes_to_its_list(
    ours: ModuleType, host: Host, estimators: Path, small_estimator: str, source: mirror.Mirror
) -> None:
    goods = ours.ESTIMATORS
    offer = ours.offer(small_estimator, goods)
    assert "CC0" in offer and str(estimators) in offer
    assert "depth_anything_v2_small" not in host.ours("estimators").POOL.names()
    source.block, source.delay = len(source.data) // 20, 0.05
    assert "running" in ours.start(small_estimator, goods)[0]
    assert ours.poll()[0] == "", "the other part shows nothing of it"
    busy = ours.start(NAME)[0]
    assert "failed" in busy and f"{small_estimator} is being downloaded" in busy
    ours.stop()  # the other part's button does not reach it
    while source.sent < len(source.data) // 4:
        time.sleep(0.01)
    ours.stop(goods)
    while "running" in (shown := ours.poll(goods)[0]):
        time.sleep(0.02)
    assert "Stopped." in shown and not (estimators / small_estimator).exists()
    source.delay = 0
    ours.start(small_estimator, goods)
    while "running" in (shown := ours.poll(goods)[0]):
        time.sleep(0.02)
    assert 'data-fetch="done"' in shown and "choose it under &#x27;Estimator&#x27;" in shown
    assert source.requests[-1]["range"].startswith("bytes=")
    assert (estimators / small_estimator).read_bytes() == source.data
    assert "depth_anything_v2_small" in host.ours("estimators").POOL.names()


def test_estimators_that_cannot_be_checked_are_not_on_the_page(ours: ModuleType, host: Host) -> None:
    page = Page(host, "img2img")
    names = str(component(page, "img2img", "estimator_published").choices)
    assert "Depth-Anything-V2-Large.safetensors" in names and "512-depth" not in names
    assert "Depth-Anything-V2-Metric-Indoor-Small" not in names
    assert "Apache-2.0" in component(page, "img2img", "estimator_offer").value
    assert page.event("Download estimator")[1]["queue"] is False
    assert "No such estimator" in ours.start(NAME, ours.ESTIMATORS)[0]


def component(page: Page, tab: str, name: str) -> Any:
    elem_id = f"script_{tab}_depth_to_image_{name}"
    return next(one for one in page.blocks.blocks.values() if getattr(one, "elem_id", None) == elem_id)


def test_a_broken_table_of_the_owner(ours: ModuleType, host: Host, tmp_path: Path) -> None:
    """The page comes up; the fault is said where the table is used."""
    (tmp_path / "own.yaml").write_text("a: [")
    assert "own.yaml cannot be used" in ours.offer("512-depth-ema.ckpt")
    assert "own.yaml cannot be used" in ours.start("512-depth-ema.ckpt")[0]
    files = component(Page(host, "img2img"), "img2img", "published").choices
    assert "512-depth-ema-fp16.safetensors" in str(files[0])


def test_on_the_page(ours: ModuleType, host: Host, source: mirror.Mirror) -> None:
    for tab in ("img2img", "txt2img"):
        page = Page(host, tab)
        assert component(page, tab, "published").value == "512-depth-ema-fp16.safetensors"
        assert NAME in str(component(page, tab, "published").choices)
        assert "2.85 GB" in component(page, tab, "offer").value
        event = page.event("Download and select")[1]
        after = [
            one for one in page.blocks.dependencies if one["trigger_after"] == page.blocks.dependencies.index(event)
        ]
        assert f"#script_{tab}_depth_to_image_fetching" in after[0]["js"]
        assert event["queue"] is False  # it answers at once, and works where the queue is switched off
    assert source.requests == []
