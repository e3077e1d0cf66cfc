"""Pickled checkpoints: read like PyTorch does, one tensor at a time, and nothing in them is ever run."""

from __future__ import annotations

import collections
import io
import os
import random
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depth2img.checkpoints.storage.opening import open_checkpoint
from depth2img.checkpoints.storage.unpickling import MAX_STREAM
from depth2img.errors import CheckpointError

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


def state() -> dict[str, Any]:
    """Tensors of every type and layout that training leaves behind."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(5, 7, generator=generator)
    tensors = {str(dtype): (100 * torch.randn(3, 4, generator=generator)).to(dtype) for dtype in TYPES}
    return {
        **tensors,
        "turned": base.t(),
        "part": base[1:4, ::2],
        "repeated": base[:1].expand(6, 7),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(base),
        "note": "no tensor",
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "state_dict"])
def test_reads_what_pytorch_reads(tmp_path: Path, legacy: bool, nested: bool) -> None:
    path, saved = tmp_path / "file.ckpt", state()
    whole = {"state_dict": collections.OrderedDict(saved), "epoch": 3, "best": np.float64(2.5)} if nested else saved
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    opened, theirs = open_checkpoint(path), torch.load(path, weights_only=False)
    theirs = theirs["state_dict"] if nested else theirs
    assert set(opened.keys()) == {key for key, value in theirs.items() if isinstance(value, torch.Tensor)}
    for key in opened.keys():
        assert opened.shape(key) == tuple(theirs[key].shape) and opened.dtype(key) == theirs[key].dtype
        assert torch.equal(opened.get(key), theirs[key])


def test_reads_only_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"large": torch.zeros(1 << 22), "small": torch.arange(6)}, tmp_path / "file.ckpt")
    sizes: list[int] = []
    original = io.FileIO.readinto

    opened = open_checkpoint(tmp_path / "file.ckpt")
    import depth2img.checkpoints.storage.reading as reading

    def read(file: io.FileIO, target: memoryview, path: Path) -> None:
        sizes.append(len(target))
        original(file, target)

    monkeypatch.setattr(reading, "_read_into", read)
    assert torch.equal(opened.get("small"), torch.arange(6))
    assert sizes == [48]


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = function, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    ("function", "given", "name"),
    [
        (os.system, ("touch ran",), "posix.system"),
        (eval, ("open('ran', 'w')",), "__builtin__.eval"),
        (getattr, (os, "system"), "__builtin__.getattr"),
        (torch.load, ("other.pt",), "torch.serialization.load"),
    ],
)
def test_every_call_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, function: Any, given: tuple[Any, ...], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = tuple(value for value in given if value is not os)
    torch.save(
        {"a": torch.ones(2), "b": Calls(function, *given)}, "bad.ckpt", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(CheckpointError, match=f"wants to run code, and was not loaded. Got a call of {name}"):
        open_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_all_foreign_names_are_named(tmp_path: Path, legacy: bool) -> None:
    """In order, once each, whatever stands between them."""
    wanted = {"a": Calls(os.system, "true"), "b": torch.ones(2), "c": [Calls(eval, "1"), Calls(os.system, "false")]}
    path = tmp_path / "bad.ckpt"
    torch.save({**wanted, "d": Calls(os.getenv, "HOME")}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"Got calls of __builtin__\.eval, os\.getenv, posix\.system\. Do"):
        open_checkpoint(path)


def test_foreign_names_are_bounded_and_printable(tmp_path: Path) -> None:
    names = b"".join(b"c\x1b[2J%s\nname%06d\n0" % (b"m" * 300, n) for n in range(20_000))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(zipped(tmp_path / "bad.ckpt", b"\x80\x02" + names + b"cos\nsystem\n.", {}))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 3000
    names = b"".join(b"cos\nname%06d\n0" % n for n in range(20_000))
    with pytest.raises(CheckpointError, match=r"os\.name000000, os\.name000001, .*os\.name000019 and more\. Do"):
        open_checkpoint(zipped(tmp_path / "bad.ckpt", b"\x80\x02" + names + b"N.", {}))


def test_what_breaks_behind_a_foreign_name_is_refused_for_the_name(tmp_path: Path) -> None:
    """An item is set on what a call would return, and the stream ends early."""
    for stream in (b"cos\nsystem\n)RN(K\x01K\x02u.", b"cos\nsystem\n", b"cos\nsystem\n\x82\x01."):
        with pytest.raises(CheckpointError, match=r"Got a call of os\.system"):
            open_checkpoint(zipped(tmp_path / "bad.ckpt", b"\x80\x02" + stream, {}))


def zipped(path: Path, stream: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", stream)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


@pytest.mark.parametrize("entry", ["data.pkl", "data/0"])
def test_an_encrypted_archive_is_refused(tmp_path: Path, entry: str) -> None:
    path = zipped(tmp_path / "a.ckpt", TENSOR % (b"K\x00", b"K\x03K\x01"), {"0": bytes(24)})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"archive/" + entry.encode()) - 46 + 8] |= 1  # in the directory at the end
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as a PyTorch checkpoint"):
        open_checkpoint(path)


def test_a_huge_byte_order_is_not_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.ckpt", TENSOR % (b"K\x00", b"K\x03K\x01"), {"0": bytes(24)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", b"little" + bytes(1 << 26))
    tracemalloc.start()
    try:
        assert open_checkpoint(path).keys() == ["a"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    b"%b(K\x02K\x03t(%bt\x89ccollections\nOrderedDict\n)RtRs."
)
"""A dictionary with one tensor "a" of shape (2, 3); to fill in: its offset and strides."""


def test_the_written_out_stream_is_a_good_one(tmp_path: Path) -> None:
    content = torch.arange(6.0).numpy().tobytes()
    opened = open_checkpoint(zipped(tmp_path / "a.ckpt", TENSOR % (b"K\x00", b"K\x03K\x01"), {"0": content}))
    assert torch.equal(opened.get("a"), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("offset", "strides"),
    [
        (b"K\x01", b"K\x03K\x01"),
        (b"K\x00", b"J\xff\xff\xff\x7fK\x01"),
        (b"J\xff\xff\xff\xff", b"K\x03K\x01"),
        (b"K\x00", b"J\xfd\xff\xff\xffK\x01"),
        (b"G?\xf0\x00\x00\x00\x00\x00\x00", b"K\x03K\x01"),
        (b"K\x00", b"K\x03"),
    ],
    ids=["offset", "stride", "negative offset", "negative stride", "fraction", "too few strides"],
)
def test_a_tensor_that_reaches_outside_is_refused(tmp_path: Path, offset: bytes, strides: bytes) -> None:
    path = zipped(tmp_path / "a.ckpt", TENSOR % (offset, strides), {"0": bytes(24)})
    with pytest.raises(CheckpointError, match=r"outside of the file|cannot be read"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a place in the memo that would take gigabytes
        b"\x80\x02X\xff\xff\xff\x7fa.",  # a text that is not there
        b"\x80\x05\x96\xff\xff\xff\xff\x07\x00\x00\x00.",  # the same for bytes
        b"\x80\x02(((((.",
        b"I" + b"9" * 5000 + b"\n.",
        b"",
    ],
)
def test_bombs_and_nonsense(tmp_path: Path, stream: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read|holds no tensors"):
        open_checkpoint(zipped(tmp_path / "a.ckpt", stream, {}))


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    stream = TENSOR % (b"K\x00", b"K\x03K\x01")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(zipped(tmp_path / "a.ckpt", stream, {"0": bytes(24)}, zipfile.ZIP_DEFLATED))


def test_a_stream_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"\x80\x02" + b"]0" * (MAX_STREAM // 2 // 64) + b"(" * 10)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(tmp_path / "a.ckpt")


def test_nothing_in_a_stream_changes_what_later_streams_find(tmp_path: Path) -> None:
    """The opcode for attributes would otherwise reach the very functions that stand for PyTorch's."""
    stream = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86bs."
    with pytest.raises(CheckpointError, match="holds no tensors"):
        open_checkpoint(zipped(tmp_path / "bad.ckpt", stream, {}))
    from depth2img.checkpoints.storage import unpickling

    assert unpickling._rebuild_tensor.__defaults__ is None


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_damage_ends_in_a_sentence(tmp_path: Path, legacy: bool) -> None:
    """Cut anywhere or with any byte changed: the right values or `CheckpointError`, never another exception."""
    source, path, chance = tmp_path / "good.ckpt", tmp_path / "bad.ckpt", random.Random(0)
    torch.save(state(), source, _use_new_zipfile_serialization=not legacy)
    content, refused = source.read_bytes(), 0
    for number in range(400):
        damaged = bytearray(content)
        if number % 2:
            del damaged[chance.randrange(len(content)) :]
        else:
            damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            opened = open_checkpoint(path)
            for key in opened.keys():
                opened.get(key)
        except CheckpointError:
            refused += 1
    assert refused > 200


def test_bit_flips_in_values_are_found(tmp_path: Path) -> None:
    """The archive has a checksum for every storage; PyTorch itself does not look at it."""
    path = tmp_path / "file.ckpt"
    torch.save({"a": torch.full((64,), 1.5)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(np.full(8, 1.5, np.float32).tobytes())
    content[place + 2] ^= 4
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["a"], torch.full((64,), 1.5))
    with pytest.raises(CheckpointError, match="checksum"):
        open_checkpoint(path).get("a")


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.ckpt"
    torch.save({"a": torch.ones(4096)}, path)
    opened = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="changed while it was read"):
        opened.get("a")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read to its end"):
        opened.get("a")
