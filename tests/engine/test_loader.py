"""Opening a model by name: devices, types, the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from depth2img import CheckpointError, OptionError
from depth2img.checkpoints import to_folder
from depth2img.diffusion import Engine, Settings, find, load
from depth2img.diffusion.loader import pick_device, pick_dtype
from tests.engine import small
from tests.engine.test_pipeline import picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small"
    to_folder(small.model(midas=True), path)
    return path


def test_folder_runs_and_gives_what_the_weights_in_memory_give(folder: Path) -> None:
    from tests.engine.test_pipeline import engine, settings

    [loaded] = Engine(load(folder, device="cpu")).generate([picture(1)], settings())
    [built] = engine(midas=True).generate([picture(1)], settings())
    assert (loaded.picture == built.picture).all()


def test_bfloat16_runs_with_depth_in_float32(folder: Path) -> None:
    networks = load(folder, device="cpu", dtype="bfloat16")
    assert next(networks.unet.parameters()).dtype == torch.bfloat16
    [result] = Engine(networks).generate([picture(1)], Settings(steps=2, width=96, height=64))
    assert result.depth is not None
    full = Engine(load(folder, device="cpu")).estimate(result.frame)
    assert (result.depth.values == full.values).all()


def test_hub_fetches_json_and_safetensors_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(repository: str, **given: Any) -> str:
        asked.update(given, repository=repository)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find("owner/name@v1").config == find(folder).config
    assert (asked["repository"], asked["revision"]) == ("owner/name", "v1")
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in asked["allow_patterns"])


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(CheckpointError, match=r"cannot be fetched.*no network"):
        find("owner/name")


def test_weights_of_another_shape(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "model")
    weights = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"][:-1].clone()
    save_file(state, weights)
    with pytest.raises(CheckpointError, match=r"conv_in.weight' of model has another shape .* Got \(63, "):
        load(tmp_path / "model", device="cpu")


def test_devices_and_types() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(OptionError, match="no device 'tpu'"):
        pick_device("tpu")
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.float16
    with pytest.raises(OptionError, match="float16"):
        pick_dtype("float16", torch.device("cpu"))
    with pytest.raises(OptionError, match="int8"):
        pick_dtype("int8", torch.device("cpu"))


def test_what_is_dropped_is_freed(folder: Path, tmp_path: Path) -> None:
    """Switching estimators and models holds on to none of them: no module-level reference, no cycle."""
    import gc
    import weakref

    from depth2img.checkpoints import convert
    from depth2img.diffusion import load_estimator

    convert(folder, tmp_path / "file.safetensors")
    references = []
    gc.collect()
    gc.disable()
    try:
        for source in (folder, tmp_path / "file.safetensors", folder):
            estimator = load_estimator(source, device="cpu")
            estimator.estimate(np.full((64, 96, 3), 0.5, np.float32))
            references.append(weakref.ref(estimator))
            references += [weakref.ref(parameter) for parameter in estimator.network.parameters()]
            del estimator
    finally:
        gc.enable()
    engine = Engine(load(folder, device="cpu"))
    engine.generate([picture(1)], Settings(steps=2, width=96, height=64))
    references += [weakref.ref(parameter) for parameter in engine.networks.unet.parameters()]
    del engine
    gc.collect()  # networks of diffusers have cycles of their own
    assert len(references) > 500 and not any(reference() is not None for reference in references)


def test_half_precision_file_is_never_held_in_full(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into bfloat16, one tensor at a time: nothing of the size of a part is ever in float32 but the depth network."""
    from depth2img.checkpoints import convert

    convert(folder, tmp_path / "half.safetensors", half=True)
    held: list[torch.dtype] = []
    original = torch.nn.Module.load_state_dict

    def note(self: torch.nn.Module, state: dict[str, torch.Tensor], *given: Any, **more: Any) -> Any:
        held.append(next(iter(state.values())).dtype)
        assert len({value.dtype for value in state.values()}) == 1
        return original(self, state, *given, **more)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", note)
    loaded = load(tmp_path / "half.safetensors", device="cpu", dtype="bfloat16")
    assert held == [torch.bfloat16] * 3 + [torch.float32]
    assert all(value.dtype == torch.bfloat16 for value in loaded.unet.parameters())
