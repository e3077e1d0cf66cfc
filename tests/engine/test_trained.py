"""Checkpoints as training programs leave them: weights are found, what is hostile is refused, all commands agree."""

from __future__ import annotations

import argparse
import collections
import functools
import json
import pathlib
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import convert, inspect, open_checkpoint, open_model, to_folder, to_single_file, with_parts
from depth2img.checkpoints.layout import keys
from depth2img.checkpoints.model import Model
from depth2img.checkpoints.storage.names import is_hostile
from depth2img.checkpoints.storage.tensors import TYPES
from depth2img.checkpoints.storage.weights import find_weights, of_ema
from depth2img.cli.root import app
from depth2img.errors import CheckpointError
from tests.engine import small
from tests.library import sparse

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A narrow depth checkpoint's tensors, MiDaS included; only the YAML says the widths of what is made of them."""
    path = tmp_path_factory.mktemp("state") / "file.safetensors"
    to_single_file(small.model(), path)
    return load_file(path)


@pytest.fixture(scope="module")
def yaml(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("yaml") / "file.safetensors"
    to_single_file(small.model(), path)
    return path.with_suffix(".yaml").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder") / "model"
    to_folder(small.model(), path)
    return path


def saved(path: Path, content: Any, yaml: str) -> Path:
    """A checkpoint file of either kind, with its YAML."""
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    path.with_suffix(".yaml").write_text(yaml)
    return path


def equal(there: Any, wanted: State) -> bool:
    """The tensors, by names and bits."""
    return set(there.keys()) == set(wanted) and all(torch.equal(there.get(key), wanted[key]) for key in wanted)


def averaged(state: State) -> State:
    """`ldm`'s averages of a UNet, told from the plain weights by their values."""
    unet = {key: value for key, value in state.items() if key.startswith(keys.UNET)}
    flat = {"model_ema." + key[len("model.") :].replace(".", ""): value + 1 for key, value in unet.items()}
    return {**flat, "model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}


def raised(state: State) -> State:
    """The state with the averages in the place of the UNet's weights."""
    return {key: value + 1 if key.startswith(keys.UNET) else value for key, value in state.items()}


# --- objects of training programs -------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = function, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture
def omegaconf(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Any]:
    """A class of the name of omegaconf's that pickles as it does: `__newobj__`, then its attributes."""
    module = types.ModuleType("omegaconf.dictconfig")
    made = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    module.DictConfig = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)

    def config(values: dict[str, Any]) -> Any:
        one = made()
        one.__dict__.update(_content=values, _metadata=Any, _flags=None)
        return one

    return config


def lightning(state: State, omegaconf: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A Lightning checkpoint with everything that people have in theirs."""
    return {
        "epoch": 3,
        "global_step": 4000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": state,
        "loops": None,
        "callbacks": {
            "ModelCheckpoint": {"best_model_path": pathlib.PurePosixPath("a/b.ckpt"), "best": torch.tensor(0.5)}
        },
        "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-5}]}],
        "lr_schedulers": [collections.defaultdict(list, {"a": [1.0]}), functools.partial(int, "7")],
        "hyper_parameters": {
            "unet_config": omegaconf({"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel"}),
            "opt": argparse.Namespace(logdir=pathlib.PosixPath("logs"), scale_lr=True, seen={1, 2}),
            "dtype": torch.float16,
            "device": torch.device("cpu"),
            "size": torch.Size([2, 3]),
        },
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_a_lightning_checkpoint_loads(
    tmp_path: Path, state: State, yaml: str, omegaconf: Callable[..., Any], legacy: bool
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(lightning(state, omegaconf), path, _use_new_zipfile_serialization=not legacy)
    path.with_suffix(".yaml").write_text(yaml)
    file = open_checkpoint(path)
    assert equal(file, state)
    assert {"omegaconf.dictconfig.DictConfig", "argparse.Namespace", "functools.partial", "torch.float16"} <= {
        *file.objects
    }
    report = inspect(file)
    assert report.usable and "omegaconf.dictconfig.DictConfig" in report.faults[0].what
    assert [fault.code for fault in report.faults] == ["objects"]
    convert(path, tmp_path / "plain.safetensors")
    assert load_file(tmp_path / "plain.safetensors").keys() >= state.keys()
    assert inspect(tmp_path / "plain.safetensors").faults == []


def test_nothing_of_an_object_is_imported_or_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the class can be imported and would do something."""
    module = types.ModuleType("a_training_program")
    ran: list[object] = []

    class Callback:
        def __new__(cls, *given: object) -> Any:
            ran.append(given)
            return super().__new__(cls)

        def __setstate__(self, state: object) -> None:
            ran.append(state)

    Callback.__module__, Callback.__qualname__ = "a_training_program", "Callback"
    module.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_training_program", module)
    one = Callback()
    one.__dict__["a"] = 1
    torch.save({"w": torch.ones(2), "callback": one, "list": [Calls(Callback, 1)]}, tmp_path / "a.ckpt")
    ran.clear()
    file = open_checkpoint(tmp_path / "a.ckpt")
    assert (list(file.keys()), list(file.objects), ran) == (["w"], ["a_training_program.Callback"], [])


HARMLESS = """
    argparse.Namespace collections.defaultdict functools.partial pathlib.PosixPath pathlib._local.PosixPath
    datetime.datetime uuid.UUID builtins.set __builtin__.list copyreg._reconstructor typing.Any
    types.SimpleNamespace torch.float16 torch.Size torch.device torch.optim.adamw.AdamW
    omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata __main__.Config numpy.dtype
    pytorch_lightning.utilities.parsing.AttributeDict lightning_fabric.utilities.data.AttributeDict
    transformers.training_args.TrainingArguments accelerate.state.PartialState wandb.sdk.lib.SummarySubDict
    ldm.modules.ema.LitEma easydict.EasyDict numpy.random._pickle.__randomstate_ctor
"""
HOSTILE = """
    os.system posix.system nt.system subprocess.Popen builtins.eval __builtin__.exec builtins.getattr
    builtins.__import__ builtins.open builtins.compile importlib.import_module runpy.run_path sys.exit
    socket.socket shutil.rmtree webbrowser.open pickle.loads _pickle.loads marshal.loads ctypes.CDLL
    types.FunctionType types.CodeType functools.reduce operator.attrgetter operator.methodcaller
    pathlib.Path.unlink pathlib.os code.interact pdb.run pty.spawn timeit.timeit cProfile.run io.open _io.FileIO
    tempfile.mktemp urllib.request.urlopen http.client.HTTPConnection commands.getoutput pip.main
    setuptools.sandbox.run_setup torch.load torch.hub.load torch.jit.load torch.serialization.load
    torch.storage._load_from_bytes torch.utils.cpp_extension.load_inline numpy.f2py.crackfortran.myeval
    numpy.testing._private.utils.runstring numpy.load pandas.eval cloudpickle.loads dill.loads joblib.load
    yaml.unsafe_load IPython.get_ipython six.moves.builtins.eval requests.get ldm.util.instantiate_from_config
    multiprocessing.util.spawnv_passfds asyncio.subprocess.create_subprocess_shell logging.config.dictConfig
"""


def test_the_list_of_hostile_names() -> None:
    def split(name: str) -> tuple[str, str]:
        module, _, short = name.rpartition(".")
        return ("pathlib", "Path.unlink") if name == "pathlib.Path.unlink" else (module, short)

    assert [name for name in HARMLESS.split() if is_hostile(*split(name))] == []
    assert [name for name in HOSTILE.split() if not is_hostile(*split(name))] == []


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "importlib.import_module", "torch.hub.load"])
def test_what_is_hostile_stays_refused_among_harmless_objects(
    tmp_path: Path, state: State, omegaconf: Callable[..., Any], name: str
) -> None:
    import importlib

    module, _, short = name.rpartition(".")
    content = lightning({"a": torch.ones(2)}, omegaconf)
    content["hyper_parameters"]["hook"] = functools.partial(getattr(importlib.import_module(module), short), "true")
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match="wants to run code, and was not loaded") as caught:
        open_checkpoint(tmp_path / "bad.ckpt")
    assert short in str(caught.value) and "omegaconf" not in str(caught.value)


# --- wrapped and prefixed ---------------------------------------------------------------------------------------------


def prefixed(prefix: str) -> Callable[[State], dict[str, Any]]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def inside(state: State) -> dict[str, Any]:
    """As `torch.compile` and DDP on the UNet alone name it."""
    return {key.replace(keys.UNET, keys.UNET + "_orig_mod.module."): value for key, value in state.items()}


WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 1},
    "model": lambda state: {"model": state, "step": torch.tensor(7), "optimizer": {"state": {0: torch.ones(9)}}},
    "module": lambda state: {"module": state},
    "two deep": lambda state: {"checkpoint": {"state_dict": state}, "note": "x"},
    "beside another network": lambda state: {"generator": state, "critic": {"a.weight": torch.ones(3)}},
    "nested parts": lambda state: {"module": {"model": {k[6:]: v for k, v in state.items() if k.startswith("model.")},
        **{k: v for k, v in state.items() if not k.startswith("model.")}}},
    "module.": prefixed("module."),
    "_forward_module.": prefixed("_forward_module."),
    "model.": prefixed("model."),
    "state_dict.": prefixed("state_dict."),
    "model.module.ldm.": prefixed("model.module.ldm."),
    "compiled inside": inside,
    "state_dict of module.": lambda state: {"state_dict": prefixed("module.")(state)},
}  # fmt: skip
FLAT = ("module.", "_forward_module.", "model.", "state_dict.", "model.module.ldm.", "compiled inside")


@pytest.mark.parametrize(
    ("how", "suffix"), [*((how, ".ckpt") for how in WRAPPED), *((how, ".safetensors") for how in FLAT)]
)
def test_wrapped_weights_are_found(tmp_path: Path, state: State, yaml: str, how: str, suffix: str) -> None:
    path = saved(tmp_path / f"trained{suffix}", WRAPPED[how](state), yaml)
    file = open_checkpoint(path)
    assert equal(file, state)
    report = inspect(file)
    assert report.usable and not report.missing
    assert file.is_plain == (how == "state_dict")
    assert [fault.code for fault in report.faults] == ([] if file.is_plain else ["wrapped"])
    model = open_model(path)
    assert torch.equal(model.parts["unet"].get("conv_in.weight"), state[keys.INPUT])


def test_names_that_would_coincide_are_left_alone() -> None:
    names = ["module.a", "a"]
    assert find_weights(names).names == {"module.a": "module.a", "a": "a"}  # type: ignore[union-attr]


def test_several_models_in_one_file_are_told_apart_or_refused(tmp_path: Path, state: State, yaml: str) -> None:
    few = {key: value for key, value in state.items() if key.startswith(keys.UNET + "input_blocks.0")}
    path = saved(tmp_path / "two.ckpt", {"student": few, "teacher": dict(few)}, yaml)
    with pytest.raises(CheckpointError, match=r"holds several models\. Got prefixes student\., teacher\."):
        open_checkpoint(path)


# --- averaged weights -------------------------------------------------------------------------------------------------


def test_the_names_of_averages_are_led_back_to_the_unets() -> None:
    for names in (sparse.sd2(), small.model().config.required()):
        unet = [name for name in names if name.startswith(keys.UNET)]
        assert len(unet) > 100
        assert [of_ema(keys.EMA + name[len("model.") :].replace(".", "")) for name in unet] == unet
    assert of_ema("model_ema.decay") is None and of_ema("model_ema.diffusion_modelfoo") is None


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_averages_beside_the_weights_are_a_choice(tmp_path: Path, state: State, yaml: str, suffix: str) -> None:
    path = saved(tmp_path / f"both{suffix}", {**state, **averaged(state)}, yaml)
    assert equal(open_checkpoint(path), {**state, **averaged(state)})  # the plain ones; nothing is dropped
    assert equal(open_checkpoint(path, ema=True), raised(state))
    assert equal(open_checkpoint(open_checkpoint(path), ema=True), raised(state))
    report = inspect(path)
    assert report.usable and [fault.code for fault in report.faults] == ["ema"]
    assert report.ema == len(averaged(state)) and "--ema" in report.faults[0].fix
    convert(path, tmp_path / "ema.safetensors", ema=True)
    assert load_file(tmp_path / "ema.safetensors").keys() == state.keys()
    assert torch.equal(load_file(tmp_path / "ema.safetensors")[keys.INPUT], state[keys.INPUT] + 1)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_averages_alone_are_used_and_said(tmp_path: Path, state: State, yaml: str, suffix: str) -> None:
    others = {key: value for key, value in state.items() if not key.startswith(keys.UNET)}
    path = saved(tmp_path / f"ema{suffix}", {**others, **averaged(state)}, yaml)
    assert equal(open_checkpoint(path), raised(state))
    report = inspect(path)
    assert report.usable and [fault.code for fault in report.faults] == ["ema-alone"]
    assert torch.equal(open_model(path).parts["unet"].get("conv_in.weight"), state[keys.INPUT] + 1)


def test_a_whole_second_model_of_averages(tmp_path: Path, state: State, yaml: str) -> None:
    path = saved(tmp_path / "both.ckpt", {"model": state, "ema": raised(state)}, yaml)
    assert equal(open_checkpoint(path), state) and equal(open_checkpoint(path, ema=True), raised(state))
    assert [fault.code for fault in inspect(path).faults] == ["wrapped", "ema"]
    alone = saved(tmp_path / "alone.ckpt", {"ema": raised(state)}, yaml)
    assert equal(open_checkpoint(alone), raised(state)) and inspect(alone).usable


def test_averages_that_are_not_there(tmp_path: Path, state: State, yaml: str, folder: Path) -> None:
    path = saved(tmp_path / "plain.ckpt", state, yaml)
    for source in (path, folder):
        with pytest.raises(CheckpointError, match=r"holds no averaged weights \(EMA\)\. .*Leave out --ema"):
            open_model(source, ema=True)


# --- 8-bit floats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_eight_bits_are_widened(tmp_path: Path, state: State, yaml: str, suffix: str, dtype: torch.dtype) -> None:
    narrow = {k: v.to(dtype) if k.startswith((keys.UNET, keys.TEXT)) else v for k, v in state.items()}
    path = saved(tmp_path / f"fp8{suffix}", narrow, yaml)
    file = open_checkpoint(path)
    assert file.dtype(keys.INPUT) == torch.float16 and TYPES[file.kind(keys.INPUT)][0] == str(dtype).removeprefix(
        "torch."
    )
    for key in narrow:  # float16 holds every value of both types
        assert torch.equal(file.get(key), narrow[key].to(torch.float16) if narrow[key].dtype == dtype else narrow[key])
    report = inspect(file)
    assert report.usable and [fault.code for fault in report.faults] == ["fp8"] and "fp8" in report.faults[0].what
    assert f"fp8_{str(dtype).rpartition('float8_')[2]}" in dict(report.rows())["Precision"]
    convert(path, tmp_path / "wide.safetensors")
    assert load_file(tmp_path / "wide.safetensors")[keys.INPUT].dtype == torch.float16


def test_every_eight_bit_value_is_exact_in_float16() -> None:
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        values = torch.arange(256, dtype=torch.uint8).view(dtype)
        wide = values.to(torch.float16)
        same = wide.to(torch.float32) == values.to(torch.float32)
        assert bool((same | values.to(torch.float32).isnan()).all())


def test_eight_bits_with_scales_are_refused(tmp_path: Path, state: State, yaml: str) -> None:
    scaled = {keys.INPUT: state[keys.INPUT].to(torch.float8_e4m3fn), keys.INPUT[:-6] + "scale_weight": torch.ones(1)}
    path = saved(tmp_path / "scaled.safetensors", scaled, yaml)
    with pytest.raises(CheckpointError, match="8-bit floats with scales of their own"):
        open_checkpoint(path)


# --- a UNet alone -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> State:
    """A trained UNet of the base's kind, under diffusers' names."""
    network = small.modules()["unet"]
    return {name: value + 0.5 for name, value in network.state_dict().items()}


def checkpoint_500(path: Path, trained: State, folder: Path, names: dict[str, State]) -> Path:
    """A folder as diffusers' training scripts save it."""
    for name, tensors in names.items():
        (path / name).mkdir(parents=True)
        (path / name / "config.json").write_bytes((folder / "unet" / "config.json").read_bytes())
        save_file(tensors, path / name / "diffusion_pytorch_model.safetensors")
    (path / "optimizer.bin").write_bytes(b"x")
    return path


def sources(tmp_path: Path, trained: State, state: State, folder: Path) -> dict[str, Path]:
    ldm = {key: value + 0.5 for key, value in state.items() if key.startswith(keys.UNET)}
    whole = checkpoint_500(tmp_path / "checkpoint-500", trained, folder, {"unet": trained})
    made = {
        "a file in ldm's names": saved(tmp_path / "ldm.safetensors", ldm, ""),
        "a pickle of diffusers' names": saved(tmp_path / "unet.ckpt", {"model": {**trained}, "step": 3}, ""),
        "behind unet.": saved(
            tmp_path / "other.safetensors", {f"unet.{key}": value for key, value in trained.items()}, ""
        ),
        "behind diffusion_model.": saved(tmp_path / "comfy.safetensors", {k[6:]: v for k, v in ldm.items()}, ""),
        "checkpoint-500": whole,
        "checkpoint-500/unet": whole / "unet",
    }
    for path in tmp_path.glob("*.yaml"):
        path.unlink()
    return made


def test_a_unet_alone_is_put_into_its_base(tmp_path: Path, trained: State, state: State, folder: Path) -> None:
    base = small.model()
    for what, source in sources(tmp_path, trained, state, folder).items():
        model = with_parts(base, source)
        assert model.parts["vae"] is base.parts["vae"], what
        assert {name: True for name in trained} == {
            name: torch.equal(model.parts["unet"].get(name), value) for name, value in trained.items()
        }, what
    assert convert(source, tmp_path / "whole.safetensors", base=folder).bytes
    written = load_file(tmp_path / "whole.safetensors")
    assert torch.equal(written[keys.INPUT], state[keys.INPUT] + 0.5)
    assert torch.equal(written[keys.TOKEN_TABLE], state[keys.TOKEN_TABLE])
    assert inspect(tmp_path / "whole.safetensors").usable


def test_a_unet_alone_names_the_command(tmp_path: Path, trained: State, state: State, folder: Path) -> None:
    """`inspect` and whatever opens it say the same."""
    for what, source in sources(tmp_path, trained, state, folder).items():
        if source.is_file():
            report = inspect(source)
            assert not report.usable and "a UNet of a depth checkpoint, alone" in report.kind, what
            assert "--base" in report.faults[0].fix
            with pytest.raises(CheckpointError, match=r"a UNet alone\. .*--base 512-depth-ema"):
                open_model(source)


def test_averages_of_a_folder(tmp_path: Path, trained: State, folder: Path) -> None:
    average = {name: value + 2 for name, value in trained.items()}
    source = checkpoint_500(tmp_path / "checkpoint-500", trained, folder, {"unet": trained, "unet_ema": average})
    for ema, wanted in ((False, trained), (True, average)):
        part = with_parts(small.model(), source, ema=ema).parts["unet"]
        assert torch.equal(part.get("conv_in.weight"), wanted["conv_in.weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("conv_in.bias"), "is incomplete: 1 of"),
        (lambda s: s.update({"conv_in.weight": s["conv_in.weight"][:, :4].clone()}), "4 input channels"),
        (lambda s: s.update({"conv_out.bias": torch.ones(7)}), "another shape"),
        (lambda s: s.update({"lora_up.weight": torch.ones(7)}), "no place for"),
        (lambda s: s.pop("up_blocks.0.resnets.0.norm1.weight"), "holds no UNet"),
    ],
)
def test_a_unet_that_is_not_the_bases(
    tmp_path: Path, trained: State, change: Callable[[State], object], words: str
) -> None:
    tensors = dict(trained)
    change(tensors)
    save_file(tensors, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=words):
        with_parts(small.model(), tmp_path / "unet.safetensors")


def test_stale_averages_of_the_base_are_left_out(tmp_path: Path, state: State, trained: State, yaml: str) -> None:
    base = saved(tmp_path / "base.ckpt", {**state, **averaged(state)}, yaml)
    save_file(trained, tmp_path / "unet.safetensors")
    convert(tmp_path / "unet.safetensors", tmp_path / "whole.safetensors", base=base)
    assert not any(key.startswith(keys.EMA) for key in load_file(tmp_path / "whole.safetensors"))


# --- the commands -----------------------------------------------------------------------------------------------------


def test_on_the_command_line(
    tmp_path: Path, state: State, trained: State, yaml: str, folder: Path, capsys: Any
) -> None:
    both = saved(tmp_path / "both.ckpt", {"state_dict": {**state, **averaged(state)}}, yaml)
    save_file(trained, tmp_path / "unet.safetensors")

    def run(*words: object) -> int:
        return int(app.main([str(word) for word in words], standalone_mode=False) or 0)

    run("checkpoint", "convert", both, tmp_path / "ema.safetensors", "--ema")
    assert torch.equal(load_file(tmp_path / "ema.safetensors")[keys.INPUT], state[keys.INPUT] + 1)
    run("convert", tmp_path / "unet.safetensors", tmp_path / "whole.safetensors", "--base", folder)
    assert torch.equal(load_file(tmp_path / "whole.safetensors")[keys.INPUT], state[keys.INPUT] + 0.5)
    capsys.readouterr()
    assert run("checkpoint", "inspect", both) == 0
    said = capsys.readouterr().out
    assert "averaged weights (EMA)" in said and "--ema" in said


# --- inspect agrees with what runs ------------------------------------------------------------------------------------


def without(prefix: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not key.startswith(prefix)}


def bent(key: str) -> Callable[[State], State]:
    return lambda state: {**state, key: torch.cat([state[key], state[key]])}


CASES: dict[str, tuple[Callable[[State], dict[str, Any]], bool]] = {
    "whole": (dict, True),
    "half": (lambda s: {key: value.half() if key.startswith("model.") else value for key, value in s.items()}, True),
    "wrapped": (lambda s: prefixed("module.")(s), True),
    "a tensor is missing": (without(keys.UNET + "out.2."), False),
    "a layer of the text encoder is missing": (without(keys.text_layer(1)), False),
    "no text encoder": (without(keys.TEXT), False),
    "no autoencoder": (without(keys.VAE), False),
    "no depth network": (without(keys.DEPTH), False),
    "a part of the depth network": (without(keys.MIDAS + "scratch.layer1_rn"), False),
    "a tensor of another shape": (bent(keys.UNET + "out.2.bias"), False),
    "an autoencoder of another width": (bent(keys.VAE + "encoder.conv_in.weight"), False),
    "what is never run is missing": (without(keys.TEXT + "text_projection"), True),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("described", [True, False], ids=["with its YAML", "without"])
@pytest.mark.parametrize("case", CASES)
def test_inspect_agrees_with_what_runs(
    tmp_path: Path, state: State, yaml: str, case: str, described: bool, suffix: str
) -> None:
    """A narrow checkpoint works with its YAML and does not without, in `inspect` as in `generate -m`."""
    change, works = CASES[case]
    path = saved(tmp_path / f"narrow{suffix}", change(state), yaml)
    if not described:
        path.with_suffix(".yaml").unlink()
    report, model = inspect(path), opened(path)
    assert report.usable == (model is not None) == (works and described)


def opened(path: Path) -> Model | None:
    try:
        return open_model(path)
    except CheckpointError:
        return None


def test_widths_of_a_narrow_checkpoint_are_the_yamls(tmp_path: Path, state: State, yaml: str) -> None:
    """Three levels of one layer, where the usual model has four of two."""
    report = inspect(saved(tmp_path / "narrow.ckpt", state, yaml))
    assert report.lines()[-1] == "This depth checkpoint is whole and works." and not report.extra


def test_a_description_in_the_metadata_goes_before_the_yaml(tmp_path: Path, state: State) -> None:
    to_single_file(small.model(), tmp_path / "own.safetensors")
    (tmp_path / "own.yaml").unlink()
    header = (tmp_path / "own.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", header[:8])
    assert "depth2img.anatomy" in json.loads(header[8 : 8 + length])["__metadata__"]
    assert open_model(tmp_path / "own.safetensors").config.unet["block_out_channels"] == [32, 64, 64]
