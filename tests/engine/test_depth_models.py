"""Depth models from a folder of the hub: the same maps as transformers' own pipeline, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from depth2img import EstimatorError
from depth2img.estimators import hub_folder
from depth2img.estimators.devices import ON_CPU
from depth2img.estimators.files import key_of, kind_of, open_estimator
from depth2img.estimators.hub_folder import is_metric
from depth2img.estimators.network import NEAREST, NetworkEstimator, prepared
from depth2img.estimators.transformers import FAMILIES, UNUSED_WEIGHTS
from tests import depth_models as small

transformers = pytest.importorskip("transformers", reason="the extra 'estimators' is not installed")

KINDS = ("dpt", "dpt_dinov2", "depth_anything", "depth_anything_metric", "zoedepth")
METRIC = ("dpt_dinov2", "depth_anything_metric", "zoedepth")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: tmp_path_factory.mktemp("estimators") / kind for kind in KINDS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, folder in made.items():
            small.write(folder, kind)
    return made


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(kind: str = "dpt") -> Path:
        return Path(shutil.copytree(folders[kind], tmp_path / kind))

    return make


def scene(height: int = 90, width: int = 140) -> np.ndarray:
    """uint8 (H, W, 3): two ramps and a chequer."""
    rows, columns = np.mgrid[:height, :width]
    chequer = (rows // 20 + columns // 20) % 2
    unit = np.stack([columns / (width - 1), rows / (height - 1), chequer], axis=2)
    return np.round(unit * 255).astype(np.uint8)


def opened(folder: Path) -> NetworkEstimator:
    return open_estimator(folder, device="cpu", name=folder.name)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# --- the same as transformers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(90, 140), (140, 90), (70, 70)])
def test_map_is_that_of_the_pipeline(folders: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    picture = scene(*size)
    processor = transformers.AutoImageProcessor.from_pretrained(folders[kind], use_fast=False)
    pipeline = transformers.pipeline("depth-estimation", model=small.network(kind), image_processor=processor)
    theirs = pipeline(Image.fromarray(picture))["predicted_depth"]
    ours = opened(folders[kind]).estimate(picture).values
    assert theirs.shape == size and float(theirs.std()) > 0.01
    if kind in METRIC:
        ours = 1 / ours
    if ours.shape != size:  # the pipeline's last step
        ours = torch.nn.functional.interpolate(torch.tensor(ours)[None, None], size=size, mode="bicubic")[0, 0].numpy()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", METRIC)
def test_metres_become_inverse_depth(folders: dict[str, Path], kind: str) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(folders[kind], use_fast=False)
    pipeline = transformers.pipeline("depth-estimation", model=small.network(kind), image_processor=processor)
    metres = pipeline(Image.fromarray(scene()))["predicted_depth"].numpy()
    depth = opened(folders[kind]).estimate(scene()).resized(140, 90).values
    assert np.corrcoef(depth.ravel(), metres.ravel())[0, 1] < -0.9, "larger must be nearer"


def test_nothing_is_nearer_than_the_nearest(folders: dict[str, Path]) -> None:
    estimator = opened(folders["zoedepth"])
    metres = torch.full((1, 64, 96), 10.0)
    metres[:, 20:40, 30:60] = 0.001
    estimator._network.forward = lambda _: SimpleNamespace(predicted_depth=metres)
    values = estimator.estimate(scene()).values
    assert values.max() == pytest.approx(1 / NEAREST)
    assert np.median(values) == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "dpt"}, False),
        ({"model_type": "dpt", "backbone_config": {"model_type": "swinv2"}}, False),
        ({"model_type": "dpt", "backbone_config": {"model_type": "dinov2"}}, True),
        ({"model_type": "depth_anything"}, False),
        ({"model_type": "depth_anything", "depth_estimation_type": "relative"}, False),
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, True),
        ({"model_type": "zoedepth"}, True),
        ({"model_type": "glpn"}, True),
        ({"model_type": "depth_pro"}, False),
    ],
)
def test_sense(config: dict[str, Any], expected: bool) -> None:
    assert is_metric(config) is expected


def test_runs_in_float32_without_autocast_and_records_nothing(copy: Callable[..., Path]) -> None:
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    change(folder / "config.json", torch_dtype="float16", dtype="float16")
    estimator = opened(folder)
    assert {value.dtype for value in estimator._network.parameters()} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = estimator.estimate(scene())
    np.testing.assert_array_equal(under.values, estimator.estimate(scene()).values)
    assert not any(value.requires_grad for value in estimator._network.parameters())


def test_float_pictures_are_rounded_to_eight_bits(folders: dict[str, Path]) -> None:
    estimator = opened(folders["dpt"])
    unit = (scene() / np.float32(255)).astype(np.float32)
    np.testing.assert_array_equal(estimator.estimate(unit).values, estimator.estimate(scene()).values)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((90, 140), None, (90, 140)),
        ((2000, 3000), None, (2000, 3000)),
        ((2000, 3000), 1024, (683, 1024)),
        ((4, 900), None, (32, 256)),
        ((1, 1), None, (32, 32)),
        ((100, 9000), None, (100, 800)),
        ((9000, 100), 1024, (256, 32)),
    ],
)
def test_size_that_the_processor_sees(size: tuple[int, int], longest: int | None, expected: tuple[int, int]) -> None:
    assert prepared(np.full((*size, 3), 0.5, np.float32), longest=longest).shape[:2] == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(3, 700), (1, 1)])
def test_extreme_pictures(folders: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    picture = scene(*size) if min(size) > 1 else np.zeros((1, 1, 3), np.uint8)
    assert np.isfinite(opened(folders[kind]).estimate(picture).values).all()


def test_key_follows_the_files(copy: Callable[..., Path]) -> None:
    folder = copy()
    before = key_of(folder)
    assert opened(folder).key == before
    change(folder / "preprocessor_config.json", size={"height": 96, "width": 96})
    assert key_of(folder) != before


def test_what_a_folder_holds(folders: dict[str, Path], tmp_path: Path) -> None:
    found = [kind_of(folders[kind]) for kind in KINDS]
    assert found == ["dpt", "dpt", "depth_anything", "depth_anything", "zoedepth"]
    assert kind_of(tmp_path) is None
    for text in ("[]", "{", '{"model_type": "llama"}', '{"model_type": []}', "[" * 5000):
        (tmp_path / "config.json").write_text(text)
        assert kind_of(tmp_path) is None


# --- what is refused ---------------------------------------------------------------------------------------------


class Marks:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_weights_are_not_read(copy: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    with pytest.raises(EstimatorError, match=r"no weights as safetensors\. Got pytorch_model\.bin"):
        opened(folder)
    assert not (tmp_path / "ran").exists()


def test_code_in_the_folder_does_not_run(copy: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy()
    (folder / "model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\nclass Config: pass\n")
    names = {
        "AutoConfig": "model.Config",
        "AutoModelForDepthEstimation": "model.Net",
        "AutoImageProcessor": "model.Net",
    }
    change(folder / "config.json", auto_map=names, attn_implementation="kernels-community/flash-attn")
    change(folder / "preprocessor_config.json", auto_map=names)
    assert opened(folder).estimate(scene()).width == 64
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "llama"}, r"not known here\. Got model_type 'llama'\. Known are: dpt"),
        ("config.json", {"backbone": "someone/else"}, r"asks for a further model\. Got backbone someone/else"),
        ("config.json", {"use_pretrained_backbone": True}, "asks for a further model"),
        ("config.json", {"backbone_config": {"use_timm_backbone": True}}, "asks for a further model"),
        ("config.json", {"hidden_size": 10**9}, "number in its configuration that no depth model has"),
        ("config.json", {"neck_hidden_sizes": [8, 16, 24, 10**12]}, "number in its configuration"),
        ("config.json", {"hidden_size": 64}, "cannot be loaded"),
        ("config.json", {"num_hidden_layers": 6}, "do not fit its configuration"),
        ("config.json", {"hidden_act": "exec"}, "cannot be loaded"),
        ("config.json", {"num_attention_heads": 0}, "cannot be loaded"),
        ("preprocessor_config.json", {"size": {"height": 10**6, "width": 4}}, "number in its configuration"),
        ("preprocessor_config.json", {"size": "large"}, "cannot be loaded"),
    ],
)
def test_hostile_configurations(copy: Callable[..., Path], file: str, values: dict[str, Any], message: str) -> None:
    folder = copy()
    change(folder / file, **values)
    with pytest.raises(EstimatorError, match=message):
        opened(folder)


def test_a_processor_that_fails(copy: Callable[..., Path]) -> None:
    folder = copy()
    change(folder / "preprocessor_config.json", preprocess="overwritten", image_mean=[0.5])
    with pytest.raises(EstimatorError, match="The depth estimator dpt failed"):
        opened(folder).estimate(scene())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 900 + b"1" + b"}" * 900])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_damaged_json(copy: Callable[..., Path], file: str, content: bytes) -> None:
    folder = copy()
    (folder / file).write_bytes(content)
    with pytest.raises(EstimatorError):
        opened(folder)


def test_json_of_any_size_is_not_read(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy()
    monkeypatch.setattr(hub_folder, "LARGEST_JSON", 100)
    with pytest.raises(EstimatorError, match=r"config\.json of a depth estimator is damaged"):
        opened(folder)


@pytest.mark.parametrize("damage", ["short", "empty", "header", "shape"])
def test_damaged_weights(copy: Callable[..., Path], damage: str) -> None:
    folder = copy()
    path = folder / "model.safetensors"
    content = path.read_bytes()
    if damage == "shape":
        weights = load_file(path)
        weights["head.head.4.weight"] = torch.zeros(1, 3, 1, 1)
        save_file(weights, path, {"format": "pt"})
    else:
        path.write_bytes({"short": content[:-1000], "empty": b"", "header": b"\xff" * 7 + content[7:]}[damage])
    with pytest.raises(EstimatorError, match="cannot be loaded"):
        opened(folder)


def test_weights_that_are_missing(copy: Callable[..., Path]) -> None:
    """All but those of the first fusion layer, which are never run and which the published DPT files leave out."""
    folder = copy()
    path = folder / "model.safetensors"
    weights = load_file(path)
    before = opened(folder).estimate(scene())
    kept = {key: value for key, value in weights.items() if not key.startswith(UNUSED_WEIGHTS)}
    assert len(kept) < len(weights)
    save_file(kept, path, {"format": "pt"})
    np.testing.assert_array_equal(opened(folder).estimate(scene()).values, before.values)
    kept.pop("head.head.4.weight")
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(EstimatorError, match=r"do not fit its configuration\. Got 1 missing, such as head\.head\.4"):
        opened(folder)


def test_weights_in_parts(copy: Callable[..., Path]) -> None:
    folder = copy()
    before = opened(folder).estimate(scene())
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {key: names[index % 2] for index, key in enumerate(weights)}
    for name in names:
        save_file({key: weights[key] for key in weights if where[key] == name}, folder / name, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    np.testing.assert_array_equal(opened(folder).estimate(scene()).values, before.values)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "../outside.safetensors")}))
    with pytest.raises(EstimatorError, match="is damaged"):
        opened(folder)


def test_an_older_transformers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["zoedepth"]
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="4.30.2"))
    with pytest.raises(
        EstimatorError, match=rf"needs transformers {family.since} or newer\. Got transformers 4\.30\.2"
    ):
        opened(folders["zoedepth"])


def test_without_transformers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EstimatorError, match=r"needs the package transformers\. Run: pip install"):
        opened(folders["dpt"])


def test_without_memory_on_the_card_the_cpu_estimates_once(folders: dict[str, Path]) -> None:
    """As the checkpoint's own network does."""
    estimator = opened(folders["dpt"])
    wanted = estimator.estimate(scene())
    inner, full = estimator._network.forward, [torch.cuda.OutOfMemoryError("CUDA out of memory")]

    def forward(*args: Any, **named: Any) -> Any:
        if full:
            raise full.pop()
        return inner(*args, **named)

    estimator._network.forward = forward
    depth = estimator.estimate(scene())
    assert depth.notice == ON_CPU and wanted.notice == ""
    np.testing.assert_array_equal(depth.values, wanted.values)
    full += [torch.cuda.OutOfMemoryError("CUDA out of memory")] * 2
    with pytest.raises(EstimatorError, match="Got OutOfMemoryError CUDA out of memory"):
        estimator.estimate(scene())
    assert full == []


def test_a_network_that_returns_nan(folders: dict[str, Path]) -> None:
    estimator = opened(folders["dpt"])
    estimator._network.head.head[4].bias.data.fill_(float("nan"))
    with pytest.raises(EstimatorError, match="NaN or infinity"):
        estimator.estimate(scene())
