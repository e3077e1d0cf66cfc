"""Decisions of a job: which picture, which map, which part of it, over which range, in which step."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import NoDepthModelError
from tests.refusing import refused
from tests.webui_fake.standin import Host, blobs, depth_of, map_file, ramp
from tests.webui_fake.test_tiles import depth_map, driven, tiles_of

LATENT = {"mode": "bilinear", "antialias": False}


def first_row(host: Host, p: Any) -> np.ndarray:
    """The conditioning of the first sample at the last step of a job, (h, w)."""
    host.run(p)
    return host.seen[-1][0, 0].numpy()


def hires(host: Host, upscaler: str, depth: dict[str, Any], **fields: Any) -> Any:
    p = host.txt2img(args=(depth,), enable_hr=True, hr_upscaler=upscaler, **fields)
    p.hr_upscale_to_x, p.hr_upscale_to_y = 192, 128
    p.latent_scale_mode = LATENT if upscaler == "Latent" else None
    return p


# --- the hires pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_a_hires_pass_keeps_the_map_or_estimates_anew(host: Host, tmp_path: Path, upscaler: str) -> None:
    """From its own picture, once, and only in the second pass."""
    given = {"depth_map": map_file(depth_of(ramp()), tmp_path / "map.npy").read_bytes()}
    runs = host.count_estimates()
    kept = first_row(host, hires(host, upscaler, given))
    assert kept.shape == (16, 24) and (np.diff(kept[5]) > 0).all() and runs == []
    host.seen.clear()
    anew = first_row(host, hires(host, upscaler, {**given, "hires": "estimate"}))
    assert len(runs) == 1 and not (np.diff(anew[5]) > 0).all()
    first, *_, last = host.seen
    assert first.shape == (2, 1, 8, 12) and (first[0, 0, 5].diff() > 0).all()
    assert last.max() == 1 and last.min() == -1


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_a_new_estimate_takes_no_part_of_an_earlier_map(host: Host, tmp_path: Path, upscaler: str) -> None:
    """The picture of the first pass is estimated as it is, whatever the map said before."""
    one = map_file(depth_of(ramp()), tmp_path / "one.npy").read_bytes()
    other = map_file(depth_of(blobs(2)), tmp_path / "other.npy").read_bytes()
    torch.manual_seed(5)
    seen = [first_row(host, hires(host, upscaler, {"depth_map": one, "hires": "estimate"}))]
    torch.manual_seed(5)
    seen.append(first_row(host, hires(host, upscaler, {"depth_map": other, "hires": "estimate"})))
    assert np.array_equal(*seen)


def test_latents_are_decoded_by_the_jobs_checkpoint_and_limited(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoencoder gives values a little beyond -1..1, which no picture has."""
    decoded: list[tuple[Any, torch.Tensor]] = []
    inner = host.processing.decode_first_stage

    def decode(model: Any, x: torch.Tensor) -> torch.Tensor:
        decoded.append((model, inner(model, x)))
        return decoded[-1][1]

    seen: list[np.ndarray] = []
    maps = host.ours("jobs.maps")
    estimate = maps.estimate
    monkeypatch.setattr(host.ours("jobs.hook").processing, "decode_first_stage", decode)
    monkeypatch.setattr(maps, "estimate", lambda picture, *more: seen.append(picture) or estimate(picture, *more))
    host.run(hires(host, "Latent", {"reference": ramp(), "hires": "estimate"}))
    [picture] = seen[1:]
    sizes = [tuple(pixels.shape[-2:]) for _, pixels in decoded]
    assert sizes == [(64, 96), (128, 192), (128, 192)], "once for the depth, besides the host's own of each pass"
    assert any(model is host.model for model, _ in decoded) and all(model is not None for model, _ in decoded)
    raw = next(pixels for _, pixels in decoded if pixels.shape[-2:] == (128, 192))[0].permute(1, 2, 0).numpy()
    assert raw.min() < -1 and raw.max() > 1
    np.testing.assert_allclose(picture, (np.clip(raw, -1, 1) + 1) / 2, atol=1e-7)


@pytest.mark.parametrize("mode", [None, LATENT])
@pytest.mark.parametrize("hires_pass", [True, False])
def test_pictures_are_zero_to_one_after_a_pixel_upscaler_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch, mode: Any, hires_pass: bool
) -> None:
    """After "Latent" the host may call the same method, with pictures of -1..1 (for an inpainting mask's weight)."""
    maps = host.ours("jobs.maps")
    asked: list[bool] = []
    inner = maps.pictures_of

    def pictures_of(source: torch.Tensor, *, zero_to_one: bool = False) -> Any:
        asked.append(zero_to_one)
        return inner(source, zero_to_one=zero_to_one)

    monkeypatch.setattr(maps, "pictures_of", pictures_of)
    p = host.txt2img(args=({"reference": ramp()},), enable_hr=True)
    host.ours("jobs.hook").begin(p, p.script_args[1:])
    p.is_hr_pass, p.latent_scale_mode = hires_pass, mode
    p.img2img_image_conditioning(torch.zeros(1, 3, 64, 96), torch.zeros(1, 4, 8, 12))
    assert asked == [hires_pass and mode is None]


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_nothing_is_estimated_where_depth_is_off(host: Host, upscaler: str) -> None:
    runs = host.count_estimates()
    assert not first_row(host, hires(host, upscaler, {"enabled": False, "hires": "estimate"})).any()
    assert runs == []


def test_the_hosts_mask_by_place_and_by_name(host: Host) -> None:
    values = depth_of(ramp())
    values[16:48, 32:64] = values.max()
    mask = Image.new("L", (96, 64))
    mask.paste(255, (32, 16, 64, 48))
    latent, source = torch.zeros(1, 4, 8, 12), torch.zeros(1, 3, 64, 96)
    given = {"source": "map", "depth_map": values.astype(np.float32), "under_mask": "fill"}
    found = []
    for more, named in (((), {}), ((mask, True), {}), ((), {"image_mask": mask})):
        p = host.img2img(ramp(), args=(given,))
        host.ours("jobs.hook").begin(p, p.script_args[1:])
        found.append(p.img2img_image_conditioning(source, latent, *more, **named))
    without, by_place, by_name = found
    assert torch.equal(by_place, by_name) and not torch.equal(without, by_place)


def test_a_host_without_refiners(host: Host) -> None:
    """They came with 1.6."""
    host.select("plain")
    p = host.img2img(ramp())
    del p.refiner_checkpoint_info
    host.ours("jobs.hook").begin(p, ())
    assert host.left_on(p) == []


# --- steps -------------------------------------------------------------------------------------------------------


class CFGDenoiserTimesteps(SimpleNamespace):
    """By this name the host's denoiser of DDIM, PLMS and UniPC is known."""


def ddim() -> None: ...


def plms() -> None: ...


@pytest.mark.parametrize(
    ("kind", "fields", "func", "calls"),
    [
        (SimpleNamespace, {"init_latent": torch.zeros(1)}, ddim, 10),
        (CFGDenoiserTimesteps, {"init_latent": None}, plms, 10),
        (CFGDenoiserTimesteps, {}, plms, 10),
        (CFGDenoiserTimesteps, {"init_latent": torch.zeros(1)}, plms, 9),
        (CFGDenoiserTimesteps, {"init_latent": None}, ddim, 9),
        (CFGDenoiserTimesteps, {"init_latent": torch.zeros(1)}, ddim, 8),
        (CFGDenoiserTimesteps, {"init_latent": None}, functools.partial(ddim), 10),
    ],
)
def test_how_often_a_pass_calls_the_network(
    host: Host, kind: type, fields: dict[str, Any], func: Any, calls: int
) -> None:
    denoiser = kind(total_steps=10, sampler=SimpleNamespace(func=func), **fields)
    assert host.ours("hosts.sampling").calls(denoiser) == calls


# --- who else is there -------------------------------------------------------------------------------------------


def test_what_another_extension_puts_on_p_stays_there(host: Host) -> None:
    """It stands before ours, which it may call."""
    p = host.img2img(ramp(), args=({"strength": 0.5},))
    inner = p.img2img_image_conditioning
    p.img2img_image_conditioning = theirs = lambda *given: inner(*given) * 0.5
    host.run(p)
    assert host.seen[-1].max() == 0.25 and p.__dict__["img2img_image_conditioning"] is theirs


@pytest.mark.parametrize("kept", ["_depth2img_first", "_depth2img_span"])
def test_what_a_sequence_kept_goes_with_the_next_job(host: Host, kept: str) -> None:
    """Unless that one goes on with it."""
    depth = {"keep_first": True, "range": "shared"}
    p = driven(host, "Loopback", ramp(), args=(depth,))
    host.run(p)
    assert kept in vars(p)
    host.run(p)
    assert kept in vars(p)
    p.script_args = (0,)
    host.run(p)
    assert kept not in vars(p)


def test_a_job_without_a_map_is_not_scored(host: Host) -> None:
    """And a score of an earlier run is taken off."""
    score = host.ours("jobs.results").score
    p = SimpleNamespace(extra_generation_params={"Depth fidelity": "0.5", "Other": 1})
    score(p, None)
    assert p.extra_generation_params == {"Other": 1}
    host.ours("jobs.results").add_maps(SimpleNamespace(), None)


# --- the score ---------------------------------------------------------------------------------------------------


def scored(host: Host, p: Any, *results: Image.Image) -> list[str | None]:
    """The score of each result in turn, of a job that has come as far as its results."""
    host.ours("jobs.hook").begin(p, p.script_args[1:])
    p.init([], [], [])
    found = []
    for result in results:
        host.ours("jobs.results").score(p, result)
        found.append(p.extra_generation_params.get("Depth fidelity"))
    return found


def test_each_result_is_compared_with_its_own_map(host: Host) -> None:
    pictures = (ramp(), blobs(2))
    depth = {"score": True}
    right = scored(host, host.img2img(*pictures, batch_size=2, args=(depth,)), *pictures, *pictures)
    assert right == ["1.000"] * 4
    wrong = scored(host, host.img2img(*pictures, batch_size=2, args=(depth,)), *reversed(pictures))
    assert all(score is not None and float(score) < 0.9 for score in wrong)


def test_the_score_is_of_the_map_of_its_batch(host: Host) -> None:
    """Each batch of txt2img makes its own."""
    p = host.img2img(ramp(), args=({"score": True},))
    host.ours("jobs.hook").begin(p, p.script_args[1:])
    for iteration, picture in enumerate((ramp(), blobs(2))):
        p.iteration, p.init_images = iteration, [picture]
        p.init([], [], [])
    score = host.ours("jobs.results").score
    for picture in (ramp(), blobs(2)):
        score(p, picture)
        assert p.extra_generation_params["Depth fidelity"] == "1.000"


@pytest.mark.parametrize("depth", [{}, {"score": True, "enabled": False}])
def test_no_score_where_none_is_asked_for_or_depth_is_off(host: Host, depth: dict[str, Any]) -> None:
    assert scored(host, host.img2img(ramp(), args=(depth,)), ramp()) == [None]


def test_no_score_where_no_network_is_left_to_estimate(host: Host) -> None:
    p = host.img2img(ramp(), args=({"score": True},))
    assert scored(host, p, ramp()) == ["1.000"]
    host.select("plain")
    host.ours("jobs.results").score(p, ramp())
    assert "Depth fidelity" not in p.extra_generation_params


# --- where depth is taken from -----------------------------------------------------------------------------------


def transparent(picture: Image.Image) -> Image.Image:
    """Its left half is not there."""
    picture = picture.convert("RGBA")
    picture.paste((9, 200, 31, 0), (0, 0, 48, 64))
    return picture


@pytest.mark.parametrize("estimate_on", ["original", "entering"])
def test_transparent_parts_have_the_hosts_background(host: Host, estimate_on: str) -> None:
    host.shared.opts.img2img_background_color = "#204080"
    flat = Image.new("RGB", (96, 64), "#204080")
    flat.paste(ramp().crop((48, 0, 96, 64)), (48, 0))
    depth = {"estimate_on": estimate_on}
    found = first_row(host, host.img2img(transparent(ramp()), args=(depth,)))
    assert np.array_equal(found, first_row(host, host.img2img(flat, args=(depth,))))


@pytest.mark.parametrize(("estimate_on", "estimated"), [("auto", 96), ("entering", 96), ("original", 384)])
def test_the_picture_that_is_estimated(
    host: Host, monkeypatch: pytest.MonkeyPatch, estimate_on: str, estimated: int
) -> None:
    """By the estimator that the job has chosen."""
    maps = host.ours("jobs.maps")
    seen: list[tuple[int, str]] = []
    inner = maps.estimate

    def estimate(picture: np.ndarray, model: Any, estimator: str = "checkpoint") -> Any:
        seen.append((picture.shape[1], estimator))
        return inner(picture, model)

    monkeypatch.setattr(maps, "estimate", estimate)
    host.run(host.img2img(blobs(3, 384, 128), args=({"estimate_on": estimate_on, "estimator": "other"},)))
    host.run(host.img2img(ramp(), args=({"reference": blobs(3, 384, 128), "estimator": "other"},)))
    assert seen == [(estimated, "other"), (384, "other")]


def test_originals_of_a_batch_are_estimated_once_each(host: Host) -> None:
    """Pictures that are the same object are one picture."""
    runs = host.count_estimates()
    one, other = blobs(3), blobs(4)
    host.run(host.img2img(one, other, one, batch_size=3, args=({"estimate_on": "original"},)))
    assert len(runs) == 2
    rows = host.seen[-1][:3, 0]
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def test_a_mask_of_another_size_than_the_picture(host: Host) -> None:
    """The host's box is in the mask's pixels: where it reaches outside, there is no original to look at."""
    small, mask = ramp(60, 40), Image.new("L", (96, 64))
    mask.paste(255, (70, 10, 90, 30))
    found = first_row(host, host.img2img(small, mask=mask, args=({"estimate_on": "auto"},)))
    assert np.array_equal(found, first_row(host, host.img2img(small, mask=mask, args=({"estimate_on": "entering"},))))


def test_a_checkpoint_that_cannot_estimate_is_named(host: Host) -> None:
    host.select("plain")
    estimate = host.ours("jobs.maps").estimate
    with refused(NoDepthModelError, got="the checkpoint 'plain'"):
        estimate(np.asarray(ramp()), host.model)
    with refused(NoDepthModelError, got="no checkpoint"):
        estimate(np.asarray(ramp()), None)


def test_pictures_of_a_batch_by_their_names(host: Host, tmp_path: Path) -> None:
    """Uploads are objects with a name, or names."""
    batch = host.ours("jobs.batch_tab")._batch([SimpleNamespace(name="/tmp/one.png"), "/tmp/two.b.jpg"])
    assert batch.names == ["one", "two.b"] and batch.files == [Path("/tmp/one.png"), Path("/tmp/two.b.jpg")]
    assert batch.turn is None and batch.pairings == {}


def test_pictures_of_a_batch_are_those_that_the_host_takes(host: Host, tmp_path: Path) -> None:
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name in ("b.png", "a.WEBP", "notes.txt", "c.gif", "more/d.tif", "map.npy", "e.b.jpeg"):
        (tmp_path / "in" / name).write_bytes(b"")
    batch = host.ours("jobs.batch_tab")._batch(str(tmp_path / "in"))
    assert sorted(batch.names) == ["a", "b", "e.b", "more/d"]
    assert [file.relative_to(tmp_path / "in").with_suffix("").as_posix() for file in batch.files] == batch.names


# --- masks, regions, remarks -------------------------------------------------------------------------------------


def test_a_mask_says_nothing_about_tiles(host: Host) -> None:
    tiles = tiles_of(host, blobs(4, 192, 128))
    mask = Image.new("L", (96, 64))
    mask.paste(255, (20, 10, 70, 50))
    depth = {"depth_map": depth_map(), "under_mask": "fill", "source": "map"}
    fields = {"batch_size": 4, "args": (depth,)}
    plain = first_row(host, driven(host, "SD upscale", *tiles, **fields))
    masked = driven(host, "SD upscale", *tiles, mask=mask, inpaint_full_res=False, **fields)
    assert np.array_equal(first_row(host, masked), plain)


@pytest.mark.parametrize("box", [(0, 0, 97, 64), (0, 0, 96, 65), (-1, 0, 95, 64), (0, -1, 96, 63)])
def test_a_tile_that_reaches_outside_is_a_picture_of_its_own(host: Host, box: tuple[int, int, int, int]) -> None:
    """Of a picture smaller than a tile the host makes such ones."""
    tiles = host.ours("jobs.tiles")
    picture = blobs(6)
    plain = first_row(host, host.img2img(picture))
    setattr(picture, tiles.NOTE, tiles.Tile(ramp(96, 64), box))
    assert np.array_equal(first_row(host, driven(host, "SD upscale", picture)), plain)


def test_a_picture_among_tiles_that_is_none(host: Host, tmp_path: Path) -> None:
    """It has the whole map, brought into the frame as its resize mode says."""
    tiles = tiles_of(host, blobs(4, 192, 128))
    wide = map_file(depth_of(blobs(7, 192, 64)), tmp_path / "map.npy").read_bytes()
    fields = {"resize_mode": 1, "args": ({"depth_map": wide},)}
    alone = first_row(host, host.img2img(blobs(1), **fields))
    host.run(driven(host, "SD upscale", tiles[0], blobs(1), batch_size=2, **fields))
    assert np.array_equal(host.seen[-1][1, 0].numpy(), alone)


@pytest.mark.parametrize("source", ["picture", "map"])
def test_under_the_mask_of_only_masked(host: Host, tmp_path: Path, source: str) -> None:
    """The part in the box is cut from the whole map, after what is under the whole picture's mask was changed in it."""
    picture, mask = ramp(120, 80), Image.new("L", (120, 80))
    mask.paste(255, (36, 24, 84, 56))
    backwards = map_file(depth_of(picture)[:, ::-1].copy(), tmp_path / "own.npy").read_bytes()
    bump = depth_of(picture)
    bump[24:56, 36:84] = bump.max()
    given = {"source": "map", "depth_map": map_file(bump, tmp_path / "map.npy").read_bytes()} if source == "map" else {}
    kept = first_row(host, host.img2img(picture, mask=mask, args=(given,)))
    filled = first_row(host, host.img2img(picture, mask=mask, args=({**given, "under_mask": "fill"},)))
    assert (np.diff(filled[4]) > 0).all(), "as around it: nearer to the right"
    if source == "map":
        assert np.ptp(kept[1:-1, 1:-1]) < 0.01
        return
    own = {"under_mask": "map", "depth_map": backwards}
    replaced = first_row(host, host.img2img(picture, mask=mask, args=(own,)))
    assert (np.diff(kept[4]) > 0).all() and (np.diff(replaced[4]) < 0).all()


@pytest.mark.parametrize("level", [0, 64, 255])
def test_a_mask_counts_as_grey_as_it_is(host: Host, tmp_path: Path, level: int) -> None:
    """Under it lies the user's own map, partly where it is grey."""
    own = map_file(depth_of(blobs(5)), tmp_path / "own.npy").read_bytes()
    depth = {"under_mask": "map", "depth_map": own}
    kept = first_row(host, host.img2img(ramp()))
    mask = Image.new("L", (96, 64), level)
    mask.paste(255, (0, 0, 1, 1))  # with a blank one the host does not inpaint
    p = host.img2img(ramp(), mask=mask, inpaint_full_res=False, args=(depth,))
    found = first_row(host, p)
    other = first_row(host, host.img2img(ramp(), args=({"depth_map": own, "source": "map"},)))
    mixed = kept * (1 - level / 255) + other * level / 255
    mixed = 2 * (mixed - mixed.min()) / np.ptp(mixed) - 1
    # The corner is the own map's in any case; mixing and resizing change places.
    assert np.abs(found - mixed)[2:, 2:].max() < 0.06


def test_a_region_ends_where_its_picture_is_transparent(host: Host) -> None:
    region = Image.new("RGBA", (96, 64), (255, 255, 255, 255))
    region.paste((255, 255, 255, 0), (0, 0, 48, 64))
    row = first_row(host, host.img2img(ramp(), args=({"region": region, "neutral": 0.0},)))
    assert not row[:, :6].any() and row[:, 6:].all()


def test_what_a_region_leaves_out_is_neutral(host: Host) -> None:
    region = Image.new("L", (96, 64))
    region.paste(255, (0, 0, 48, 64))
    row = first_row(host, host.img2img(ramp(), args=({"region": region, "neutral": -0.75},)))
    assert (row[:, 6:] == -0.75).all() and not (row[:, :6] == -0.75).all()


def test_region_and_map_of_other_proportions_are_remarked_by_name(host: Host, tmp_path: Path) -> None:
    wide = map_file(depth_of(ramp(192, 64)), tmp_path / "map.npy").read_bytes()
    region = Image.new("L", (64, 96), 255)
    p = host.img2img(ramp(), resize_mode=1, args=({"depth_map": wide, "region": region},))
    host.run(p)
    first, second = p.comments
    assert first.startswith("The depth map has") and "(192 x 64)" in first
    assert second.startswith("The region has") and "(64 x 96)" in second


@pytest.mark.parametrize("wide", [False, True])
def test_a_region_is_cut_like_the_picture(host: Host, wide: bool) -> None:
    region = Image.new("L", (192, 64) if wide else (96, 64))
    region.paste(255, (48, 0, 96, 64) if wide else (0, 0, 48, 64))
    p = host.img2img(ramp(), resize_mode=1, args=({"region": region},))
    row = first_row(host, p)
    assert not row[:, 6:].any() and row[:, :6].all()


# --- shared ranges -----------------------------------------------------------------------------------------------


def dark(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture) // 2)


@pytest.mark.parametrize("where", ["entering", "original"])
def test_a_range_is_shared_by_all_pictures_of_a_batch(host: Host, where: str) -> None:
    """Wherever they are estimated, and whichever of them comes first."""
    depth = {"range": "shared", "estimate_on": where}
    host.run(host.img2img(dark(ramp()), ramp(), batch_size=2, args=(depth,)))
    one, other = host.seen[-1][0], host.seen[-1][1]
    # Both ends are pixels of the brighter and of the darker picture, which bicubic resizing blurs a little.
    assert 0.9 < other.max() <= 1 and -1 <= one.min() < -0.9
    assert one.max() < other.max() - 0.3


def test_a_given_map_has_the_shared_range_of_the_first(host: Host, tmp_path: Path) -> None:
    values = depth_of(ramp())
    first = map_file(values, tmp_path / "first.npy").read_bytes()
    second = map_file(values / 2, tmp_path / "second.npy").read_bytes()
    p = host.img2img(ramp(), args=({"depth_map": first, "range": "shared"},))
    host.run(p)
    p.script_args = (0, {"depth_map": second, "range": "shared"})
    row = first_row(host, p)
    low, high = values.min(), values.max()
    wanted = 2 * (values.reshape(8, 8, 12, 8).mean((1, 3)) / 2 - low) / (high - low) - 1
    assert np.abs(row - np.clip(wanted, -1, 1)).max() < 0.05
