"""`depth2img adjust`, and what the command line says about depth maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depth2img import DepthMap, DepthOptions, read_depth_map
from depth2img.depth.adjustments import finish
from tests.engine.conftest import Run
from tests.library.test_phone import DISPARITY, gdepth

CASES = Path(__file__).parents[1] / "library" / "cases"


def test_a_16_bit_map(run: Run) -> None:
    done = run("adjust", CASES / "rs_mm.png", "-o", "near.png", "--holds", "distance", "--gamma", "1.5", "--blur", "1")
    assert done.code == 0
    assert done.out.strip() == f"{CASES / 'rs_mm.png'} -> near.png (128 x 128)"
    assert done.err == (
        f"{CASES / 'rs_mm.png'}: 12.9 % (2,118 values) of the map held no measurement and was filled from the "
        "surroundings.\n"
    )
    wanted = finish(read_depth_map(CASES / "rs_mm.png", "distance"), DepthOptions(gamma=1.5, blur=1.0))
    assert Path("near.png").read_bytes() == wanted[0].to_png()


def test_other_formats_and_colours(run: Run) -> None:
    done = run("adjust", CASES / "bl_Z.exr", "-o", "raw.tiff", "--holds", "distance", "--colour-map", "turbo", "--json")
    made = done.json()["maps"][0]
    assert made["files"] == ["raw.tiff", "raw-turbo.png"] and made["origin"] == "EXR, channel Z"
    assert made["notices"] == [] and (made["far"], made["near"]) == pytest.approx((1 / 9.9375, 0.5))
    np.testing.assert_array_equal(read_depth_map(Path("raw.tiff")).values, read_depth_map(CASES / "hw.npy").values)


def test_several_maps_share_a_range(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    DepthMap(np.array([[0.0, 1.0]])).save("a.npy")
    DepthMap(np.array([[0.0, 4.0]])).save("b.npy")
    assert run("adjust", "a.npy", "b.npy", "-o", "out", "--range", "shared").code == 0
    assert read_depth_map(Path("out/a-depth.png")).range == (0, round(65535 / 4))
    assert read_depth_map(Path("out/b-depth.png")).range == (0, 65535)


def test_each_kind_of_hint_is_said_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("one.exr", "two.exr"):
        shutil.copy(CASES / "bl_Z.exr", name)
    done = run("adjust", "one.exr", "two.exr", CASES / "hw.npy", "-o", "out")
    assert done.err.splitlines() == [
        "one.exr: The depth map seems to hold distances: the channel is called Z. If so, choose 'Map holds': Distance. "
        "So it is with 2 of 3 depth maps."
    ]


def test_generate_says_it_once_for_all_pictures(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a.png", "b.png"):
        Image.open(CASES / "scene.png").resize((64, 64)).save(name)
    done = run("generate", "a.png", "b.png", "-o", "out", "-p", "x", "--steps", "1", "--depth", CASES / "zinv.npy")
    assert done.code == 0, done.err
    assert done.err.count("Black seems to be near") == 1 and str(CASES / "zinv.npy") in done.err


def test_depth_inside_a_picture_is_offered(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Path(name).write_bytes(gdepth(255 - DISPARITY))
    Image.open(CASES / "scene.png").resize((64, 64)).save("c.png")
    done = run("generate", "a.jpg", "b.jpg", "c.png", "-o", "out", "-p", "x", "--steps", "1")
    assert done.err.splitlines() == [
        "a.jpg has a depth map inside: --depth a.jpg uses it instead of an estimate. So it is with 2 of 3 pictures."
    ]
    done = run("generate", "a.jpg", "-o", "out", "-p", "x", "--steps", "1", "--depth", "a.jpg")
    assert done.err.splitlines() == ["a.jpg: The depth map is the one inside the picture (GDepth)."]


def test_batch_says_it_once_with_a_count(run: Run, tmp_path: Path) -> None:
    for folder in ("in", "maps"):
        (tmp_path / folder).mkdir()
    for name, source in (("a", "zinv.npy"), ("b", "hw.npy"), ("c", "zinv.npy")):
        Image.open(CASES / "scene.png").resize((64, 64)).save(f"in/{name}.png")
        shutil.copy(CASES / source, f"maps/{name}.npy")
    done = run("batch", "in", "out", "--depth-folder", "maps", "-p", "x", "--steps", "1")
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if "Black" in line] == [
        "a: Black seems to be near in the depth map. If so, choose 'Map holds': Distance if the numbers are distances, "
        "otherwise 'Invert'. So it is with 2 of 3 depth maps."
    ]
    rows = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [list(row.get("notices", {})) for row in rows] == [["inverted"], [], ["inverted"]]


# --- results that would be one file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["adjust", "estimate", "generate"])
def test_two_sources_of_one_name(command: str, run: Run, tmp_path: Path) -> None:
    for folder in ("aa", "bb", "out"):
        (tmp_path / folder).mkdir()
    for folder in ("aa", "bb"):
        Image.open(CASES / "scene.png").convert("L").save(f"{folder}/x.png")
    done = run(command, "aa/x.png", "bb/x.png", "-o", "out", *(["-p", "x"] if command == "generate" else []))
    assert done.code == 2
    assert "The results of aa/x.png and bb/x.png would both be x-" in done.err
    assert not [*Path("out").iterdir()]


def test_a_result_is_no_other_source(run: Run) -> None:
    for name in ("x.png", "x-depth.png"):
        Image.open(CASES / "scene.png").convert("L").save(name)
    before = Path("x-depth.png").read_bytes()
    done = run("adjust", "x.png", "x-depth.png")
    assert done.code == 2 and "The result of x.png would overwrite x-depth.png" in done.err
    assert Path("x-depth.png").read_bytes() == before


def test_maps_and_views_count_as_results(run: Run) -> None:
    for name in ("x.png", "x-depth2img-depth.png"):
        Image.open(CASES / "scene.png").save(name)
    done = run("generate", "x.png", "x-depth2img-depth.png", "-p", "x", "--save-map")
    assert done.code == 2 and "would overwrite x-depth2img-depth.png" in done.err
