"""Descriptions, headers and pickles of checkpoints that nobody has checked: a model or one error, in a moment."""

from __future__ import annotations

import copy
import functools
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import open_model, to_folder, to_single_file
from depth2img.checkpoints.layout.config import from_json
from depth2img.checkpoints.model import Model
from depth2img.errors import CheckpointError
from tests.engine import small

HUGE = [10**9, 2**63, -1, 0, 1.5, float("inf"), float("nan"), "x", "9" * 5000, True, None, [], {}, [[]], {"a": 1}]
"""Values that may stand in place of any other."""


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file whose description is in the YAML alone."""
    path = tmp_path_factory.mktemp("hostile") / "file.safetensors"
    to_single_file(small.model(), path)
    save_file(load_file(path), path)
    return path


def opened(path: Path) -> Model | None:
    """The model, or None if there was the one error; anything else fails the test."""
    try:
        return open_model(path)
    except CheckpointError as error:
        said = str(error)
    assert len(said) < 1000
    return None


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of nested containers."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def replaced(value: Any, place: tuple[Any, ...], by: Any) -> Any:
    if not place:
        return by
    value = copy.deepcopy(value)
    functools.reduce(lambda part, key: part[key], place[:-1], value)[place[-1]] = by
    return value


def test_any_value_of_the_yaml_replaced(single: Path) -> None:
    beside = single.with_suffix(".yaml")
    good = beside.read_text()
    description = yaml.safe_load(good)
    random.seed(5)
    try:
        assert opened(single) is not None
        refused = 0
        for place in places(description):
            for by in random.sample(HUGE, 4):
                beside.write_text(yaml.safe_dump(replaced(description, place, by)))
                refused += opened(single) is None
        assert refused > 50
    finally:
        beside.write_text(good)


BOMBS = {
    "deep": "[" * 5000,
    "deep in blocks": "\n".join(" " * n + "a:" for n in range(900)),
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(
        f"{b}: &{b} [{','.join('*' + a for _ in range(9))}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "itself": "&a {model: *a}",
    "itself further in": "model: &m {params: *m}",
    "a date that is none": "model: 2001-13-45",
    "a number of thousands of digits": "model: " + "9" * 9000,
    "not text": "model: \udcff",
    "code": "!!python/object/apply:os.system [true]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_bombs(single: Path, name: str) -> None:
    beside = single.with_suffix(".yaml")
    good = beside.read_text()
    try:
        beside.write_text(BOMBS[name], encoding="utf-8", errors="surrogateescape")
        assert opened(single) is None
    finally:
        beside.write_text(good)


def test_very_many_levels(single: Path) -> None:
    """Each would cost a power of two of its number."""
    beside = single.with_suffix(".yaml")
    good = beside.read_text()
    description = yaml.safe_load(good)
    params = description["model"]["params"]["unet_config"]["params"]
    params["channel_mult"] = [1] * 30_000
    try:
        beside.write_text(yaml.safe_dump(description, default_flow_style=True))
        assert beside.stat().st_size < 2**20 and opened(single) is None
    finally:
        beside.write_text(good)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_of_the_metadata_replaced(data: Any) -> None:
    description = json.loads(small.model().config.to_json())
    place = data.draw(st.sampled_from(places(description)))
    by = data.draw(st.sampled_from(HUGE))
    try:
        config = from_json(json.dumps(replaced(description, place, by)))
        assert len(list(config.key_map(["a"]))) < 100_000
    except (CheckpointError, KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError, IndexError):
        pass  # `open_model` turns all of these into the one


def test_deep_metadata() -> None:
    for text in ("[" * 100_000, '{"unet":' * 50_000, "9" * 9000, "null", "[]", '"\\ud800"'):
        with pytest.raises(CheckpointError):
            from_json(text)


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, text: bytes, body: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_headers(single: Path, tmp_path: Path, data: Any) -> None:
    """Any part of any entry of the header, and its bytes."""
    entries, body = header(single)
    path = tmp_path / "changed.safetensors"
    if data.draw(st.booleans()):
        names = ["model.diffusion_model.input_blocks.0.0.weight", "depth_model.model.pretrained.model.pos_embed"]
        name = data.draw(st.sampled_from([*names, *entries]))
        by = data.draw(st.sampled_from([*HUGE[:-6], [5], [5, 5], [1, 2, 3, 4], "F8_E4M3", "I64", [0, 2**62], [8, 4]]))
        entries = replaced(entries, (name, data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))), by)
        text = json.dumps(entries).encode()
    else:
        text = bytearray(json.dumps(entries).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    with_header(path, bytes(text), body)
    opened(path)


@pytest.mark.parametrize("length", [0, 1, 7, 2**63 - 1, 2**64 - 1, 100_000_001])
def test_header_lengths(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 50)
    with pytest.raises(CheckpointError):
        open_model(path)


def test_names_that_count_to_infinity(tmp_path: Path) -> None:
    """The number of MiDaS' blocks is read from the names of its tensors."""
    to_single_file(small.model(midas=True), tmp_path / "one.safetensors")
    state = load_file(tmp_path / "one.safetensors")
    for name in ("blocks.999999999999.norm1.weight", "patch_embed.backbone.stages.88888888.x"):
        save_file({**state, f"depth_model.model.pretrained.model.{name}": torch.ones(1)}, tmp_path / "two.safetensors")
        (tmp_path / "two.yaml").write_bytes((tmp_path / "one.yaml").read_bytes())
        assert opened(tmp_path / "two.safetensors") is None


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../../secret.safetensors"},
        {"a": "/etc/passwd"},
        {"a": ".."},
        {"a": ["x"]},
        {"a": None},
        [],
        "x",
        {"a": "\0"},
    ],
    ids=str,
)
def test_an_index_opens_only_files_of_its_folder(tmp_path: Path, weight_map: Any) -> None:
    to_folder(small.model(midas=False), tmp_path / "model")
    weights = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "secret.safetensors")
    weights.with_name(weights.name + ".index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert opened(tmp_path / "model") is None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pickles(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(
        {"state_dict": {"a": torch.arange(6.0)}, "step": 3},
        path,
        _use_new_zipfile_serialization=data.draw(st.booleans()),
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    assert opened(path) is None
