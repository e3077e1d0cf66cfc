"""Maps of a folder and the pictures they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMapError
from depth2img.pairing import KINDS, SHOWN, Pairing, pair


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_stems_with_and_without_the_ending(tmp_path):
    found = pair(["a", "b", "c.1"], touched(tmp_path, "a.png", "b-depth.TIFF", "c.1.npy", "notes.txt"))
    assert {name: path.name for name, path in found.maps.items()} == {
        "a": "a.png",
        "b": "b-depth.TIFF",
        "c.1": "c.1.npy",
    }
    assert found.missing == [] and found.unused == [] and found.notice() == ""
    found.check()


def test_the_ending_tells_maps_from_pictures_beside_them(tmp_path):
    found = pair(["a", "b"], touched(tmp_path, "a.jpg", "a-depth.png", "b.jpg", "b-depth.png"))
    assert [path.name for path in found.maps.values()] == ["a-depth.png", "b-depth.png"]
    assert found.unused == []


def test_what_does_not_match_is_named(tmp_path):
    found = pair(["a", "b"], touched(tmp_path, "a.png", "A.png", "b.txt", "x-depth.exr"))
    assert found.missing == ["b"] and found.unused == ["A.png", "x-depth.exr"]
    assert found.notice() == "Depth maps without a picture: A.png, x-depth.exr."
    with pytest.raises(DepthMapError, match=r"1 of 2 pictures have no depth map in the folder: b\. Maps without"):
        found.check()


def test_a_long_list_is_cut_short(tmp_path):
    with pytest.raises(DepthMapError) as caught:
        pair([str(number) for number in range(5000)], tmp_path).check()
    assert len(str(caught.value)) < 400 and f"and {5000 - SHOWN} more" in str(caught.value)


def test_two_maps_of_one_picture(tmp_path):
    with pytest.raises(DepthMapError, match=r"picture a has several depth maps: a\.npy, a\.png"):
        pair(["a"], touched(tmp_path, "a.png", "a.npy"))


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_folder(tmp_path, name):
    touched(tmp_path, "file")
    with pytest.raises(DepthMapError, match="no such folder"):
        pair(["a"], tmp_path / name)


names = st.text("ab-.", min_size=1, max_size=3).map(lambda text: f"x{text}y")


@given(st.lists(names, unique=True, max_size=6), st.lists(names, unique=True, max_size=6))
def test_nothing_is_silent(pictures, maps):
    """Every picture is paired or missing, every map used or left over; one map belongs to one picture at most."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = pair(pictures, touched(Path(folder), *(f"{name}.png" for name in maps)))
    assert sorted([*found.maps, *found.missing]) == sorted(pictures)
    used = [path.stem for path in found.maps.values()]
    assert len(set(used)) == len(used)
    beside = {name for name in found.maps if f"{name}.png" not in found.unused}
    assert set(maps) - {Path(name).stem for name in found.unused} - set(used) <= beside


def test_the_kinds_are_suffixes():
    assert all(kind.startswith(".") and kind == kind.lower() for kind in KINDS)
    assert isinstance(pair([], Path(__file__).parent), Pairing)
