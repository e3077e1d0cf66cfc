"""Maps and masks of a folder and the pictures they belong to."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import Depth2ImgError, OptionError
from depth2img.io.pairing import MAPS, MASKS, SHOWN, files_in, find_partners, pair, stem, without_partners


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_names_with_and_without_the_ending() -> None:
    found = pair(["a", "b", "c.1", "in/d"], ["a.png", "b-depth.TIFF", "c.1.npy", "in/d.exr"], MAPS)
    assert found.partners == {"a": "a.png", "b": "b-depth.TIFF", "c.1": "c.1.npy", "in/d": "in/d.exr"}
    assert found.missing == [] and found.unused == [] and found.lacking() == found.left_over() == ""
    found.check()


@pytest.mark.parametrize("kind", [MAPS, MASKS])
def test_the_ending_goes_before_the_plain_name(kind) -> None:
    """So that the folder may hold the pictures or results too."""
    files = [f"{name}{end}" for name in ("a", "b") for end in (".jpg", f"{kind.ending}.png")]
    found = pair(["a", "b"], files, kind)
    assert [*found.partners.values()] == [f"a{kind.ending}.png", f"b{kind.ending}.png"]
    assert found.unused == []


def test_the_ending_is_that_of_the_kind() -> None:
    assert pair(["a"], ["a-depth.png"], MASKS).missing == ["a"]
    assert pair(["a"], ["a-mask.png"], MAPS).missing == ["a"]


def test_a_map_is_no_picture_s_own_map() -> None:
    """A folder with pictures and their maps may be listed as a whole: a map is not its own map."""
    files = ["a.png", "a-depth.png"]
    found = pair(["a", "a-depth"], files, MAPS)
    assert found.partners == {"a": "a-depth.png"} and found.missing == ["a-depth"]
    assert without_partners(files, MAPS) == ["a.png"]
    assert without_partners(["b-depth.png", "in/a.png", "a-depth.png"], MAPS) == [
        "b-depth.png",
        "in/a.png",
        "a-depth.png",
    ]


def test_no_picture_is_its_own_map(tmp_path: Path) -> None:
    """By its plain name; that of another picture it may be."""
    assert pair(["a", "b"], ["a.png", "b.npy"], MAPS, {"a.png"}).missing == ["a"]
    assert pair(["a"], ["a.png", "a.npy"], MAPS, {"a.png"}).partners == {"a": "a.npy"}
    touched(tmp_path, "a.png", "b.png", "b-depth.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = find_partners(["a", "b", "b-depth", "link"], tmp_path, MAPS, own=[*tmp_path.iterdir()])
    assert found.partners == {"b": "b-depth.png"} and found.missing == ["a", "b-depth", "link"]
    assert found.unused == []


def test_what_does_not_match_is_named() -> None:
    """Capitals and small letters differ, as they do for some file systems."""
    found = pair(["a", "b", "in/c"], ["a.png", "A.png", "x-depth.exr", "c.png", "b-Depth.png"], MAPS)
    assert found.missing == ["b", "in/c"] and found.unused == ["A.png", "b-Depth.png", "c.png", "x-depth.exr"]
    assert found.left_over() == "Depth maps without a picture: A.png, b-Depth.png, c.png, x-depth.exr."
    with pytest.raises(OptionError, match=r"2 of 3 pictures have no depth map in the folder: b, in/c\. Depth maps wi"):
        found.check()
    with pytest.raises(OptionError, match=r"photo-mask\.png for photo\.jpg\. Or paint one\.$") as caught:
        pair(["a"], [], MASKS).check(otherwise="Or paint one.")
    assert caught.value.field == "mask"


def test_a_long_list_is_cut_short() -> None:
    with pytest.raises(OptionError) as caught:
        pair([str(number) for number in range(5000)], [], MAPS).check()
    assert len(str(caught.value)) < 400 and f"and {5000 - SHOWN} more" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["a.png", "a.npy"], r"a \(a\.npy, a\.png\)\. Leave one"),
        (["a-depth.png", "a-depth.npy", "a.png"], r"a \(a-depth\.npy, a-depth\.png\)"),
        (["a.png", "a.PNG", "b.png", "b.exr"], r"a \(a\.PNG, a\.png\), b \(b\.exr, b\.png\)"),
    ],
)
def test_several_maps_of_one_picture(files, named) -> None:
    with pytest.raises(OptionError, match="Several depth maps belong to one picture.*" + named):
        pair(["a", "b"], files, MAPS)


def test_several_files_of_no_picture_or_behind_the_ending_are_in_nobody_s_way() -> None:
    assert pair(["a"], ["a-depth.png", "a.png", "a.npy"], MAPS).partners == {"a": "a-depth.png"}
    assert pair(["a"], ["a.png", "x.png", "x.npy"], MAPS).unused == ["x.npy", "x.png"]


def test_pictures_of_one_name_share_their_map() -> None:
    """a.jpg and a.png."""
    found = pair(["a", "a"], ["a.npy"], MAPS)
    assert found.partners == {"a": "a.npy"} and found.lacking() == ""


names = st.text("ab-.", min_size=1, max_size=3).map(lambda text: f"x{text}y")
some = st.lists(st.tuples(names, st.sampled_from(["", "-depth", "-depth-depth"])).map("".join), unique=True, max_size=6)


@given(some, some)
def test_nothing_is_silent(pictures, maps) -> None:
    """Every picture is paired or missing, every file used, left over, or named as a picture that has a better one; one
    file belongs to one picture at most."""
    found = pair(pictures, [f"{name}.png" for name in maps], MAPS)
    assert sorted([*found.partners, *found.missing]) == sorted(pictures)
    used = [*found.partners.values()]
    assert len(set(used)) == len(used) and not set(used) & set(found.unused)
    assert {stem(file) for file in used} <= set(maps)
    beside = set(maps) - {stem(name) for name in [*found.unused, *used]}
    assert all(f"{name}-depth" in maps for name in beside) and beside <= set(pictures)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_files_of_a_folder(tmp_path: Path) -> None:
    touched(tmp_path, "b.PNG", "a.npy", "notes.txt", "._a.png", "in/c.exr", ".hidden/d.png", "out/e.png")
    assert files_in(tmp_path, MAPS.suffixes, "input") == ["a.npy", "b.PNG"]
    below = files_in(tmp_path, MAPS.suffixes, "input", below=True, apart={(tmp_path / "out").resolve()})
    assert below == ["a.npy", "b.PNG", "in/c.exr"]


def test_folders_are_searched_where_pictures_lie_in_folders(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", "in/a.png", "in/b.png")
    assert find_partners(["a"], tmp_path, MASKS, own=[]).unused == []
    found = find_partners(["a", "in/a"], tmp_path, MASKS, own=[])
    assert found.partners == {"a": "a.png", "in/a": "in/a.png"} and found.unused == ["in/b.png"]


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_folder(tmp_path: Path, name: str) -> None:
    touched(tmp_path, "file")
    with pytest.raises(OptionError, match="no such folder") as caught:
        find_partners(["a"], tmp_path / name, MASKS, own=[])
    assert caught.value.field == "mask"


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(Depth2ImgError, match="cannot be read"):
        files_in(tmp_path, MAPS.suffixes, "input")


def test_composed_and_decomposed_names_are_one() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for one, other in ((composed, decomposed), (decomposed, composed)):
        found = pair([one, f"in/{one}"], [f"{other}.png", f"in/{other}-depth.npy"], MAPS)
        assert found.partners == {one: f"{other}.png", f"in/{one}": f"in/{other}-depth.npy"}
        assert found.missing == found.unused == []
        assert without_partners([f"{one}.png", f"{other}-depth.png"], MAPS) == [f"{one}.png"]


@pytest.mark.parametrize(
    ("ending", "picture", "partner"),
    [
        ("_depth", "a", "a_depth"),
        ("-0000-0000", "img", "img-0000-0000"),
        ("depth_*", "in/a", "in/depth_a"),
        ("*.depth", "a", "a.depth"),
        ("Depth#", "render_2_0001", "Depth0001"),
        ("#_d", "in/shot7b", "in/7_d"),
    ],
)
def test_other_endings_and_patterns(ending: str, picture: str, partner: str) -> None:
    kind = MAPS.ended(ending)
    assert kind.name_for(picture) == partner
    found = pair([picture], [f"{partner}.png", f"{picture}-depth.png"], kind)
    assert found.partners == {picture: f"{partner}.png"} and found.unused == [f"{picture}-depth.png"]
    assert pair([picture], [f"{picture}.png"], kind).partners == {picture: f"{picture}.png"}, "the plain name remains"
    assert without_partners([f"{picture}.png", f"{partner}.png"], kind) == [f"{picture}.png"]
    with pytest.raises(OptionError, match=re.escape(kind.name_for("photo001" if "#" in ending else "photo") + ".png")):
        pair(["photo001"], [], kind).check()


def test_a_name_without_the_number_that_a_pattern_needs() -> None:
    assert pair(["a"], ["Depth.png", "Depth1.png"], MAPS.ended("Depth#")).missing == ["a"]


@pytest.mark.parametrize("ending", ["*", "#", "a/*", "a\\b", "*#", "**"])
def test_what_is_no_ending(ending: str) -> None:
    with pytest.raises(OptionError, match="not an ending of the names of masks") as caught:
        MASKS.ended(ending)
    assert caught.value.field == "mask_ending"


def test_no_ending_leaves_the_usual_one() -> None:
    assert MAPS.ended("") is MAPS
