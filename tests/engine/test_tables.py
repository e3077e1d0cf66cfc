"""Lists as spreadsheets write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import OptionError
from depth2img.batch import tables
from depth2img.batch.manifest import FIELDS, field_of, read_manifest

CASES = Path(__file__).parents[1] / "library" / "cases"


def values(path: Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_manifest(path)]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("semi.csv", {"picture": "f/scene.png", "prompt": "a room", "seed": 3}),
        ("capsh.csv", {"picture": "f/scene.png", "prompt": "x"}),
        ("comma.csv", {"picture": "f/scene.png", "denoising_strength": 0.8}),
        ("trail.csv", {"picture": "f/scene.png", "prompt": "x"}),
    ],
)
def test_excel_s_lists(name: str, wanted: dict[str, Any]) -> None:
    assert values(CASES / name) == [wanted]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("first", ["", "sep={}\r\n", '"sep={}"\r\n'])
def test_encodings_and_separators(encoding: str, separator: str, first: str, tmp_path: Path) -> None:
    cells = [["Picture", "Negative Prompt", "CFG scale", "Append map to results", ""]]
    cells += [["ä.png", '"a; b, c"', '"2,5"', "wahr", ""], [""] * 5, ["b.png", "", "3", "FALSCH", ""]]
    text = first.format(separator) + "".join(separator.join(row) + "\r\n" for row in cells)
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    assert values(tmp_path / "list.csv") == [
        {"picture": "ä.png", "negative_prompt": "a; b, c", "cfg_scale": 2.5, "append_map": True},
        {"picture": "b.png", "cfg_scale": 3.0, "append_map": False},
    ]
    last = len(text.splitlines())
    assert read_manifest(tmp_path / "list.csv")[1].where == f"list.csv, line {last}"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("heading", "nearest"),
    [
        ("promt", "'prompt'"),
        ("Pictures", "'picture'"),
        ("denoise strength", "'denoising_strength'"),
        ("qqq", "fields are"),
    ],
)
def test_a_wrong_heading_names_the_nearest(suffix: str, heading: str, nearest: str, tmp_path: Path) -> None:
    row = json.dumps({"picture": "a.png", heading: "x"})
    path = tmp_path / f"list{suffix}"
    path.write_text(f"picture,{heading}\na.png,x\n" if suffix == ".csv" else row)
    with pytest.raises(OptionError) as caught:
        read_manifest(path)
    assert f"'{heading}'" in str(caught.value) and nearest in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,prompt\na.png\n", "line 2 has 1 cells for 2 headings"),
        ("picture,\na.png,x\n", "line 2 has 'x' in column 2, which has no heading"),
        ("picture,prompt\na.png,x,y\n", "line 2 has 'y' in column 3, which has no heading"),
        ("picture,Picture\na,b\n", "'picture' is there twice"),
        ('picture\n"a\n', "line 2: unexpected end of data"),
        ('picture,range near\na.png,"1,234"\n', "'1,234'"),
        ('picture,seed\na.png,"1,5"\n', "'seed' must be a whole number"),
        ("prompt\nx\n", "There is no 'picture'"),
    ],
)
def test_what_is_really_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(OptionError) as caught:
        read_manifest(tmp_path / "list.csv")
    assert message in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"picture\n\x81\xff.png\n")  # not UTF-8, and unused in Windows-1252
    with pytest.raises(OptionError, match="is not a text"):
        read_manifest(tmp_path / "list.csv")


def test_json_lines_of_other_tools(tmp_path: Path) -> None:
    rows = [{"Picture": "a.png", "seed": 3.0, "invert": 1}, {"picture": "b.png", "seed": "4.0", "gamma": "1.5"}]
    (tmp_path / "list.jsonl").write_bytes("\r\n".join(map(json.dumps, rows)).encode("utf-16"))
    assert values(tmp_path / "list.jsonl") == [
        {"picture": "a.png", "seed": 3, "invert": True},
        {"picture": "b.png", "seed": 4, "gamma": 1.5},
    ]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_by_its_own_name(name: str) -> None:
    assert field_of(name) == field_of(name.upper().replace("_", " ")) == field_of(f" {name} ") == name


@given(st.text(max_size=80))
def test_any_text_is_rows_or_an_error(text: str) -> None:
    try:
        for _, row in tables.rows(text, field_of):
            assert set(row) <= set(FIELDS)
    except tables.TableError:
        pass
