"""Loading checkpoints: what is patched in the host, what is refused and why."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from depth2img import CheckpointError
from tests.webui_fake.standin import FIRST_CONVOLUTION, MARK, STAND_IN, Host, depth_weights, ramp, state_dict

DEPTH_YAML = (STAND_IN / "configs" / "depth.yaml").read_text()
PLAIN_YAML = (STAND_IN / "configs" / "plain.yaml").read_text()


def patched(host: Host) -> list[Callable[..., Any]]:
    sd_models = host.sd_models
    return [
        sd_models.load_model,
        sd_models.read_state_dict,
        host.sd_models_config.find_checkpoint_config,
        host.midas.load_model,
    ]


def without_midas() -> dict[str, torch.Tensor]:
    return state_dict(5, midas=False)


def with_midas() -> dict[str, torch.Tensor]:
    return state_dict(5, midas=True)


def midas_file(host: Host, content: Any = None) -> Path:
    """Puts MiDaS' own file where the host looks for it."""
    path = host.folder / "dpt_hybrid-midas-501f0c75.pt"
    if content is None:
        content = {key.removeprefix("depth_model.model."): value + 1 for key, value in depth_weights().items()}
    torch.save(content, path)
    host.midas.ISL_PATHS["dpt_hybrid"] = str(path)
    return path


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_apply_and_undo_may_be_repeated(bare: Host) -> None:
    loader = bare.ours("hosts.loader")
    originals = patched(bare)
    loader.apply()
    ours = patched(bare)
    assert [function.__module__ for function in ours] == [loader.__name__] * 4
    loader.apply()
    assert patched(bare) == ours
    loader.undo()
    assert patched(bare) == originals
    loader.undo()
    assert patched(bare) == originals
    loader.apply()
    assert patched(bare) == ours
    loader.undo()


def test_reload_ui_undoes_and_applies(host: Host) -> None:
    """The host calls what is registered for unloading, then runs the script file again."""
    ours = patched(host)
    host.script_callbacks.script_unloaded_callback()
    assert not any(function in ours for function in patched(host))
    host.script_callbacks.clear_callbacks()
    host.ours("script").register()
    assert patched(host) == ours and host.reported == []


def test_undo_in_another_order_than_applied(bare: Host) -> None:
    """Another extension that has patched the same function later keeps its patch on top or fails by itself."""
    loader = bare.ours("hosts.loader")
    loader.apply()
    bare.patches.patch("other", bare.sd_models, "load_model", lambda *args, **kwargs: "theirs")
    loader.undo()
    bare.patches.undo("other", bare.sd_models, "load_model")
    loader.undo()


def test_loads_without_a_file_and_without_network(host: Host) -> None:
    network = host.model.depth_model.model
    assert network.fake_path is None and network.fake_kwargs == {"backbone": "vitb_rn50_384"}
    own = {f"depth_model.model.{key}": value for key, value in network.state_dict().items()}
    assert own and all(torch.equal(value, depth_weights()[key]) for key, value in own.items())
    host.ours("hosts.loader").undo()
    host.sd_models.model_data.sd_model = None
    with pytest.raises(URLError):  # the defect
        host.sd_models.load_model()


def test_the_patched_midas_keeps_the_hosts_result(host: Host) -> None:
    loader = host.ours("hosts.loader")
    loader._loading.update(inside=1, depth=True)
    network, transform = host.midas.load_model("dpt_hybrid")
    assert not network.training and transform == host.midas.load_midas_transform("dpt_hybrid")


def test_others_who_load_midas_get_the_hosts(host: Host) -> None:
    """A preprocessor that asks for MiDaS wants real weights, also right after a depth checkpoint was loaded."""
    host.select("depth-b")  # the same YAML: loaded into the model that is there
    with pytest.raises(URLError):
        host.midas.load_model("dpt_hybrid")
    path = midas_file(host)
    network, _ = host.midas.load_model("dpt_hybrid")
    assert network.fake_path == str(path)


def test_other_models_of_midas_are_the_hosts_affair(host: Host) -> None:
    host.ours("hosts.loader")._loading.update(inside=1, depth=True)
    with pytest.raises(URLError):
        host.midas.load_model("dpt_large")


def check(host: Host, weights: dict[str, Any], config: str | None) -> str | None:
    return host.ours("hosts.loader").check(weights, config, "some.ckpt")


@pytest.mark.parametrize("channels", [4, 8, 9])
@pytest.mark.parametrize("config", [None, "plain.yaml", "depth.yaml", "missing.yaml"])
def test_other_checkpoints_are_untouched(host: Host, channels: int, config: str | None) -> None:
    weights = state_dict(channels, midas=False)
    before = dict(weights)
    assert check(host, weights, config and str(STAND_IN / "configs" / config)) is None
    assert weights == before


def test_a_checkpoint_without_a_unet_is_untouched(host: Host) -> None:
    assert check(host, {}, None) is None
    assert check(host, {"some": torch.zeros(1)}, None) is None


def test_a_depth_checkpoint_needs_nothing(host: Host) -> None:
    weights = with_midas()
    keys = set(weights)
    assert check(host, weights, None) is None
    assert check(host, weights, str(STAND_IN / "configs" / "depth.yaml")) is None
    assert set(weights) == keys


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PLAIN_YAML, id="plain"),
        pytest.param("", id="empty"),
        pytest.param("- a\n- list\n", id="list"),
        pytest.param("just text", id="text"),
        pytest.param("model: [", id="broken"),
        pytest.param(
            "model: {params: {unet_config: {params: {in_channels: '${nowhere.to.be.found}'}}}}", id="reference"
        ),
    ],
)
def test_the_wrong_yaml(host: Host, tmp_path: Path, text: str) -> None:
    config = write(tmp_path / "some.yaml", text)
    with pytest.raises(CheckpointError, match=r"The YAML beside .* some\.ckpt is not the one for depth"):
        check(host, with_midas(), config)


def test_a_yaml_that_is_no_text(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"some\.yaml"):
        check(host, with_midas(), str(path))


def test_missing_midas_without_a_file(host: Host) -> None:
    for config in (None, str(STAND_IN / "configs" / "depth.yaml")):
        with pytest.raises(CheckpointError, match=r"some\.ckpt holds no depth_model weights") as caught:
            check(host, without_midas(), config)
        assert "Use the original checkpoint" in str(caught.value)


def test_missing_midas_with_the_file(host: Host, tmp_path: Path) -> None:
    midas_file(host)
    weights = without_midas()
    assert check(host, weights, None) == host.sd_models_config.config_depth_model
    assert torch.equal(weights[MARK], torch.ones(1))
    assert set(weights) == {FIRST_CONVOLUTION, *depth_weights()}
    config = write(tmp_path / "some.yaml", DEPTH_YAML)
    assert check(host, without_midas(), config) == config


def test_missing_midas_in_a_training_checkpoint_of_midas(host: Host) -> None:
    """With an optimizer's state beside the weights, as MiDaS' own loader knows it."""
    inner = {key.removeprefix("depth_model.model."): value for key, value in depth_weights().items()}
    midas_file(host, {"optimizer": {}, "model": inner})
    weights = without_midas()
    check(host, weights, None)
    assert set(depth_weights()) <= set(weights)


@pytest.mark.parametrize("content", [{}, [1, 2], "no weights"])
def test_missing_midas_with_a_useless_file(host: Host, content: Any) -> None:
    midas_file(host, content)
    with pytest.raises(CheckpointError, match="no whole dpt_hybrid-midas"):
        check(host, without_midas(), None)


def test_missing_midas_with_a_cut_file(host: Host) -> None:
    path = midas_file(host)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="no whole dpt_hybrid-midas"):
        check(host, without_midas(), None)


def test_five_channels_for_another_kind_of_depth(host: Host, tmp_path: Path) -> None:
    """A YAML that takes depth from elsewhere needs no MiDaS."""
    config = write(tmp_path / "some.yaml", DEPTH_YAML.replace("ldm.modules.midas.api.MiDaSInference", "other.Depth"))
    weights = without_midas()
    assert check(host, weights, config) == config
    assert set(weights) == {FIRST_CONVOLUTION}


@pytest.mark.parametrize(("suffix", "save"), [(".ckpt", save_file), (".safetensors", torch.save)])
def test_a_file_is_read_as_what_it_is(
    host: Host, tmp_path: Path, suffix: str, save: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The host by itself goes by the name, and fails."""
    path, weights = tmp_path / f"odd{suffix}", with_midas()
    save(weights, path)
    host.sd_models.CheckpointInfo(str(path)).register()
    host.select(path.stem)
    assert host.model.sd_checkpoint_info.filename == str(path) and host.ours("hosts.loader").selected_is_depth()
    found = host.sd_models.read_state_dict(str(path), map_location="cpu")
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in found)
    assert "its name says another kind" in caplog.text
    host.ours("hosts.loader").undo()
    with pytest.raises((SafetensorError, pickle.UnpicklingError)):
        host.sd_models.read_state_dict(str(path), map_location="cpu")


def test_a_file_with_the_right_name_is_left_to_the_host(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plain.safetensors"
    save_file(state_dict(4, midas=False), path)
    monkeypatch.setattr("depth2img.checkpoints.storage.opening.CheckpointFile.get", None)  # of it no tensor is read
    assert set(host.sd_models.read_state_dict(str(path))) == {FIRST_CONVOLUTION}
    for content in (b"", b"anything"):
        path.write_bytes(content)
        with pytest.raises(SafetensorError):
            host.sd_models.read_state_dict(str(path))


class Config:
    """Of a training program; the host refuses or misses its class."""


def test_a_trained_depth_checkpoint_is_read_for_the_host(host: Host, tmp_path: Path) -> None:
    """Behind a prefix, with objects besides: the host by itself finds no weights in it."""
    path, weights = tmp_path / "trained.ckpt", with_midas()
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"state_dict": wrapped, "hyper_parameters": {"config": Config()}}, path)
    host.sd_models.CheckpointInfo(str(path)).register()
    host.select(path.stem)
    assert host.model.sd_checkpoint_info.filename == str(path) and host.ours("hosts.loader").selected_is_depth()
    found = host.sd_models.read_state_dict(str(path), map_location="cpu")
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in found)
    host.ours("hosts.loader").undo()
    with pytest.raises((AttributeError, pickle.UnpicklingError)):
        host.sd_models.read_state_dict(str(path), map_location="cpu")


def test_a_trained_checkpoint_that_takes_no_depth_is_left_to_the_host(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({f"module.{key}": value for key, value in state_dict(4, midas=False).items()}, path)
    assert set(host.sd_models.read_state_dict(str(path))) == {f"module.{FIRST_CONVOLUTION}"}


def test_a_checkpoint_without_midas_loads_with_the_file(host: Host) -> None:
    midas_file(host)
    host.add("bare", without_midas)
    host.select("bare")
    weights = host.model.depth_model.model.state_dict()
    assert torch.equal(weights["pretrained.bias"], depth_weights()["depth_model.model.pretrained.bias"] + 1)
    host.run(host.img2img(ramp()))
    assert host.seen[0].max() == 1


@pytest.mark.parametrize("before", ["depth", "plain"])
@pytest.mark.parametrize(
    ("name", "make", "yaml", "words"),
    [
        ("bare", without_midas, None, "holds no depth_model weights"),
        ("wrong", with_midas, PLAIN_YAML, "The YAML beside"),
        ("broken", with_midas, "model: [", "The YAML beside"),
    ],
)
def test_the_old_checkpoint_works_on_after_a_refusal(
    host: Host, before: str, name: str, make: Callable[..., Any], yaml: str | None, words: str
) -> None:
    """The host has taken the loaded one apart by then."""
    host.select(before)
    host.add(name, make, yaml)
    with pytest.raises(CheckpointError, match=words):
        host.select(name)
    assert words in host.ours("hosts.loader").last_error["message"]
    assert host.model.sd_checkpoint_info.name_for_extra == before and host.model.fake_hijacked
    host.run(host.img2img(ramp()))
    assert host.ours("hosts.loader").last_error == {}


def test_a_refusal_at_the_first_load(bare: Host) -> None:
    bare.ours("script").register()
    bare.add("bare", without_midas)
    bare.shared.opts.sd_model_checkpoint = "bare"
    with pytest.raises(CheckpointError, match="holds no depth_model weights"):
        bare.sd_models.load_model()
    assert "holds no depth_model weights" in bare.ours("hosts.loader").last_error["message"]
    bare.add("depth", with_midas)
    bare.select("depth")
    assert bare.ours("hosts.loader").last_error == {} and bare.ours("hosts.loader")._loading["inside"] == 0


def test_a_broken_yaml_beside_a_plain_checkpoint_is_the_hosts_affair(host: Host) -> None:
    """Ours must not be what fails: the host does, and is ready for the next checkpoint then."""
    info = host.add("odd", lambda: state_dict(4, midas=False), "model: [")
    config = host.sd_models_config.find_checkpoint_config(state_dict(4, midas=False), info)
    assert config == str(Path(info.filename).with_suffix(".yaml"))


def test_in_memory_checkpoints(host: Host) -> None:
    """Merging hands over a state dict without a file."""
    find = host.sd_models_config.find_checkpoint_config
    assert find(state_dict(4, midas=False), None) == host.sd_models_config.config_default
    assert find(with_midas(), None) == host.sd_models_config.config_depth_model


def test_the_yaml_beside_wins(host: Host) -> None:
    info = host.add("named", with_midas, DEPTH_YAML)
    config = host.sd_models_config.find_checkpoint_config(with_midas(), info)
    assert config == str(Path(info.filename).with_suffix(".yaml"))


def test_selected_is_depth(host: Host) -> None:
    selected = host.ours("hosts.loader").selected_is_depth
    loads = host.sd_models.fake_loads
    assert selected()
    host.select("plain")
    assert not selected()
    host.sd_models.reload_model_weights(info=host.sd_models.checkpoint_aliases["depth"])  # as a refiner does
    count = len(loads)
    assert not selected() and len(loads) == count


def test_selected_is_depth_before_anything_is_loaded(bare: Host) -> None:
    bare.ours("script").register()
    bare.add("depth", with_midas)
    bare.shared.opts.sd_model_checkpoint = "depth"
    assert bare.ours("hosts.loader").selected_is_depth()


def test_selected_is_depth_of_a_checkpoint_loaded_before_the_extension(bare: Host) -> None:
    """Installed and switched on by "Reload UI"."""
    midas_file(bare)
    bare.add("depth", with_midas)
    bare.select("depth")
    bare.ours("script").register()
    assert bare.ours("hosts.loader").selected_is_depth() and len(bare.sd_models.fake_loads) == 1
