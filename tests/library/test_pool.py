"""Check estimators by name: which are found, which are refused, and when one is unloaded."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depth2img import DepthCache, DepthMap, EstimatorError, OptionError, register_estimator
from depth2img.estimators import base, files
from depth2img.estimators.pool import EstimatorPool
from depth2img.options import CHECKPOINT

PICTURE = np.linspace(0, 1, 4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)


class Fake:
    """An estimator that counts."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.calls = 0

    def estimate(self, picture: np.ndarray) -> DepthMap:
        self.calls += 1
        return DepthMap(picture[:, :, 0], origin=self.key)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two depth models, and what is none."""
    for name, kind in (("small", "depth_anything"), ("Large v2", "dpt"), ("chat", "llama")):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "models" / "empty").mkdir()
    (tmp_path / "models" / "file").write_text("")
    return tmp_path / "models"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Fake]]:
    """Record what is loaded, with a fake of `files.open_estimator`."""
    made: list[weakref.ref[Fake]] = []

    def open_estimator(folder: Path, *, device: Any, name: str) -> Fake:
        fake = Fake(f"{folder.name} on {device}")
        made.append(weakref.ref(fake))
        return fake

    monkeypatch.setattr(files, "open_estimator", open_estimator)
    return made


def alive(opened: list[weakref.ref[Fake]]) -> list[str]:
    gc.collect()
    return [fake.key for fake in (one() for one in opened) if fake is not None]


@pytest.fixture
def pool(folder: Path) -> Iterator[EstimatorPool]:
    made = EstimatorPool(folder, device=lambda: "cpu")
    yield made
    made.unload()


def test_names(pool: EstimatorPool, opened: list[Any]) -> None:
    assert pool.names() == [CHECKPOINT, "Large v2", "small"]
    register_estimator("mine", lambda: Fake("mine"))
    register_estimator("small", lambda: Fake("registered"))
    assert pool.names() == [CHECKPOINT, "mine", "small", "Large v2"]
    assert opened == [] and not pool.loaded
    assert pool.get("small").estimate(PICTURE).origin == "registered"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert EstimatorPool(tmp_path / "nowhere").names() == [CHECKPOINT]
    assert EstimatorPool().names() == [CHECKPOINT]


def test_the_same_pool_on_another_device(pool: EstimatorPool, opened: list[Any]) -> None:
    """The one it was made from stays where it is."""
    other = pool.on(lambda: "meta")
    assert other.get("small").estimate(PICTURE).origin == "small on meta" and other.names() == pool.names()
    assert pool.get("small").estimate(PICTURE).origin == "small on cpu"
    bound = EstimatorPool(pool.folder, paths=True, downloads=True, idle=7).on(lambda: "cpu")
    assert (bound.folder, bound.paths, bound.downloads, bound.idle) == (pool.folder, True, True, 7)


def test_it_is_loaded_for_the_first_map_and_once(pool: EstimatorPool, opened: list[Any]) -> None:
    estimator = pool.get("small")
    assert opened == []
    assert estimator.key == files.key_of(pool.folder / "small")
    assert estimator.estimate(PICTURE).origin == "small on cpu"
    pool.get("small").estimate(PICTURE)
    assert len(opened) == 1 and opened[0]().calls == 2


def test_a_kept_map_loads_nothing(pool: EstimatorPool, opened: list[Any]) -> None:
    cache = DepthCache()
    first = cache.get_or_estimate(PICTURE, pool.get("small"))
    pool.unload()
    assert cache.get_or_estimate(PICTURE, pool.get("small")) is first
    assert len(opened) == 1 and not pool.loaded
    assert cache.get_or_estimate(PICTURE, pool.get("Large v2")) is not first


def test_new_weights_are_another_estimator(pool: EstimatorPool, opened: list[Any]) -> None:
    before = pool.get("small").key
    pool.get("small").estimate(PICTURE)
    (pool.folder / "small" / "model.safetensors").write_bytes(b"new")
    assert pool.get("small").key != before
    pool.get("small").estimate(PICTURE)
    assert len(opened) == 2


def test_another_one_takes_its_place(pool: EstimatorPool, opened: list[Any]) -> None:
    pool.get("small").estimate(PICTURE)
    pool.get("Large v2").estimate(PICTURE)
    assert alive(opened) == ["Large v2 on cpu"]


def test_it_leaves_the_memory_when_idle(pool: EstimatorPool, opened: list[Any]) -> None:
    pool.idle = 0.05
    pool.get("small").estimate(PICTURE)
    for _ in range(400):
        if not pool.loaded:
            break
        time.sleep(0.01)
    assert alive(opened) == []
    pool.get("small").estimate(PICTURE)
    assert len(opened) == 2


def test_use_puts_idleness_off(pool: EstimatorPool, opened: list[Any]) -> None:
    pool.idle = 30
    pool.get("small").estimate(PICTURE)
    stale = pool._used
    pool.get("small").estimate(PICTURE)
    pool._expire(stale)  # a timer that fired while the second map was under way
    assert pool.loaded
    pool._expire(pool._used)
    assert alive(opened) == []


def test_no_idle_time(pool: EstimatorPool, opened: list[Any]) -> None:
    pool.idle = 0
    pool.get("small").estimate(PICTURE)
    assert alive(opened) == [] and not pool.loaded


def test_idle_timers_do_not_keep_the_program_alive(pool: EstimatorPool, opened: list[Any]) -> None:
    pool.get("small").estimate(PICTURE)
    assert pool._timer is not None and pool._timer.daemon


def test_a_failure_leaves_nothing_loaded(pool: EstimatorPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise EstimatorError("It is damaged.")

    monkeypatch.setattr(files, "open_estimator", fail)
    with pytest.raises(EstimatorError, match="damaged"):
        pool.get("small").estimate(PICTURE)
    assert not pool.loaded


def test_registered_ones(pool: EstimatorPool, opened: list[Any]) -> None:
    made: list[weakref.ref[Fake]] = []

    def factory() -> Fake:
        fake = Fake("mine|1")
        made.append(weakref.ref(fake))
        return fake

    register_estimator("mine", factory)
    assert made == []
    assert pool.get("mine").key == "mine|1"
    pool.get("mine").estimate(PICTURE)
    assert len(made) == 1
    pool.get("small").estimate(PICTURE)
    assert alive(made) == []


@pytest.mark.parametrize(
    "name", ["", "nothing", "chat", "empty", "file", "..", ".", "../models/small", "./small", "small/", "SMALL", "a\\b"]
)
def test_other_names_are_refused(pool: EstimatorPool, name: str) -> None:
    with pytest.raises(OptionError) as caught:
        pool.get(name)
    assert caught.value.field == "estimator"


def test_paths_are_refused_unless_they_are_the_users_own(folder: Path, opened: list[Any], tmp_path: Path) -> None:
    path = str(folder / "small")
    with pytest.raises(OptionError, match="There is no such depth estimator"):
        EstimatorPool(tmp_path).get(path)
    assert EstimatorPool(paths=True).get(path).estimate(PICTURE).origin == "small on cpu"


def test_the_sentence_for_an_unknown_name(pool: EstimatorPool) -> None:
    with pytest.raises(
        OptionError, match=r"Got 'x'\. There are: checkpoint, Large v2, small\. Put the folder .* models"
    ):
        pool.get("x")


def test_the_hub_only_if_allowed(
    pool: EstimatorPool, folder: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetch(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(folder / "small")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(OptionError, match="not fetched from the hub here"):
        pool.get("owner/name")
    assert asked == []
    pool.downloads = True
    for _ in range(2):
        assert pool.get("owner/name@main").estimate(PICTURE).origin == "small on cpu"
    [(repository, revision, patterns)] = asked
    assert (repository, revision) == ("owner/name", "main")
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in patterns)


@pytest.mark.parametrize("name", ["../..", "/etc", "a/b/c", "-/..", "a/../b", "owner/", "/name", "~/x", "a b/c"])
def test_names_that_only_look_like_the_hubs(pool: EstimatorPool, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    pool.downloads = True
    with pytest.raises(OptionError, match="There is no such depth estimator"):
        pool.get(name)


def test_the_hub_out_of_reach(pool: EstimatorPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no way to it")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    pool.downloads = True
    with pytest.raises(EstimatorError, match=r"cannot be fetched from the hub\. Got no way to it"):
        pool.get("owner/name")


def test_one_map_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy: list[int] = []

    class Slow(Fake):
        def estimate(self, picture: np.ndarray) -> DepthMap:
            busy.append(1)
            assert len(busy) == 1
            time.sleep(0.01)
            busy.pop()
            return super().estimate(picture)

    monkeypatch.setattr(files, "open_estimator", lambda folder, **_: Slow(folder.name))
    pool = EstimatorPool(folder, idle=0)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(pool.get(name).estimate(PICTURE).origin))
        for name in ("small", "Large v2") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["Large v2"] * 3 + ["small"] * 3
