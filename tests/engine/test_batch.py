"""`depth2img batch` on this machine: what it makes, what it makes again, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depth2img import DepthMap, DepthOptions, OptionError, read_depth_map
from depth2img.batch import Sources, find_items, item_seed, items, make_plan, manifest
from depth2img.batch import plan as planning
from depth2img.batch.runner import duration
from depth2img.batch.worker import Worker
from depth2img.checkpoints import to_single_file
from depth2img.diffusion import Engine, Settings
from tests.engine import small
from tests.engine.conftest import Run

QUICK = ("-p", "a red box", "--steps", 2, "-s", 1, "--threads", 1)
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For pictures whose shorter side has 64 pixels."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    made = small.model(midas=False)
    unet = {**made.config.unet, "sample_size": 8}
    to_single_file(dataclasses.replace(made, config=dataclasses.replace(made.config, unet=unet)), path)
    return path


@pytest.fixture
def run(run: Run, model: Path) -> Run:
    return lambda *arguments: run("batch", *arguments, "-m", model)


def write_picture(path: Path, seed: int, size: tuple[int, int] = (96, 64)) -> Path:
    """A smooth coloured picture, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_mask(path: Path, size: tuple[int, int] = (96, 64)) -> Path:
    values = np.zeros((size[1], size[0]), np.uint8)
    values[16:48, 20:70] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of two sizes."""
    for seed, name in enumerate(NAMES):
        write_picture(tmp_path / "in" / f"{name}.png", seed, (96, 64) if seed % 2 == 0 else (64, 96))
    return tmp_path / "in"


def results(out: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {row["name"]: row for row in rows}


def contents(out: Path) -> dict[str, bytes]:
    """Every visible file but the list, by its path."""
    files = (path for path in out.rglob("*") if path.is_file() and planning.RECORDS not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files if path.name != "results.jsonl"}


# --- making ----------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_folder(run: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    done = run(folder, "out", *QUICK, "--batch-size", 1, "--json")
    assert done.code == 0, done.err
    assert done.json()["made"] == 5 and done.json()["failed"] == []
    assert set(contents(tmp_path / "out")) == {f"{name}.png" for name in NAMES}
    rows = results(tmp_path / "out")
    assert list(rows) == list(NAMES)
    row = rows["b"]
    assert row["status"] == "done" and row["files"] == ["b.png"] and row["seconds"] > 0
    assert row["settings"]["seed"] == zlib.crc32(b"b")
    engine = Engine.open(model)
    settings = Settings(prompt="a red box", steps=2, denoising_strength=1.0, seed=item_seed(0, "b"))
    [alone] = engine.generate([folder / "b.png"], settings)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), alone.picture), "what `generate` makes"


def test_batches_are_those_of_any_company(run: Run, folder: Path, tmp_path: Path) -> None:
    """Byte for byte the same, whatever else is in the folder and whatever was finished before."""
    assert run(folder, "all", *QUICK).code == 0
    (tmp_path / "one").mkdir()
    shutil.copy(folder / "c.png", tmp_path / "one")
    assert run("one", "alone", *QUICK).code == 0
    assert (tmp_path / "alone" / "c.png").read_bytes() == (tmp_path / "all" / "c.png").read_bytes()


def test_a_finished_item_is_not_made_again(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "out", *QUICK).code == 0
    out = tmp_path / "out"
    before, listed = contents(out), (out / "results.jsonl").read_bytes()
    again = run(folder, "out", *QUICK, "--batch-size", 2, "--json")
    assert again.code == 0
    assert (again.json()["made"], again.json()["kept"]) == (0, 5)
    assert (out / "results.jsonl").read_bytes() == listed

    def made() -> set[str]:
        stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
        assert run(folder, "out", *QUICK).code == 0
        return {path.stem for path in out.glob("*.png") if stamps.get(path) != path.stat().st_mtime_ns}

    (out / "a.png").unlink()
    (out / "b.png").write_bytes(b"")
    (out / planning.RECORDS / "c.json").write_text('{"key": "of another')
    write_picture(folder / "d.png", 99)
    write_picture(folder / "0.png", 98)
    assert made() == {"a", "b", "c", "d", "0"}
    after = contents(out)
    assert {name for name in before if before[name] != after[name]} == {"d.png"}, "the same again, but for new content"
    assert made() == set()


def test_other_options_make_all_again(run: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    assert run(folder, "out", *QUICK).code == 0
    for changed in (("--gamma", 2), ("--seed", 1), ("-n", "blue"), ("--sampler", "euler")):
        assert run(folder, "out", *QUICK, *changed, "--dry-run", "--json").json()["pending"] == 5
    other = tmp_path / "other.safetensors"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    other.write_bytes(content)
    assert planning.fingerprint(str(other)) == planning.fingerprint(str(other))
    assert planning.fingerprint(str(other)) != planning.fingerprint(str(model))


def test_dry_run_writes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run(folder, "out", *QUICK, "--dry-run")
    assert done.code == 0
    assert done.out.split() == ["a", "c", "e", "b", "d"], "by size"
    assert "5 of 5 items to make in 2 batches" in done.err
    assert not (tmp_path / "out").exists()


def test_maps_scores_and_folders_of_folders(run: Run, folder: Path, tmp_path: Path) -> None:
    write_picture(folder / "deep" / "er" / "f.jpg", 7)
    write_picture(folder / ".hidden.png", 8)
    (folder / "notes.txt").write_text("no picture")
    done = run(folder, "out", *QUICK, "--recursive", "--save-map", "--append-map", "--score", "--format", "webp")
    assert done.code == 0, done.err
    rows = results(tmp_path / "out")
    assert set(rows) == {*NAMES, "deep/er/f"}
    row = rows["deep/er/f"]
    assert row["files"] == ["deep/er/f.webp", "deep/er/f-depth-view.png", "deep/er/f-depth.png"]
    assert all((tmp_path / "out" / name).exists() for name in row["files"])
    assert read_depth_map(tmp_path / "out" / "deep/er/f-depth.png").bits == 16
    assert all(-1 <= row["score"] <= 1 for row in rows.values())


def test_shared_range_is_the_first_item_s(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "out", *QUICK, "--range", "shared").code == 0
    assert run(folder, "own", *QUICK).code == 0
    shared, own = contents(tmp_path / "out"), contents(tmp_path / "own")
    assert any(shared[name] != own[name] for name in shared)
    kept = shared.pop("e.png")
    (tmp_path / "out" / "e.png").unlink()
    assert run(folder, "out", *QUICK, "--range", "shared").code == 0
    assert (tmp_path / "out" / "e.png").read_bytes() == kept, "also where the first item is finished"
    write_picture(folder / "a.png", 50)
    assert run(folder, "out", *QUICK, "--range", "shared", "--dry-run", "--json").json()["pending"] == 5


# --- seeds -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.text(max_size=20))
def test_seeds_are_the_documented_formula(seed: int, name: str) -> None:
    assert item_seed(seed, name) == (seed + zlib.crc32(name.encode())) % 2**32


def test_one_seed_for_all(folder: Path) -> None:
    found = find_items(Sources(folder, one_seed=True), Settings(seed=7), DepthOptions()).items
    assert {item.settings.seed for item in found} == {7}


# --- manifests -------------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"picture": "in/a.png", "prompt": "a cone, red", "seed": 3},
    {"picture": "in/a.png", "name": "second/of a", "negative_prompt": "fog", "gamma": 2.0, "invert": True},
    {"picture": "in/c.png", "mask": "mask.png", "masked_content": "fill", "under_mask": "fill", "mask_blur": 2},
    {"picture": "in/e.png", "depth_map": "map.npy", "region": "mask.png", "strength": 0.5},
    {"picture": "in/b.png", "reference": "in/d.png", "width": 64, "height": 96, "denoising_strength": 0.6},
]


@pytest.fixture
def rows(folder: Path, tmp_path: Path) -> list[dict[str, Any]]:
    write_mask(tmp_path / "mask.png")
    DepthMap(values=np.random.default_rng(1).random((32, 48), np.float32)).save(tmp_path / "map.npy")
    return ROWS


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_manifests_of_both_kinds(run: Run, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    done = run(as_csv(tmp_path / "jobs.csv", rows), "one", *QUICK)
    assert done.code == 0, done.err
    assert run(as_json_lines(tmp_path / "jobs.jsonl", rows), "two", *QUICK).code == 0
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert set(one) == {"in/a.png", "second/of a.png", "in/c.png", "in/e.png", "in/b.png"}
    listed = results(tmp_path / "one")
    assert listed["in/a"]["settings"]["seed"] == 3
    assert listed["in/a"]["settings"]["prompt"] == "a cone, red"
    assert listed["second/of a"]["settings"]["prompt"] == "a red box", "what a row leaves out is that of the flags"
    assert listed["second/of a"]["options"] == {"gamma": 2.0, "invert": True}
    assert listed["in/e"]["options"]["source"] == "map"
    picture = np.asarray(Image.open(tmp_path / "in" / "c.png"))
    kept = np.asarray(Image.open(tmp_path / "mask.png").resize((192, 128))) == 0
    assert kept.any() and picture.shape == (64, 96, 3)


def test_a_row_s_own_files_go_before_those_of_all(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    base = DepthOptions(source="reference", reference=tmp_path / "in" / "a.png")
    found = find_items(Sources(as_csv(tmp_path / "jobs.csv", rows)), Settings(), base).items
    assert [item.options.source for item in found] == ["reference", "reference", "reference", "map", "reference"]
    assert found[3].options.reference is None
    assert found[4].options.reference == tmp_path / "in" / "d.png"


def test_files_of_all_items_are_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    options = DepthOptions(source="map", depth_map=Path("a.png"), region=Path("../in/b.png"))
    item = find_items(Sources(Path(".")), Settings(), options).items[0]
    assert item.files() == {"picture": folder / "a.png", "depth_map": folder / "a.png", "region": folder / "b.png"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"promt": "x"}, "There is no field 'promt'"),
        ({"map_directory": "maps"}, "There is no field 'map_directory'"),
        ({"picture": ""}, "There is no 'picture'"),
        ({"picture": 3}, "'picture' must be a path"),
        ({"picture": "a\0b"}, "'picture' must be a path"),
        ({"gamma": 99}, "'gamma' must be a number from 0.1 to 10"),
        ({"gamma": "much"}, "'gamma' must be a number"),
        ({"invert": "perhaps"}, "'invert' must be true or false"),
        ({"seed": 1.5}, "'seed' must be a whole number"),
        ({"steps": "0"}, "'steps' must be a whole number from 1"),
        ({"prompt": ["a"]}, "'prompt' must be text"),
        ({"mask_invert": 2}, "'mask_invert' must be true or false"),
        ({"sampler": "magic"}, "'sampler' must be one of"),
        ({"near": 0.1, "far": 0.5}, "'near' must be greater than 'far'"),
        ({"depth_map": "map.npy", "source": "picture"}, "would have no effect"),
        ({"picture": "../in/a.png"}, "lies outside of the manifest's folder"),
        ({"picture": "/etc/hostname"}, "lies outside of the manifest's folder"),
        ({"mask": "in/../../x.png"}, "lies outside of the manifest's folder"),
        ({"picture": "link.png"}, "lies outside of the manifest's folder"),
        ({"name": "../up"}, "cannot be the name"),
        ({"name": "/top"}, "cannot be the name"),
        ({"name": "a//b"}, "cannot be the name"),
        ({"name": ".depth2img/a"}, "cannot be the name"),
        ({"name": "a\\b"}, "cannot be the name"),
        ({"name": "x" * 300}, "cannot be the name"),
        ({"name": "taken"}, "its result would be taken.png, as that of"),
        ({"name": "taken-depth", "save_map": True}, None),
    ],
)
def test_a_bad_row_stops_everything_before_it_begins(
    run: Run, rows: list[dict[str, Any]], tmp_path: Path, row: dict[str, Any], message: str | None
) -> None:
    home = tmp_path / "home"
    shutil.copytree(tmp_path / "in", home / "in")
    (home / "link.png").symlink_to(tmp_path / "in" / "a.png")
    good = {"picture": "in/b.png", "name": "taken"}
    done = run(as_json_lines(home / "jobs.jsonl", [good, {"picture": "in/a.png", **row}]), "out", *QUICK, "--dry-run")
    if message is None:
        assert done.code == 0
        return
    assert done.code == 2
    assert message in done.err and "line 2" in done.err
    assert "Nothing was run." in done.err
    assert not (tmp_path / "out").exists()


def test_maps_beside_pictures_count_as_results(run: Run, folder: Path, tmp_path: Path) -> None:
    write_picture(folder / "a-depth.png", 9)
    done = run(folder, "out", *QUICK, "--save-map")
    assert done.code == 2
    assert "would be a-depth.png" in done.err


def test_folders_that_are_named_may_be_read(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = as_json_lines(home / "jobs.jsonl", [{"picture": str(tmp_path / "in" / "a.png")}, {"picture": "../in/b.png"}])
    with pytest.raises(OptionError, match="--allow"):
        find_items(Sources(path), Settings(), DepthOptions())
    found = find_items(Sources(path, allowed=[tmp_path / "in"]), Settings(), DepthOptions()).items
    assert [item.name for item in found] == ["a", "b"]


@given(st.binary(max_size=200), st.sampled_from([".csv", ".jsonl"]))
def test_any_bytes_are_rows_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    try:
        rows = manifest.read_manifest(path)
    except OptionError:
        return
    assert rows and all(row.values["picture"] for row in rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(manifest.FIELDS), JSON, max_size=4), st.sampled_from([".csv", ".jsonl"]))
def test_any_values_are_items_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any], suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"values{suffix}"
    row = {"picture": "a.png", **row}
    if suffix == ".csv":
        row = {name: str(value).replace("\0", "") for name, value in row.items()}
        as_csv(path, [row])
    else:
        as_json_lines(path, [row])
    try:
        [item] = find_items(Sources(path), Settings(), DepthOptions()).items
    except OptionError:
        return
    assert isinstance(item.settings.prompt, str)
    assert item.picture.is_relative_to(path.parent)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "con ", "~"]), max_size=4).map("/".join))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        kept = items._name(name)
    except OptionError:
        return
    out = Path("/results")
    path = planning.target(out, kept, ".png")
    assert (
        Path(os.path.normpath(path)) == path and path.is_relative_to(out) and path.parent.parts[:2] == ("/", "results")
    )
    assert planning.RECORDS not in path.parts


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_maps_and_masks_by_name(run: Run, folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b-depth", "c", "d", "e", "lonely"):
        DepthMap(values=np.random.default_rng(len(name)).random((16, 24), np.float32)).save(tmp_path / "maps.npy")
        (tmp_path / "maps").mkdir(exist_ok=True)
        shutil.move(tmp_path / "maps.npy", tmp_path / "maps" / f"{name}.npy")
    write_mask(tmp_path / "masks" / "a-mask.png")
    flags = ("--depth-folder", "maps", "--mask-folder", "masks")
    done = run(folder, "out", *QUICK, *flags)
    assert done.code == 2
    assert "4 of 5 pictures have no mask in the folder: b, c, d, e. Name each mask" in done.err
    assert "--unmatched without or skip" in done.err
    done = run(folder, "out", *QUICK, *flags, "--unmatched", "without")
    assert done.code == 0, done.err
    assert "4 of 5 pictures have no mask in the folder: b, c, d, e. They are made without one." in done.err
    assert "Depth maps without a picture: lonely.npy." in done.err
    rows = results(tmp_path / "out")
    assert rows["b"]["options"] == {"source": "map", "depth_map": str(tmp_path / "maps" / "b-depth.npy")}
    assert rows["a"]["mask"] == str(tmp_path / "masks" / "a-mask.png") and rows["b"]["mask"] is None
    assert run(folder, "few", *QUICK, *flags, "--unmatched", "skip", "--dry-run").out.split() == ["a"]
    Image.new("L", (8, 8)).save(tmp_path / "maps" / "a.png")
    done = run(folder, "out", *QUICK, *flags)
    assert done.code == 2 and "Several depth maps belong to one picture. Got a (a.npy, a.png)." in done.err


def test_maps_inside_the_folder_are_no_pictures(run: Run, folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        write_mask(folder / "depth" / f"{name}.png")
    done = run(folder, "out", *QUICK, "--recursive", "--depth-folder", folder / "depth", "--dry-run", "--json")
    assert done.json()["pending"] == 5


def test_maps_and_masks_beside_the_pictures_are_no_pictures(folder: Path) -> None:
    for name in NAMES:
        for ending in ("-depth.PNG", "-mask.png"):
            write_mask(folder / f"{name}{ending}")
    found = find_items(Sources(folder, depth_folder=folder, mask_folder=folder), Settings(), DepthOptions())
    assert [item.name for item in found.items] == [*NAMES]
    assert found.items[1].options.depth_map == folder / "b-depth.PNG" and found.items[1].mask == folder / "b-mask.png"
    assert [note.partition(":")[0] for note in found.notes] == [
        "Depth maps without a picture",
        "Masks without a picture",
    ]
    (folder / "c-depth.PNG").unlink()
    with pytest.raises(OptionError, match="1 of 5 pictures have no depth map in the folder: c"):
        find_items(Sources(folder, depth_folder=folder, mask_folder=folder), Settings(), DepthOptions())


def test_maps_of_folders_of_folders(folder: Path, tmp_path: Path) -> None:
    """A row of a manifest may lie in a folder, too; the map lies in one of the same name."""
    sources = Sources(as_json_lines(tmp_path / "jobs.jsonl", [{"picture": "in/a.png"}]), depth_folder=tmp_path / "maps")
    write_mask(tmp_path / "maps" / "a.png")
    with pytest.raises(OptionError, match="1 of 1 pictures have no depth map in the folder: in/a"):
        find_items(sources, Settings(), DepthOptions())
    write_mask(tmp_path / "maps" / "in" / "a-depth.tif")
    [item] = find_items(sources, Settings(), DepthOptions()).items
    assert item.options.depth_map == tmp_path / "maps" / "in" / "a-depth.tif"


@pytest.mark.parametrize(
    ("options", "source"),
    [
        (DepthOptions(source="map"), "map"),
        (DepthOptions(under_mask="map"), "picture"),
        (DepthOptions(under_mask="map", source="reference", reference=Path("b.png")), "reference"),
    ],
)
def test_a_folder_of_maps_serves_every_use_of_a_map(
    folder: Path, tmp_path: Path, options: DepthOptions, source: str
) -> None:
    maps = shutil.copytree(folder, tmp_path / "maps")
    found = find_items(Sources(folder, depth_folder=maps), Settings(), options).items
    assert [item.options.depth_map for item in found] == [maps / f"{name}.png" for name in NAMES]
    assert {item.options.source for item in found} == {source}


def test_unmatched_is_one_of_three(folder: Path) -> None:
    with pytest.raises(OptionError, match="must be one of: stop, without, skip"):
        Sources(folder, unmatched="skp")


def test_a_folder_of_maps_without_depth_is_refused(run: Run, folder: Path) -> None:
    done = run(folder, "out", *QUICK, "--depth-folder", folder, "--no-enabled")
    assert done.code == 2 and "would have no effect" in done.err


def test_links_in_a_folder_are_pictures_by_their_own_names(folder: Path, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    (shots / "first.png").symlink_to(folder / "a.png")
    write_mask(tmp_path / "masks" / "first.png")
    [item] = find_items(Sources(shots, mask_folder=tmp_path / "masks"), Settings(), DepthOptions()).items
    assert item.name == "first"
    assert item.mask == tmp_path / "masks" / "first.png"


def test_results_stay_in_their_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    assert "would overwrite" in run(folder, folder, *QUICK).err
    write_picture(folder / "sub" / "f.png", 3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    done = run(folder, "out", *QUICK, "--recursive")
    assert done.code == 2
    assert "would lie outside" in done.err
    assert not [*(tmp_path / "elsewhere").iterdir()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "neither a folder nor a manifest"),
        ("empty", "There is no picture"),
        ("jobs.csv", "The header of jobs.csv"),
        ("none.jsonl", "has no rows"),
    ],
)
def test_what_is_no_input(run: Run, tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "jobs.csv").write_text("file,prompt\na.png,x\n")
    (tmp_path / "none.jsonl").write_text("\n\n")
    done = run(given, "out", *QUICK)
    assert done.code == 2
    assert message in done.err


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Screenshot 12:30:05", "Screenshot 12_30_05"),
        ('in/what? "this" <is>|*', "in/what_ _this_ _is___"),
        ("a\\b", "a_b"),
        ("ends.", "ends_"),
        ("ends ", "ends_"),
        (".hidden/x", "_hidden/x"),
        ("con", "_con"),
        ("Aux.small", "_Aux.small"),
        ("console", "console"),
        ("line\nbreak", "line_break"),
        ("é" * 150, "é" * 100),
        ("plain/name-1 (2)", "plain/name-1 (2)"),
    ],
)
def test_names_that_not_every_system_can_write(name: str, wanted: str) -> None:
    assert items.cleaned(name) == wanted == items.cleaned(wanted)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_one_such_name_stops_no_other(folder: Path) -> None:
    shutil.copy(folder / "a.png", folder / "Screenshot 12:30:05.png")
    found = find_items(Sources(folder), Settings(), DepthOptions())
    assert [item.name for item in found.items] == ["Screenshot 12_30_05", *NAMES]
    assert found.notes == [
        "Names that some systems cannot write are changed in the results: Screenshot 12:30:05 -> Screenshot 12_30_05."
    ]
    shutil.copy(folder / "a.png", folder / "Screenshot 12_30_05.png")
    clash = find_items(Sources(folder), Settings(), DepthOptions()).items
    with pytest.raises(OptionError, match="as that of Screenshot"):
        make_plan(clash, folder / "out", suffix=".png", batch_size=4, model="tiny", dtype="auto")


def test_endings_that_other_tools_write(folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        write_mask(tmp_path / "maps" / f"{name}_depth.png")
        write_mask(tmp_path / "masks" / f"mask_{name}.png")
    with pytest.raises(OptionError, match="say with --depth-ending how their names end"):
        find_items(Sources(folder, depth_folder=tmp_path / "maps"), Settings(), DepthOptions())
    sources = Sources(
        folder,
        depth_folder=tmp_path / "maps",
        mask_folder=tmp_path / "masks",
        depth_ending="_depth",
        mask_ending="mask_*",
    )
    found = find_items(sources, Settings(), DepthOptions())
    assert [item.options.depth_map for item in found.items] == [tmp_path / "maps" / f"{one}_depth.png" for one in NAMES]
    assert [item.mask for item in found.items] == [tmp_path / "masks" / f"mask_{name}.png" for name in NAMES]
    assert found.notes == []


# --- faults ----------------------------------------------------------------------------------------------------------


def test_bad_items_stop_no_other(run: Run, folder: Path, tmp_path: Path) -> None:
    content = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    write_picture(folder / "strip.png", 1, (4000, 8))
    masks = tmp_path / "masks"
    for name in (*NAMES, "cut", "text", "strip"):
        write_mask(masks / f"{name}.png", (64, 96) if name in "bd" else (96, 64))
    write_mask(masks / "c.png", (50, 50))
    Image.new("L", (96, 64)).save(masks / "e.png")
    done = run(folder, "out", *QUICK, "--mask-folder", masks, "--unmatched", "without", "--mask-blur", 0)
    assert done.code == 1, done.err
    rows = results(tmp_path / "out")
    assert {name for name, row in rows.items() if row["status"] == "done"} == {"a", "b", "d"}
    said = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    assert "damaged" in said["cut"]
    assert "not a picture that can be read" in said["text"]
    assert "another size than the picture" in said["c"]
    assert "masks nothing" in said["e"]
    assert "gone" in said and "strip" in said
    assert done.out.count("\n  ") == len(said)
    write_mask(masks / "c.png")
    assert run(folder, "out", *QUICK, "--mask-folder", masks, "--unmatched", "without", "--mask-blur", 0).code == 1
    assert results(tmp_path / "out")["c"]["status"] == "done", "a failed item is tried again"


@pytest.mark.parametrize("problem", [MemoryError(), OptionError("x", "Odd.")])
def test_a_group_that_fails_is_made_one_by_one(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    real = Engine.run

    def fail(self: Engine, jobs: Any, **how: Any) -> Any:
        if any(job.settings.seed == item_seed(0, "c") for job in jobs):
            raise problem
        return real(self, jobs, **how)

    monkeypatch.setattr(Engine, "run", fail)
    assert run(folder, "out", *QUICK).code == 1
    rows = results(tmp_path / "out")
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {"c"}
    monkeypatch.setattr(Engine, "run", real)
    assert run(folder, "whole", *QUICK).code == 0
    whole = contents(tmp_path / "whole")
    assert all(whole[name] == content for name, content in contents(tmp_path / "out").items())


def test_interrupted_and_gone_on(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is started in the background of a shell without job control ignores SIGINT, and so would this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    real = Worker.run
    groups: list[int] = []

    def stop(self: Worker, works: Any) -> Any:
        groups.append(len(works))
        if len(groups) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return real(self, works)

    monkeypatch.setattr(Worker, "run", stop)
    try:
        done = run(folder, "out", *QUICK, "--batch-size", 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert "Interrupted" in done.err
    states = [row["status"] for row in results(tmp_path / "out").values()]
    assert states.count("done") == 2 and states.count("pending") == 3
    monkeypatch.setattr(Worker, "run", real)
    again = run(folder, "out", *QUICK, "--batch-size", 2, "--json")
    assert (again.json()["made"], again.json()["kept"]) == (3, 2)
    assert run(folder, "whole", *QUICK, "--batch-size", 2).code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_terminated_as_interrupted(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "run", lambda self, works: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(10))
    before = signal.getsignal(signal.SIGTERM)
    assert run(folder, "out", *QUICK).code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert {row["status"] for row in results(tmp_path / "out").values()} == {"pending"}


def test_a_full_disk_fails_items_and_leaves_nothing(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from depth2img.io import atomic

    real = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.parent.name.startswith(atomic._prefix(Path("a.png"))):
            raise OSError(28, "No space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(folder, "out", *QUICK).code == 1
    assert "No space left" in results(tmp_path / "out")["a"]["error"]
    assert not (tmp_path / "out" / "a.png").exists()
    assert not [*(tmp_path / "out").glob(f".*{atomic.PART}")]


KILLED = """
import os, random, sys, threading, time
from depth2img.cli import main
def kill():
    time.sleep(float(os.environ["AFTER"]))
    os.kill(os.getpid(), 9)
if "AFTER" in os.environ:
    from depth2img.batch.worker import Worker
    real = Worker.run
    def run(self, works):
        if not hasattr(Worker, "begun"):
            Worker.begun = True
            threading.Thread(target=kill, daemon=True).start()
        return real(self, works)
    Worker.run = run
main()
"""


@pytest.mark.slow
def test_killed_anywhere_and_gone_on(run: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    """SIGKILL while items are made and written, three times; every file that is there is whole."""
    for seed in range(5, 12):
        write_picture(folder / f"{seed}.png", seed)
    assert run(folder, "whole", *QUICK, "--batch-size", 1).code == 0
    whole = contents(tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, "batch", folder, tmp_path / "out", *QUICK, "--batch-size", 1, "-m", model]
    survived = 0
    for after in ("0.3", "0.5", "0.7"):
        done = subprocess.run(
            [*map(str, command)], env={**os.environ, "AFTER": after}, capture_output=True, check=False
        )
        survived += done.returncode == -signal.SIGKILL
        found = contents(tmp_path / "out") if (tmp_path / "out").exists() else {}
        assert all(whole[name] == content for name, content in found.items() if ".depth2img-" not in name)
    assert survived >= 2
    assert run(folder, "out", *QUICK, "--batch-size", 1).code == 0
    assert contents(tmp_path / "out") == whole, "nothing is missing, nothing is left over"


# --- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from depth2img.cli import batch as command

    now = [100.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    with command._watched(10, quiet=False) as tell:
        for done in range(1, 11):
            now[0] += 20
            tell(done, 10, int(done > 4))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "2 of 10, 0.05 a second, 2 min 40 s left"
    assert lines[-1] == "10 of 10, 0.05 a second, 1 failed"
    with command._watched(10, quiet=True) as tell:
        now[0] += 100
        tell(1, 10, 0)
    assert capsys.readouterr().err == ""
