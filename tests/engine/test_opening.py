"""One opener: every command takes a file for what its content says it is, whatever its name."""

from __future__ import annotations

import json
import logging
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from depth2img.checkpoints import (
    carry_out,
    convert,
    inspect,
    merge,
    open_checkpoint,
    open_midas,
    open_model,
    plan_setup,
    to_single_file,
)
from depth2img.checkpoints.storage.tensors import Tensors
from depth2img.diffusion.loader import find
from depth2img.embedded import WEIGHTS
from depth2img.errors import CheckpointError
from tests.engine import small


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A depth checkpoint as safetensors, and the same as pickle, rightly named."""
    folder = tmp_path_factory.mktemp("right")
    to_single_file(small.model(), folder / "file.safetensors")
    torch.save({"state_dict": load_file(folder / "file.safetensors")}, folder / "file.ckpt")
    return folder


@pytest.fixture(params=[(".safetensors", ".ckpt"), (".ckpt", ".safetensors")], ids=["as .ckpt", "as .safetensors"])
def pair(right: Path, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A file with the right name, and the same bytes with the name of the other kind."""
    is_a, named = request.param
    wrong = tmp_path / f"wrong{named}"
    shutil.copy(right / f"file{is_a}", wrong)
    shutil.copy(right / "file.yaml", tmp_path / "wrong.yaml")
    return right / f"file{is_a}", wrong


def equal(one: Tensors, other: Tensors) -> bool:
    same = set(one.keys()) == set(other.keys())
    return same and all(torch.equal(one.get(key), other.get(key)) for key in one.keys())


def test_inspect_notes_it_and_setup_says_so(pair: tuple[Path, Path], tmp_path: Path) -> None:
    file, wrong = pair
    report = inspect(wrong)
    (fault,) = (fault for fault in report.faults if fault.code == "suffix")
    others = [other.code for other in report.faults if other is not fault]
    assert others == [other.code for other in inspect(file).faults] and report.format == inspect(file).format
    assert "its name says another kind" in fault.what and f"wrong{file.suffix}" in fault.fix and not fault.serious
    if not report.usable:  # a pickle has no metadata that tell of the small model's sizes
        return
    models = tmp_path / "models"
    models.mkdir()
    plan = plan_setup(wrong, (models,))
    assert fault.what in plan.lines()[0]
    assert carry_out(plan, (models,)).usable


def test_convert_and_generate_take_it_with_a_note(
    pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, wrong = pair
    with caplog.at_level(logging.WARNING):
        there, here = open_model(file), find(wrong)
    assert [record.getMessage() for record in caplog.records] == [open_checkpoint(wrong).misnamed]
    assert all(equal(there.parts[name], here.parts[name]) for name in there.parts)
    convert(file, tmp_path / "one.safetensors")
    convert(wrong, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert equal(open_midas(file), open_midas(wrong))


def test_merge_takes_it(pair: tuple[Path, Path], tmp_path: Path) -> None:
    file, wrong = pair
    merge(file, file, tmp_path / "one.safetensors", multiplier=0.5)
    merge(wrong, file, tmp_path / "two.safetensors", multiplier=0.5)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_the_embedded_model_under_another_name(tmp_path: Path) -> None:
    shutil.copy(WEIGHTS, tmp_path / "tiny.ckpt")
    assert find(tmp_path / "tiny.ckpt").config == find("tiny").config


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x10480])
def test_a_header_whose_length_begins_like_a_pickle(tmp_path: Path, length: int) -> None:
    """The length stands in the first eight bytes, the lowest first: these begin with 0x80 and a pickle's protocol."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(length)
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + struct.pack("<2f", 1, 2))
    assert open_checkpoint(path).get("a").tolist() == [1, 2]


def test_an_opened_file_is_passed_on_as_it_is(right: Path) -> None:
    file = open_checkpoint(right / "file.ckpt")
    assert open_checkpoint(file) is file
    file.path.touch()
    with pytest.raises(CheckpointError, match="changed while it was read"):
        open_model(file).state("vae")


def test_a_hash_is_computed_once_and_kept(right: Path) -> None:
    file = open_checkpoint(right / "file.safetensors")
    assert inspect(file).sha256 is None
    digest = inspect(file, whole=True).sha256
    assert digest and inspect(file).sha256 == file.sha256() == digest
    assert inspect(open_checkpoint(file.path, sha256="0" * 64)).sha256 == "0" * 64
