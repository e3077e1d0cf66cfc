"""The Batch tab with a folder of depth maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth2img import OptionError
from tests.refusing import refused
from tests.webui_fake.standin import Host, blobs, depth_of, stretched

NAMES = ("one", "three", "two")
"""In the host's order."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        blobs(seed).save(folder / f"{name}.jpg" if name == "two" else folder / f"{name}.png")
    return folder


def the_map(name: str) -> np.ndarray:
    """Nothing like the picture's own."""
    return depth_of(blobs(20 + NAMES.index(name))).astype(np.float32)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", the_map(name))
    return folder


def job(host: Host, maps: Path | str, **options: Any) -> Any:
    return host.img2img(args=({"source": "map", "map_directory": str(maps), **options},))


@contextmanager
def told(text: str) -> Iterator[None]:
    """The job is refused for its folder of maps, in these words."""
    with refused(OptionError, field="map_directory") as caught:
        yield
    assert text in str(caught.value)


def close(seen: Any, values: np.ndarray) -> bool:
    return np.abs(seen[0, 0].numpy() - stretched(values.reshape(8, 8, 12, 8).mean((1, 3)))).mean() < 0.06


def test_each_picture_has_the_map_of_its_name(host: Host, pictures: Path, maps: Path) -> None:
    runs = host.count_estimates()
    p = job(host, maps)
    result = host.batch(p, str(pictures))
    firsts = host.seen[:: len(host.seen) // 3]
    assert len(result.images) == 3 and runs == []
    assert all(close(seen, the_map(name)) for seen, name in zip(firsts, NAMES, strict=True))
    assert not close(firsts[0], the_map("two"))
    assert host.left_on(p) == [] and "run" not in vars(p.scripts) and p.comments == {}


def test_pictures_the_host_skips_do_not_shift_the_maps(host: Host, pictures: Path, maps: Path, tmp_path: Path) -> None:
    """One cannot be read, another has no inpaint mask."""
    (pictures / "pebble.png").write_bytes(b"no picture")
    np.save(maps / "pebble.npy", the_map("one"))
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("one", "two"):
        Image.new("L", (96, 64), 255).save(masks / f"{name}.png")
    result = host.batch(job(host, maps), str(pictures), str(masks))
    assert len(result.images) == 2
    assert close(host.seen[0], the_map("one")) and close(host.seen[-1], the_map("two"))


def test_uploads(host: Host, pictures: Path, maps: Path) -> None:
    uploads = [SimpleNamespace(name=str(pictures / name)) for name in ("two.jpg", "one.png")]
    (maps / "three.npy").unlink()
    host.batch(job(host, maps), uploads)
    assert close(host.seen[0], the_map("two")) and close(host.seen[-1], the_map("one"))


def test_a_picture_without_a_map_stops_the_batch_before_it_begins(host: Host, pictures: Path, maps: Path) -> None:
    (maps / "three.npy").rename(maps / "thre.npy")
    p = job(host, maps)
    with pytest.raises(OptionError, match=r"1 of 3 .*: three\. Depth maps without a picture: thre\.npy\.") as error:
        host.batch(p, str(pictures))
    assert "photo-depth.png" in str(error.value)
    assert host.seen == [] and host.left_on(p) == [] and "run" not in vars(p.scripts)


def test_pictures_in_folders_have_maps_in_folders(host: Host, pictures: Path, maps: Path) -> None:
    """The host goes through folders of the folder; two pictures of one name there are two."""
    (pictures / "more").mkdir()
    (maps / "more").mkdir()
    blobs(5).save(pictures / "more" / "one.png")
    with pytest.raises(OptionError, match=r"1 of 4 pictures have no depth map in the folder: more/one\."):
        host.batch(job(host, maps), str(pictures))
    np.save(maps / "more" / "one-depth.npy", the_map("two"))
    host.batch(job(host, maps), str(pictures))
    assert close(host.seen[0], the_map("one")) and close(host.seen[-1], the_map("two"))


def test_maps_that_the_host_takes_for_pictures(host: Host, pictures: Path) -> None:
    """The host cannot leave them out; a map is not its own map, and the error comes before anything runs."""
    for name in NAMES:
        Image.fromarray(the_map(name).astype(np.uint8)).save(pictures / f"{name}-depth.png")
    with pytest.raises(OptionError, match="3 of 6 pictures have no depth map in the folder: one-depth, three-depth"):
        host.batch(job(host, pictures), str(pictures))
    for name in NAMES:
        (pictures / f"{name}-depth.png").unlink()
    with pytest.raises(OptionError, match="3 of 3 pictures have no depth map in the folder"):
        host.batch(job(host, pictures), str(pictures))
    assert host.seen == [], "nor is a picture its own map"


def test_a_map_without_a_picture_is_reported(host: Host, pictures: Path, maps: Path) -> None:
    np.save(maps / "four.npy", the_map("one"))
    p = job(host, maps)
    assert len(host.batch(p, str(pictures)).images) == 3
    assert list(p.comments) == ["Depth maps without a picture: four.npy."]


def test_under_the_mask_alone(host: Host, pictures: Path, maps: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in NAMES:
        half = Image.new("L", (96, 64))
        half.paste(255, (0, 0, 48, 64))
        half.save(masks / f"{name}.png")
    runs = host.count_estimates()
    p = host.img2img(args=({"under_mask": "map", "map_directory": str(maps)},), inpaint_full_res=False)
    host.batch(p, str(pictures), str(masks))
    assert len(runs) == 3
    left = the_map("one").reshape(8, 8, 12, 8).mean((1, 3))[:, :5]
    seen = host.seen[0][0, 0].numpy()[:, :5]
    assert np.corrcoef(seen.ravel(), left.ravel())[0, 1] > 0.97


def test_the_range_of_the_first_map_is_shared(host: Host, pictures: Path, maps: Path) -> None:
    for factor, name in enumerate(NAMES, start=1):
        np.save(maps / f"{name}.npy", the_map("one") / factor)
    host.batch(job(host, maps, range="shared"), str(pictures))
    tops = [float(seen[0].max()) for seen in host.seen[:: len(host.seen) // 3]]
    assert tops[0] > tops[1] > tops[2]


@pytest.mark.parametrize("given", ["nowhere at all", "file"])
def test_no_such_folder(host: Host, pictures: Path, tmp_path: Path, given: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match="no such folder"):
        host.batch(job(host, tmp_path / given), str(pictures))


def test_a_folder_is_for_the_batch_tab(host: Host, maps: Path) -> None:
    with told("Batch tab"):
        host.run(host.img2img(blobs(1), args=({"source": "map", "map_directory": str(maps)},)))
    own = host.img2img(blobs(1), args=({"depth_map": the_map("two"), "map_directory": str(maps)},))
    host.run(own)
    assert close(host.seen[-1], the_map("two"))


def test_neither_the_api_nor_a_locked_page_may_name_a_folder(host: Host, pictures: Path, maps: Path) -> None:
    p = host.img2img(blobs(1), args=({"depth_map": the_map("two"), "map_directory": str(maps)},))
    p.is_api = True
    with told("for the Batch tab of the page"):
        host.run(p)
    host.shared.cmd_opts.hide_ui_dir_config = True
    with told("for the Batch tab of the page"):
        host.batch(job(host, maps), str(pictures))


def test_a_host_that_does_not_say_whose_turn_it_is(host: Host, pictures: Path, maps: Path) -> None:
    host.ours("jobs.batch_tab").TURN = __import__("re").compile("never")
    with told("does not tell which picture"):
        host.batch(job(host, maps), str(pictures))


def test_a_run_of_another_extension_comes_back(host: Host, pictures: Path, maps: Path) -> None:
    p = job(host, maps)
    inner, calls = p.scripts.run, []
    p.scripts.run = theirs = lambda *given: calls.append(given) or inner(*given)
    host.batch(p, str(pictures))
    assert len(calls) == 3 and vars(p.scripts)["run"] is theirs


def test_loopback_keeps_the_first_depth_of_each_picture(host: Host, pictures: Path) -> None:
    p = host.img2img(args=({"keep_first": True},))

    def loops(p: Any) -> Any:
        host.run(p)
        return host.run(p)

    p.scripts.selectable_scripts = [SimpleNamespace(title=lambda: "Loopback", run=loops)]
    p.script_args = (1, *p.script_args[1:])
    runs = host.count_estimates()
    host.batch(p, str(pictures))
    assert len(runs) == 3


def test_everything_the_host_is_told_is_handed_on(host: Host, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, told = host.ours("jobs.batch_tab"), []
    tab.undo()
    monkeypatch.setattr(tab.img2img, "process_batch", lambda *given, **named: told.append((given, named)) or "done")
    tab.apply()
    p = host.img2img()
    host.scripts.scripts_img2img = p.scripts
    assert tab.img2img.process_batch(p, str(pictures), "out", "masks", use_png_info=True) == "done"
    tab.undo()
    assert told == [((p, str(pictures), "out", "masks"), {"use_png_info": True})]


def test_undo_gives_the_host_its_function_back(host: Host) -> None:
    tab = host.ours("jobs.batch_tab")
    tab.apply()
    wrapped = tab.img2img.process_batch
    tab.undo()
    tab.undo()
    assert tab.img2img.process_batch is not wrapped
    assert tab.img2img.process_batch.__module__ == "modules.img2img"


@pytest.mark.parametrize(("ending", "named"), [("_depth", "{}_depth"), ("d_*", "d_{}")])
def test_maps_with_another_ending(host: Host, pictures: Path, tmp_path: Path, ending: str, named: str) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{named.format(name)}.npy", the_map(name))
    host.batch(job(host, folder, map_ending=ending), str(pictures))
    firsts = host.seen[:: len(host.seen) // 3]
    assert all(close(seen, the_map(name)) for seen, name in zip(firsts, NAMES, strict=True))
    with refused(OptionError, field="depth_map"):
        host.batch(job(host, folder), str(pictures))
