"""Attributes put on a job, when they come off, and where errors surface."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import Depth2ImgError, DepthMap, DepthOptions, OptionError
from depth2img.depth import resolve, sources
from tests.webui_fake.standin import Host, blobs, depth_of, map_file, ramp, stretched

OFF = {"enabled": False}
PUT = {"_depth2img_request"}


def keys(p: Any) -> list[str]:
    return [key for key in p.extra_generation_params if key.startswith("Depth")]


def test_begin_puts_one_thing_on_p(host: Host) -> None:
    p = host.img2img(ramp())
    before = set(p.__dict__)
    host.ours("jobs.hook").begin(p, ())
    assert set(p.__dict__) - before == set(host.left_on(p)) == PUT
    assert host.left_on(host.img2img(ramp())) == []


def test_detach_removes_everything_and_may_be_repeated(host: Host) -> None:
    hook = host.ours("jobs.hook")
    p = host.img2img(ramp())
    hook.detach(p)
    hook.begin(p, ({"gamma": 2.0},))
    hook.detach(p)
    hook.detach(p)
    assert host.left_on(p) == [] and keys(p) == []
    assert p.init.__func__ is type(p).init


def test_a_job_leaves_nothing_on_p(host: Host) -> None:
    p = host.img2img(ramp(), args=({"gamma": 2.0, "append_map": True},))
    host.run(p)
    assert host.left_on(p) == []
    assert p.extra_generation_params["Depth gamma"] == "2.0"
    assert host.reported == []


def test_a_plain_checkpoint_is_left_wholly_alone(host: Host) -> None:
    host.select("plain")
    p = host.img2img(ramp(), args=({"gamma": 2.0},))
    before = {**p.__dict__}
    host.ours("jobs.hook").begin(p, p.script_args[1:])
    assert p.__dict__ == before
    host.run(p)
    assert p.fake_native == ("img2img", None, True)
    assert keys(p) == []


def test_defaults_leave_the_infotext_empty(host: Host) -> None:
    p = host.img2img(ramp())
    host.run(p)
    assert keys(p) == []


def test_the_infotext_holds_what_is_not_default(host: Host, tmp_path: Path) -> None:
    depth_map = map_file(depth_of(ramp()), tmp_path / "map.npy").read_bytes()
    p = host.img2img(ramp(), args=(True, "map", None, depth_map, 0.9, 0.1, 1.5, 2.0, True, True, True))
    host.run(p)
    assert {key: p.extra_generation_params[key] for key in keys(p)} == {
        "Depth from": "map",
        "Depth near": "0.9",
        "Depth far": "0.1",
        "Depth gamma": "1.5",
        "Depth blur": "2.0",
        "Depth invert": "True",
        "Depth append map": "True",
        "Depth save map": "True",
    }


def test_a_second_run_of_the_same_p_starts_afresh(host: Host) -> None:
    """Loopback and SD upscale run one `p` again and again."""
    p = host.img2img(ramp(), args=({"gamma": 2.0, "invert": True},))
    host.run(p)
    p.script_args = (0, {"gamma": 3.0})
    p.init_images = [blobs(1)]
    host.run(p)
    assert keys(p) == ["Depth gamma"] and p.extra_generation_params["Depth gamma"] == "3.0"
    p.script_args = (0,)
    host.run(p)
    assert keys(p) == []
    np.testing.assert_allclose(host.seen[-1][0, 0], expected(blobs(1)), atol=1e-3)


def test_copies_of_p_work_for_themselves(host: Host) -> None:
    """X/Y/Z copies `p`, which may carry what a broken-off run has left on it."""
    p = host.img2img(ramp(), args=({"invert": True},))
    host.ours("jobs.hook").begin(p, p.script_args[1:])
    one, other = copy.copy(p), copy.copy(p)
    other.script_args = (0, OFF)
    other.init_images = [blobs(2)]
    host.run(one)
    np.testing.assert_allclose(host.seen[-1][0, 0], -expected(ramp()), atol=1e-3)
    host.run(other)
    assert not host.seen[-1].any()
    assert host.left_on(one) == host.left_on(other) == []
    assert set(host.left_on(p)) == PUT  # a copy touches no other copy


def test_copies_of_a_stopped_p_work_for_themselves(host: Host) -> None:
    p = host.img2img(ramp(), args=({"near": 7},))
    with pytest.raises(OptionError, match="near"):
        host.run(p)
    cell = copy.copy(p)
    cell.script_args = (0,)
    host.run(cell)
    assert host.seen[-1].max() == 1 and host.left_on(cell) == host.left_on(p) == []


def expected(picture: Image.Image, size: tuple[int, int] = (8, 12)) -> np.ndarray:
    """The conditioning of a picture at the latent's size, by torch alone."""
    values = torch.from_numpy(depth_of(picture))[None, None].float()
    return stretched(torch.nn.functional.interpolate(values, size, mode="bicubic", align_corners=False)[0, 0].numpy())


@pytest.mark.parametrize(
    ("args", "name", "status"),
    [
        (({"near": 7},), "near", 422),
        (({"nonsense": 1},), "nonsense", 422),
        (({"depth_map": "!"},), "base64", 422),
        ((True, "map"), "Give a depth map", 422),
        ((True, "reference"), "Give a picture", 422),
        (tuple(range(40)), "40 values", 422),
    ],
)
def test_bad_options_stop_the_job(host: Host, args: tuple[Any, ...], name: str, status: int) -> None:
    p = host.img2img(ramp(), args=args)
    with pytest.raises(Depth2ImgError, match=name) as caught:
        host.run(p)
    assert host.reported == []  # nothing was raised where the host swallows it
    # `handle_exception` of the API reads these from the instance.
    assert vars(caught.value)["status_code"] == status
    assert vars(caught.value)["detail"] == str(caught.value)
    assert host.left_on(p) == [] and keys(p) == []
    p.script_args = (0,)
    host.run(p)  # the same p works when the fault is mended


def test_unforeseen_errors_stop_the_job_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host would swallow them and make the picture without depth."""

    def broken(self: object, payload: object) -> None:
        raise ZeroDivisionError("a fault of our own")

    monkeypatch.setattr(sources.MapReader, "__call__", broken)
    p = host.img2img(ramp(), args=({"depth_map": b"x"},))
    with pytest.raises(Depth2ImgError, match=r"failed in process.*ZeroDivisionError: a fault of our own"):
        host.run(p)
    assert host.left_on(p) == []


def test_errors_of_the_estimate_are_raised_from_the_conditioning_call(host: Host) -> None:
    host.model.depth_model.forward = lambda x: x[:, :1] * float("nan")
    p = host.img2img(ramp())
    with pytest.raises(Depth2ImgError, match="NaN") as caught:
        host.run(p)
    assert vars(caught.value)["status_code"] == 500
    assert vars(caught.value)["detail"] == str(caught.value)
    assert host.left_on(p) == []


def test_errors_of_a_later_conditioning_call(host: Host) -> None:
    """txt2img computes its conditioning in `sample`, long after `init`."""
    p = host.txt2img(args=({"reference": png(ramp())},))
    host.model.depth_model.forward = lambda x: x.sum()
    with pytest.raises(Depth2ImgError, match="returned no depth map"):
        host.run(p)
    assert host.left_on(p) == []


def test_unforeseen_errors_of_the_conditioning_call_leave_nothing_on_p(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: Any, **kwargs: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(host.ours("jobs.maps"), "conditioning", out_of_memory)
    p = host.img2img(ramp())
    with pytest.raises(Depth2ImgError, match=r"failed in the conditioning.*MemoryError: no room"):
        host.run(p)
    assert host.left_on(p) == []


def test_a_failing_estimator_stops_the_job_with_a_sentence(host: Host) -> None:
    network = host.model.depth_model
    inner = network.forward

    def fails(x: torch.Tensor) -> None:
        raise RuntimeError("no kernel image is available")

    network.forward = fails
    p = host.img2img(ramp())
    with pytest.raises(Depth2ImgError, match=r"depth network of MiDaS failed.*no kernel image") as caught:
        host.run(p)
    assert caught.value.status_code == 500 and host.left_on(p) == []
    network.forward = inner
    assert len(host.run(host.img2img(ramp())).images) == 1


def test_an_estimation_without_memory_runs_on_the_cpu_and_says_so(host: Host) -> None:
    host.run(host.img2img(ramp()))
    wanted = host.seen[-1]
    network, attempts = host.model.depth_model, []
    inner = network.forward

    def full_once(x: torch.Tensor) -> Any:
        attempts.append(x)
        if len(attempts) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return inner(x)

    network.forward = full_once
    host.ours("jobs.maps").CACHE.clear()
    p = host.img2img(ramp())
    host.run(p)
    assert len(attempts) == 2 and torch.equal(host.seen[-1], wanted)
    assert [text for text in p.comments if "on the CPU" in text]


def png(picture: Image.Image) -> bytes:
    import io

    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def test_what_other_extensions_put_on_p_stays(host: Host) -> None:
    """They may replace `init` or the conditioning of a job as well."""
    p = host.img2img(ramp())
    calls: list[str] = []
    init = p.init

    def theirs(*args: Any, **kwargs: Any) -> None:
        calls.append("init")
        init(*args, **kwargs)

    p.init = theirs
    host.run(p)
    host.run(p)
    assert calls == ["init", "init"] and p.__dict__["init"] is theirs


def test_another_extensions_conditioning_is_used_for_plain_checkpoints(host: Host) -> None:
    """Ours is in the way only because a depth checkpoint may come in as refiner."""
    host.select("plain")
    p = host.img2img(ramp(), refiner_checkpoint="depth", refiner_switch_at=2.0)
    theirs = torch.full((1, 5, 1, 1), 3.0)
    p.img2img_image_conditioning = lambda *args, **kwargs: theirs
    host.run(p)
    assert p.image_conditioning is theirs
    assert p.__dict__["img2img_image_conditioning"]() is theirs


def test_conditioning_is_the_pictures_depth(host: Host) -> None:
    host.run(host.img2img(ramp()))
    rows = host.seen[0]
    assert rows.shape == (2, 1, 8, 12)
    for row in rows:
        np.testing.assert_allclose(row[0], expected(ramp()), atol=1e-3)


def test_off_is_neutral_and_estimates_nothing(host: Host) -> None:
    runs = host.count_estimates()
    p = host.img2img(ramp(), args=(OFF,))
    host.run(p)
    assert host.seen[0].shape == (2, 1, 8, 12) and not host.seen[0].any()
    assert runs == [] and p.extra_generation_params["Depth to image"] == "False"
    host.run(host.txt2img(args=(OFF,)))
    assert not host.seen[-1].any()


def test_a_batch_estimates_once(host: Host) -> None:
    runs = host.count_estimates()
    host.run(host.img2img(ramp(), batch_size=3, n_iter=2))
    assert [shape[0] for shape in runs] == [1]
    assert host.seen[0].shape[0] == 6


def test_each_init_image_has_its_own_depth(host: Host) -> None:
    runs = host.count_estimates()
    host.run(host.img2img(ramp(), blobs(3), ramp(), batch_size=3))
    assert len(runs) == 2
    for row, picture in zip(host.seen[0][:3], (ramp(), blobs(3), ramp()), strict=True):
        np.testing.assert_allclose(row[0], expected(picture), atol=1e-3)


def test_conditioning_has_the_unets_type(host: Host) -> None:
    hook = host.ours("jobs.hook")
    host.devices.dtype_unet = torch.float16
    p = host.img2img(ramp())
    hook.begin(p, ())
    p.init([], [], [])
    assert p.image_conditioning.dtype == torch.float16
    off = host.img2img(ramp())
    hook.begin(off, (OFF,))
    off.init([], [], [])
    assert off.image_conditioning.dtype == torch.float16


def test_txt2img_with_a_depth_checkpoint_and_no_depth(host: Host) -> None:
    p = host.txt2img()
    with pytest.raises(Depth2ImgError, match="give another picture or a depth map, or use img2img, or") as caught:
        host.run(p)
    assert vars(caught.value)["status_code"] == 422


def test_txt2img_takes_only_the_depth_of_a_reference(host: Host) -> None:
    host.run(host.txt2img(args=({"reference": png(ramp())},), batch_size=2))
    assert host.seen[0].shape == (4, 1, 8, 12)
    np.testing.assert_allclose(host.seen[0][1, 0], expected(ramp()), atol=1e-3)


def test_upscaling_one_picture_in_txt2img_takes_its_depth(host: Host) -> None:
    """The button that sends a result through the hires pass: there is a picture after all."""
    p = host.txt2img(firstpass_image=ramp(), enable_hr=True, hr_upscaler="Lanczos")
    p.hr_upscale_to_x, p.hr_upscale_to_y = 192, 128
    host.run(p)
    assert host.seen[0].shape == (2, 1, 16, 24)
    assert (np.diff(host.seen[0][0, 0, 8]) > -1e-5).all()


def test_given_depth_needs_a_depth_checkpoint(host: Host, tmp_path: Path) -> None:
    host.select("plain")
    depth_map = map_file(depth_of(ramp()), tmp_path / "map.npy").read_bytes()
    with pytest.raises(Depth2ImgError, match="the checkpoint 'plain'") as caught:
        host.run(host.img2img(ramp(), args=({"depth_map": depth_map},)))
    assert vars(caught.value)["status_code"] == 422
    host.run(host.img2img(ramp(), args=(False, "map", None, depth_map)))  # off: nothing was asked for


@pytest.mark.parametrize("own", [True, False])
def test_wants_given_depth(own: bool, host: Host) -> None:
    wants = host.ours("jobs.request").wants_given_depth
    assert wants(DepthOptions(source="map", depth_map=b"x", enabled=own)) is own
    assert wants(DepthOptions(source="reference", reference=b"x", enabled=own)) is own
    assert not wants(DepthOptions(source="picture", reference=b"x", depth_map=b"x"))
    assert not wants(DepthOptions(source="map"))


def test_append_map_shows_each_map_once(host: Host) -> None:
    p = host.img2img(ramp(), blobs(4), batch_size=2, n_iter=2, args=({"append_map": True},))
    images = host.run(p).images
    assert len(images) == 4 + 2
    for shown, picture in zip(images[4:], (ramp(), blobs(4)), strict=True):
        assert shown.size == (96, 64)
        values = np.asarray(shown.convert("L"), np.float64)
        wanted = (stretched(depth_of(picture)) + 1) * 127.5
        assert np.abs(values - wanted).max() < 12  # 8 bits, and the network saw the picture at another size


def test_append_map_stays_out_of_scripts_of_the_dropdown(host: Host) -> None:
    """X/Y/Z, SD upscale and Loopback take every picture of a result for their own."""
    p = host.img2img(ramp(), args=({"append_map": True},))
    p.script_args = (3, *p.script_args[1:])
    assert len(host.run(p).images) == 1


def test_save_map_beside_each_picture(host: Host, tmp_path: Path) -> None:
    import cv2

    host.processing.fake_save_to = tmp_path
    host.run(host.img2img(ramp(), blobs(4), batch_size=2, n_iter=2, args=({"save_map": True},)))
    names = sorted(path.name for path in tmp_path.glob("*-depth.png"))
    assert names == [f"{number:05}-depth.png" for number in range(4)]
    for number, picture in enumerate((ramp(), blobs(4), ramp(), blobs(4))):
        saved = cv2.imread(str(tmp_path / f"{number:05}-depth.png"), cv2.IMREAD_UNCHANGED)
        assert saved.dtype == np.uint16 and saved.shape == (64, 96) and np.ptp(saved) == 65535
        assert np.abs(saved / 32767.5 - 1 - stretched(depth_of(picture))).max() < 0.1


def test_save_map_skips_the_masks_among_the_results(host: Host, tmp_path: Path) -> None:
    host.processing.fake_save_to = tmp_path
    host.shared.opts.return_mask = host.shared.opts.return_mask_composite = True
    fields = {"mask": Image.new("L", (96, 64), 255), "inpaint_full_res": False, "batch_size": 2}
    host.run(host.img2img(ramp(), args=({"save_map": True},), **fields))
    assert len(list(tmp_path.glob("*-depth.png"))) == 2


@pytest.mark.parametrize("estimate_on", ["auto", "entering"])
@pytest.mark.parametrize("overlay", [True, False])
def test_save_map_of_an_only_masked_job(host: Host, tmp_path: Path, overlay: bool, estimate_on: str) -> None:
    """The picture is whole again, so is the map, as far as it was estimated; without the overlay the picture is the
    part alone."""
    import cv2

    host.processing.fake_save_to = tmp_path
    host.shared.opts.overlay_inpaint = overlay
    mask = Image.new("L", (120, 80))
    mask.paste(255, (70, 50, 118, 78))
    p = host.img2img(ramp(120, 80), mask=mask, args=({"save_map": True, "estimate_on": estimate_on},))
    host.run(p)
    saved = cv2.imread(str(tmp_path / "00000-depth.png"), cv2.IMREAD_UNCHANGED)
    assert host.reported == []
    if overlay and estimate_on == "auto":
        assert saved.shape == (80, 120) and (np.diff(saved[30].astype(int)) >= 0).all() and np.ptp(saved) == 65535
        assert saved[30, 60] > saved[30, 5], "the whole map, outside of the box too"
    elif overlay:
        assert saved.shape == (80, 120) and not saved[:, :70].any() and not saved[:50].any()
        assert (np.diff(saved[60, 70:118].astype(int)) >= 0).all() and saved[77, 117] == 65535
    else:
        assert saved.shape == (64, 96) and (np.diff(saved[30].astype(int)) >= 0).all()


def test_unsaved_pictures_are_mentioned(host: Host) -> None:
    result = host.run(host.img2img(ramp(), args=({"save_map": True},)))
    assert "this picture was not saved" in result.comments
    assert host.reported == []


def test_saving_that_fails_still_takes_everything_off(host: Host, tmp_path: Path) -> None:
    host.processing.fake_save_to = tmp_path
    (tmp_path / "00000-depth.png").mkdir()
    p = host.img2img(ramp(), args=({"save_map": True},))
    done = host.run(p)
    assert "cannot be written to 00000-depth.png" in done.comments
    assert host.reported == [] and host.left_on(p) == []


@pytest.mark.parametrize(
    ("name", "size"),
    [("a" * 251, 255), ("b" * 250, 255), ("\u6df1" * 83, 253), ("short", 15)],
    ids=["letters", "fewer letters", "Chinese", "short"],
)
def test_names_as_long_as_they_may_be(host: Host, tmp_path: Path, name: str, size: int) -> None:
    """In bytes: a Chinese prompt in the name takes three each."""
    before = set(tmp_path.iterdir())
    path = host.ours("jobs.results").beside(tmp_path / f"{name}.png")
    DepthMap(values=np.float32([[1, 2, 3]])).save(path)
    assert set(tmp_path.iterdir()) - before == {path}
    assert path.name.endswith("-depth.png") and name.startswith(path.name[: -len("-depth.png")])
    assert len(os.fsencode(path.name)) == size, "no character less than must be"


def test_a_link_in_the_place_of_a_map_is_replaced_and_not_followed(host: Host, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.txt"
    other.write_text("untouched")
    host.processing.fake_save_to = tmp_path
    (tmp_path / "00000-depth.png").symlink_to(other)
    host.run(host.img2img(ramp(), args=({"save_map": True},)))
    assert other.read_text() == "untouched"
    assert not (tmp_path / "00000-depth.png").is_symlink() and (tmp_path / "00000-depth.png").stat().st_size > 100


def test_a_hires_map_is_saved_beside_its_own_picture(host: Host, tmp_path: Path) -> None:
    """Each batch of a hires pass estimates anew; the maps of an earlier batch are not lost."""
    import cv2

    host.select("plain")
    host.processing.fake_save_to = tmp_path
    fields = {"enable_hr": True, "hr_upscaler": "Lanczos", "hr_checkpoint_name": "depth", "n_iter": 2}
    p = host.txt2img(args=({"save_map": True},), **fields)
    p.hr_upscale_to_x, p.hr_upscale_to_y = 96, 64
    host.run(p)
    saved = [cv2.imread(str(tmp_path / f"{n:05}-depth.png"), cv2.IMREAD_UNCHANGED) for n in range(2)]
    assert np.abs(saved[0].astype(int) - saved[1]).max() > 5000


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_pictures_of_keeps_range_and_every_bit(host: Host, kind: torch.dtype) -> None:
    source = (torch.rand(2, 3, 6, 9) * 2 - 1).to(kind)
    pictures = host.ours("jobs.maps").pictures_of(source)
    wanted = ((source.float() + 1.0) * 0.5).permute(0, 2, 3, 1).numpy()
    for picture, value in zip(pictures, wanted, strict=True):
        assert picture.dtype == np.float32 and picture.shape == (6, 9, 3) and picture.flags.c_contiguous
        assert np.array_equal(picture, value)
        assert picture.min() >= 0 and picture.max() <= 1


def test_pictures_of_computes_in_single_precision(host: Host) -> None:
    """As `AddMiDaS` does with what `--no-half-vae` gives; in half precision the last bits would be lost."""
    source = (torch.rand(1, 3, 64, 64) * 2 - 1).half()
    (picture,) = host.ours("jobs.maps").pictures_of(source)
    assert not np.array_equal(picture, ((source + 1.0) * 0.5).float()[0].permute(1, 2, 0).numpy())


def test_pictures_of_a_hires_pass_are_taken_as_they_are(host: Host) -> None:
    source = torch.rand(1, 3, 5, 7)
    (picture,) = host.ours("jobs.maps").pictures_of(source, zero_to_one=True)
    assert np.array_equal(picture, source[0].permute(1, 2, 0).numpy())


def test_equal_pictures_are_the_same_object(host: Host) -> None:
    one, other = torch.rand(3, 4, 6), torch.rand(3, 4, 6)
    pictures = host.ours("jobs.maps").pictures_of(torch.stack([one, other, one, other]))
    assert pictures[0] is pictures[2] and pictures[1] is pictures[3] and pictures[0] is not pictures[1]


def count_adjust(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    inner = resolve.adjust

    def adjust(depth: Any, *more: Any) -> Any:
        seen.append(depth)
        return inner(depth, *more)

    monkeypatch.setattr(resolve, "adjust", adjust)
    return seen


def test_maps_are_adjusted_once_each(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maps, request = host.ours("jobs.maps"), host.ours("jobs.request")
    adjusted = count_adjust(host, monkeypatch)
    p = host.img2img(ramp())
    one, other = (np.asarray(picture, np.float32) / 255 for picture in (ramp(), blobs(5)))
    options = DepthOptions(gamma=2.0)
    made = maps.place_maps(p, request.Request(options), [one, other, one], 3, host.model)
    assert len(adjusted) == 2 and made[0] is made[2] and made[0] is not made[1]
    made = maps.place_maps(p, request.Request(options), [one, other], 4, host.model)  # fewer pictures than samples
    assert made[0] is made[2] and made[1] is made[3] and made[0] is not made[1]

    adjusted.clear()
    depth_map = map_file(depth_of(ramp()), tmp_path / "map.npy").read_bytes()
    given = DepthOptions(source="map", depth_map=depth_map, gamma=2.0)
    made = maps.place_maps(p, request.load(given), [], 3, host.model)
    assert len(adjusted) == 1 and made[0] is made[1] is made[2]

    adjusted.clear()
    runs = host.count_estimates()
    given = DepthOptions(source="reference", reference=png(blobs(6)), gamma=2.0)
    made = maps.place_maps(p, request.load(given), [one, other], 2, host.model)
    assert len(adjusted) == len(runs) == 1 and made[0] is made[1]


def test_an_own_map_needs_no_estimate(host: Host, tmp_path: Path) -> None:
    runs = host.count_estimates()
    values = depth_of(blobs(7))
    depth_map = map_file(values, tmp_path / "map.npy").read_bytes()
    p = host.img2img(ramp(), args=({"depth_map": depth_map},))
    host.run(p)
    assert runs == []
    np.testing.assert_allclose(host.seen[0][0, 0], expected(blobs(7)), atol=1e-4)


def test_adjustments_reach_the_conditioning(host: Host) -> None:
    host.run(host.img2img(ramp(), args=({"invert": True},)))
    np.testing.assert_allclose(host.seen[0][0, 0], -expected(ramp()), atol=1e-3)


def test_estimates_are_kept_by_content_and_checkpoint(host: Host) -> None:
    runs = host.count_estimates()
    host.run(host.img2img(ramp()))
    host.run(host.img2img(ramp()))
    assert len(runs) == 1
    host.sd_hijack.model_hijack.circular_enabled = True  # "Tiling" changes the convolutions of the network
    host.run(host.img2img(ramp()))
    assert len(runs) == 2
    Path(host.model.sd_checkpoint_info.filename).touch()
    os.utime(host.model.sd_checkpoint_info.filename, ns=(1, 1))
    host.run(host.img2img(ramp()))
    assert len(runs) == 3
    host.select("depth-b")
    runs = host.count_estimates()
    host.run(host.img2img(ramp()))
    assert len(runs) == 1


def test_the_networks_name_of_a_vanished_file(host: Host) -> None:
    Path(host.model.sd_checkpoint_info.filename).unlink()
    assert "|0|" in host.ours("hosts.compat").network_key(host.model)


def test_hires_pixels_are_zero_to_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain first pass, a depth checkpoint for hires: the host hands over 0..1 there, -1..1 elsewhere."""
    host.select("plain")
    ranges = []
    maps = host.ours("jobs.maps")
    inner = maps.pictures_of

    def pictures_of(source: torch.Tensor, *, zero_to_one: bool = False) -> Any:
        ranges.append((zero_to_one, float(source.min()) < 0))
        return inner(source, zero_to_one=zero_to_one)

    monkeypatch.setattr(maps, "pictures_of", pictures_of)
    p = host.txt2img(enable_hr=True, hr_upscaler="Lanczos", hr_checkpoint_name="depth")
    p.hr_upscale_to_x, p.hr_upscale_to_y = 96, 64
    host.run(p)
    assert ranges == [(True, False)]
    host.select("depth")
    host.run(host.img2img(ramp()))
    assert ranges[1:] == [(False, True)]


def test_hires_latents_are_decoded_for_their_depth(host: Host) -> None:
    host.select("plain")
    p = host.txt2img(enable_hr=True, hr_upscaler="Latent", hr_checkpoint_name="depth")
    p.hr_upscale_to_x, p.hr_upscale_to_y, p.latent_scale_mode = 192, 128, {"mode": "bilinear", "antialias": False}
    host.run(p)
    assert host.seen[-1].shape == (2, 1, 16, 24) and host.seen[-1].max() == 1


def test_the_hosts_own_arguments_pass_through(host: Host) -> None:
    """On a plain checkpoint, where only a refiner or hires checkpoint may be one for depth."""
    host.select("plain")
    p = host.txt2img(enable_hr=True, hr_checkpoint_name="depth")
    host.ours("jobs.hook").begin(p, ())
    p.txt2img_image_conditioning(torch.zeros(1, 4, 2, 2), 48, height=32)
    assert p.fake_native == ("txt2img", 48, 32)
    mask = Image.new("L", (8, 8))
    p = host.img2img(ramp(), refiner_checkpoint="depth", refiner_switch_at=0.5)
    p.refiner_checkpoint_info = host.sd_models.get_closet_checkpoint_match("depth")
    host.ours("jobs.hook").begin(p, ())
    p.img2img_image_conditioning(torch.zeros(1, 3, 16, 16), torch.zeros(1, 4, 2, 2), mask, round_image_mask=False)
    assert p.fake_native == ("img2img", mask, False)


@pytest.mark.parametrize("name", [None, "", "Use same checkpoint"])
def test_hires_without_a_checkpoint_of_its_own(host: Host, name: str | None) -> None:
    host.select("plain")
    p = host.txt2img(enable_hr=True, hr_checkpoint_name=name)
    host.ours("jobs.hook").begin(p, ())
    assert host.left_on(p) == []


def test_a_failed_load_of_the_checkpoint_is_the_hosts_affair(host: Host) -> None:
    """No model at all: nothing is put on `p`, and given depth is refused in words."""
    host.sd_models.model_data.sd_model = None
    p = host.img2img(ramp())
    host.ours("jobs.hook").begin(p, ())
    assert host.left_on(p) == []
    with pytest.raises(Depth2ImgError, match="no checkpoint"):
        host.ours("jobs.hook").begin(p, ({"reference": png(ramp())},))
    assert host.left_on(p) == []


def test_plain_forward_puts_back(host: Host) -> None:
    """`devices.manual_cast` replaces `forward` of whole classes; each is undone for the estimate and then put back."""
    linear, convolution = torch.nn.Linear, torch.nn.Conv2d
    original, untouched = linear.forward, convolution.forward

    def cast(self: Any, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("half precision")

    linear.org_forward, linear.forward = original, cast
    try:
        with host.ours("hosts.compat").plain_forward():
            assert linear.forward is original and convolution.forward is untouched
            linear(2, 3)(torch.ones(1, 2))
        assert linear.forward is cast and convolution.forward is untouched
        with pytest.raises(RuntimeError), host.ours("hosts.compat").plain_forward():
            raise RuntimeError
        assert linear.forward is cast
    finally:
        linear.forward = original
        del linear.org_forward


def test_estimates_run_without_manual_cast(host: Host) -> None:
    kind = torch.nn.Conv2d
    original = kind.forward

    def cast(self: Any, x: torch.Tensor) -> torch.Tensor:
        return original(self, x) * 0

    kind.org_forward, kind.forward = original, cast
    try:
        host.run(host.img2img(ramp()))
        np.testing.assert_allclose(host.seen[0][0, 0], expected(ramp()), atol=1e-3)
        assert kind.forward is cast
    finally:
        kind.forward = original
        del kind.org_forward


def test_half_precision(host: Host) -> None:
    """The host's default: float16 pictures and a float16 network, which is float16 again afterwards."""
    host.devices.dtype_vae = host.devices.dtype_unet = torch.float16
    host.model.depth_model.half()
    kept = [tensor.data_ptr() for tensor in host.model.depth_model.parameters()]
    host.run(host.img2img(ramp()))
    assert [tensor.data_ptr() for tensor in host.model.depth_model.parameters()] == kept
    np.testing.assert_allclose(host.seen[0][0, 0].float(), expected(ramp()), atol=5e-3)
