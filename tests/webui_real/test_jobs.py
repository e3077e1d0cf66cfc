"""Jobs on the real WebUI through its API: each way a picture comes in, and what the depth checkpoint gets."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host import Host, Refused, to_base64, without_scheduler
from PIL import Image

LCM = pytest.param("LCM", marks=pytest.mark.needs("LCM"))
OURS = "n.startswith('_depth2img')"
"""Code that tells whether a name is of what the extension puts on `p`."""


def conditionings(host: Host) -> list[np.ndarray]:
    """Conditioning of each step, all rows: (rows, 1, h, w)."""
    return [np.array(values, np.float32).reshape(shape) for shape, values, _ in host.conditionings()]


def ramp16(width: int = 48, height: int = 32) -> Image.Image:
    """A 16-bit depth map that grows nearer to the right, in steps that 8 bits cannot hold."""
    values = np.linspace(30_000, 30_200, width).round().astype(np.uint16)
    return Image.fromarray(np.repeat(values[None], height, axis=0))


def mask(box: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("L", (192, 128))
    image.paste(255, box)
    return image


def test_img2img_needs_no_arguments(depth_host: Host, astronaut: Image.Image) -> None:
    result = depth_host.img2img(astronaut)
    assert len(result.images) == 1
    (first, *_) = conditionings(depth_host)
    assert first.shape == (2, 1, 16, 24)
    assert first[0].min() == -1 and first[0].max() == 1
    assert "Depth" not in result.infotexts[0]


def test_parity_with_the_host(depth_host: Host, astronaut: Image.Image) -> None:
    """Same seed, same unseeded VAE draw: same conditioning to the last bit, and the same picture."""
    depth_host.run("probe.seeded = True")
    with depth_host.native():
        native = depth_host.img2img(astronaut, denoising_strength=0.7)
    expected = conditionings(depth_host)
    depth_host.run("probe.clear()")
    ours = depth_host.img2img(astronaut, denoising_strength=0.7)
    for a, b in zip(expected, conditionings(depth_host), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(np.asarray(native.images[0]), np.asarray(ours.images[0]))


def test_parity_in_whole_picture_inpaint(depth_host: Host, astronaut: Image.Image) -> None:
    fields: dict[str, Any] = {"mask": mask((50, 30, 120, 100)), "inpaint_full_res": False, "inpainting_fill": 0}
    depth_host.run("probe.seeded = True")
    with depth_host.native():
        native = depth_host.img2img(astronaut, **fields)
    expected = conditionings(depth_host)
    depth_host.run("probe.clear()")
    ours = depth_host.img2img(astronaut, **fields)
    for a, b in zip(expected, conditionings(depth_host), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(np.asarray(native.images[0]), np.asarray(ours.images[0]))


def test_off_is_neutral(depth_host: Host, astronaut: Image.Image) -> None:
    result = depth_host.img2img(astronaut, depth={"enabled": False})
    assert all((step == 0).all() for step in conditionings(depth_host))
    assert depth_host.run("result = probe.calls['depth']") == 0
    assert "Depth to image: False" in result.infotexts[0]


def test_off_lets_a_depth_checkpoint_do_txt2img(depth_host: Host) -> None:
    assert len(depth_host.txt2img(depth={"enabled": False}).images) == 1
    assert all((step == 0).all() for step in conditionings(depth_host))


def test_txt2img_without_depth_says_what_to_do(depth_host: Host) -> None:
    with depth_host.native(), pytest.raises(Refused, match="to have 5 channels, but got 9"):
        depth_host.txt2img()
    with pytest.raises(Refused, match="give another picture or a depth map, or use img2img") as refused:
        depth_host.txt2img()
    assert refused.value.status == 422


def test_several_init_images_have_their_own_depth(
    depth_host: Host, astronaut: Image.Image, coffee: Image.Image
) -> None:
    with depth_host.native():
        depth_host.img2img(astronaut, coffee, batch_size=2)
    shared = conditionings(depth_host)[0]
    assert np.array_equal(shared[0], shared[1])  # the defect: both have the first one's
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, coffee, batch_size=2)
    own = conditionings(depth_host)[0]
    depth_host.run("probe.clear()")
    depth_host.img2img(coffee)
    alone = conditionings(depth_host)[0]
    assert np.abs(own[0] - own[1]).max() > 0.1
    assert np.array_equal(own[1], alone[0])


def test_a_batch_estimates_once_and_encodes_once(depth_host: Host, astronaut: Image.Image) -> None:
    with depth_host.native():
        depth_host.img2img(astronaut, batch_size=3)
    assert depth_host.run("result = probe.calls") == {"depth": 1, "depth_rows": 3, "vae": 6}
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, batch_size=3)
    assert depth_host.run("result = probe.calls") == {"depth": 1, "depth_rows": 1, "vae": 3}
    depth_host.img2img(astronaut)
    assert depth_host.run("result = probe.calls['depth']") == 1  # from the cache


@pytest.mark.needs("own depth")
def test_flat_depth_is_no_division_by_zero(depth_host: Host, astronaut: Image.Image) -> None:
    flat = (
        "m = shared.sd_model.depth_model; probe.kept = m.forward; m.forward = lambda x: torch.full_like(x[:, :1], 7.0)"
    )
    depth_host.run(flat)
    try:
        with depth_host.native(), pytest.raises(Refused, match="NaN"):
            depth_host.img2img(astronaut)
        depth_host.run("probe.clear()")
        depth_host.img2img(astronaut)
        assert all((step == 0).all() for step in conditionings(depth_host))
    finally:
        depth_host.run("shared.sd_model.depth_model.forward = probe.kept")
        depth_host.run("sys.modules['depth2img_webui.jobs.maps'].CACHE.clear()")


def test_extreme_proportions(depth_host: Host, astronaut: Image.Image) -> None:
    wide = astronaut.resize((2048, 64))
    with depth_host.native(), pytest.raises(Refused):
        depth_host.img2img(wide, width=2048, height=64, steps=1)
    depth_host.img2img(wide, width=2048, height=64, steps=1)
    assert conditionings(depth_host)[-1].shape[-2:] == (8, 256)


def test_latent_upscale(depth_host: Host, coffee: Image.Image) -> None:
    """Resize mode 3: the picture keeps its size, the latent does not."""
    fields = {"resize_mode": 3, "width": 128, "height": 192}
    with depth_host.native(), pytest.raises(Refused, match="Sizes of tensors must match"):
        depth_host.img2img(coffee, **fields)
    depth_host.run("probe.clear()")
    depth_host.img2img(coffee, **fields)
    assert conditionings(depth_host)[0].shape[-2:] == (24, 16)


@pytest.mark.parametrize("resize_mode", [0, 1, 2])
def test_resize_modes(depth_host: Host, coffee: Image.Image, resize_mode: int) -> None:
    depth_host.img2img(coffee, resize_mode=resize_mode, width=128, height=192)
    assert conditionings(depth_host)[0].shape == (2, 1, 24, 16)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"s_min_uncond": 5.0}, id="NGMS"),
        pytest.param(
            {"override_settings": {"skip_early_cond": 0.6}}, id="skip early", marks=pytest.mark.needs("skip_early_cond")
        ),
        pytest.param(
            {"s_min_uncond": 5.0, "override_settings": {"s_min_uncond_all": True}},
            id="NGMS all steps",
            marks=pytest.mark.needs("s_min_uncond_all"),
        ),
    ],
)
def test_skipped_unconditional_rows(depth_host: Host, astronaut: Image.Image, fields: dict[str, Any]) -> None:
    fields = {"steps": 4, "denoising_strength": 0.5, **fields}
    with depth_host.native(), pytest.raises(Refused, match="Sizes of tensors must match"):
        depth_host.img2img(astronaut, **fields)
    assert len(depth_host.img2img(astronaut, **fields).images) == 1


def test_and_prompts_in_a_batch(depth_host: Host, astronaut: Image.Image, coffee: Image.Image) -> None:
    depth_host.img2img(
        astronaut,
        coffee,
        batch_size=2,
        prompt="a vase AND a cat :0.5",
        s_min_uncond=100.0,
        steps=4,
    )
    steps = conditionings(depth_host)
    assert [step.shape[0] for step in steps] == [6, 4, 6, 4]  # every second step without the unconditional rows
    for step in steps:
        assert np.array_equal(step[0], step[1]) and np.array_equal(step[2], step[3])
        assert np.abs(step[0] - step[2]).max() > 0.1


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DPM++ SDE", "DDIM", "PLMS", "UniPC", LCM])
def test_samplers(depth_host: Host, astronaut: Image.Image, sampler: str) -> None:
    depth_host.img2img(astronaut, sampler_name=sampler, steps=5)
    assert conditionings(depth_host)[0].max() == 1


def test_own_map_keeps_sixteen_bits(depth_host: Host, astronaut: Image.Image) -> None:
    """200 of 65,536 levels: eight bits would leave a single step."""
    result = depth_host.img2img(astronaut, depth={"depth_map": to_base64(ramp16())})
    row = conditionings(depth_host)[0][0, 0, 8]
    assert (np.diff(row) > 0).all()
    assert depth_host.run("result = probe.calls['depth']") == 0
    assert "Depth from: map" in result.infotexts[0]


def test_txt2img_takes_depth_from_another_picture(depth_host: Host, coffee: Image.Image) -> None:
    """Its depth and nothing else: the same map and seed give the same picture, whatever its colours are."""
    data_url = "data:image/png;base64," + to_base64(coffee)
    depth_host.txt2img(depth={"source": "reference", "reference": data_url})
    stolen = conditionings(depth_host)[0]
    depth_host.run("probe.clear()")
    depth_host.img2img(coffee)
    # The host carries the picture through -1..1, which moves it by a unit in the last place; MiDaS amplifies that.
    assert np.abs(stolen - conditionings(depth_host)[0]).max() < 1e-4


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_hires_keeps_the_first_pass_map(depth_host: Host, upscaler: str) -> None:
    fields = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": upscaler, "denoising_strength": 0.6}
    depth_host.txt2img(depth={"depth_map": to_base64(ramp16())}, **fields)
    steps = conditionings(depth_host)
    assert {step.shape[-2:] for step in steps} == {(16, 24), (24, 36)}
    assert (np.diff(steps[-1][0, 0, 12]) > 0).all()


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_hires_with_truncation(depth_host: Host, upscaler: str) -> None:
    """A square target out of a wide picture: the host cuts the latent after it has made the conditioning."""
    fields = {"enable_hr": True, "hr_resize_x": 192, "hr_resize_y": 192, "hr_upscaler": upscaler}
    depth_host.txt2img(depth={"depth_map": to_base64(ramp16())}, denoising_strength=0.6, **fields)
    last = conditionings(depth_host)[-1][0, 0]
    assert last.shape == (24, 24)
    # The middle of the ramp: two thirds of its range.
    assert last[12, 0] == pytest.approx(-2 / 3, abs=0.08) and last[12, -1] == pytest.approx(2 / 3, abs=0.08)


def test_hires_depth_checkpoint_sees_the_right_range(depth_host: Host) -> None:
    """A plain first pass, a depth checkpoint for hires: depth comes from the first pass' picture, in 0..1."""
    depth_host.use("small-plain")
    fields = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.6}
    depth_host.run("sys.modules['depth2img_webui.jobs.maps'].CACHE.clear(); probe.clear()")
    watch = "sys.modules['depth2img.estimators.midas'].MidasEstimator"
    code = f"cls = {watch}; probe.kept = cls.estimate; probe.pictures = []\n"
    code += "def estimate(self, picture):\n    probe.pictures.append([float(picture.min()), float(picture.max())])\n"
    code += "    return probe.kept(self, picture)\ncls.estimate = estimate"
    depth_host.run(code)
    try:
        result = depth_host.txt2img(hr_checkpoint_name="small-depth", **fields)
    finally:
        depth_host.run(f"{watch}.estimate = probe.kept")
    low, high = depth_host.run("result = probe.pictures[0]")
    assert len(result.images) == 1
    assert low < 0.45 and high > 0.55 and low >= 0 and high <= 1
    assert conditionings(depth_host)[-1].max() == 1
    depth_host.use("small-depth")


def test_depth_checkpoint_as_refiner_of_a_plain_one(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.use("small-plain")
    fields = {"refiner_checkpoint": "small-depth", "refiner_switch_at": 0.5, "steps": 4}
    with depth_host.native(), pytest.raises(Refused):
        depth_host.img2img(astronaut, **fields)
    depth_host.use("small-plain")
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, **fields)
    assert conditionings(depth_host)[-1].shape == (2, 1, 16, 24)
    assert conditionings(depth_host)[-1].max() == 1
    depth_host.use("small-depth")


def test_plain_checkpoint_is_left_alone(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.use("small-plain")
    try:
        depth_host.img2img(astronaut)
        assert depth_host.run("result = probe.calls['depth']") == 0
        # The host's own dummy, which Forge's family does not even hand to the UNet.
        assert all(step.shape[1:] == (5, 1, 1) for step in conditionings(depth_host))
        with pytest.raises(Refused, match="needs a depth checkpoint") as refused:
            depth_host.img2img(astronaut, depth={"depth_map": to_base64(ramp16())})
        assert refused.value.status == 422
    finally:
        depth_host.use("small-depth")


def test_switches_to_the_depth_checkpoint_of_the_settings(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.use("small-plain")
    depth_host.post("/sdapi/v1/options", depth2img_checkpoint="small-depth")
    try:
        result = depth_host.img2img(astronaut, depth={"depth_map": to_base64(ramp16())})
        assert result.info["sd_model_name"] == "small-depth"
        assert conditionings(depth_host)[0].max() == 1
    finally:
        depth_host.post("/sdapi/v1/options", depth2img_checkpoint="None")
        depth_host.use("small-depth")


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        ({"near": 3}, "near"),
        ({"nonsense": 1}, "nonsense"),
        ({"invert": "maybe"}, "invert"),
        ({"source": "map"}, "depth map"),
        ({"depth_map": "no base64 at all!"}, "base64"),
        ({"source": "picture", "depth_map": to_base64(Image.new("L", (8, 8)))}, "depth_map"),
        ([True, "picture", None, None, 0.2, 0.6], "near"),
    ],
)
def test_bad_fields_are_named(depth_host: Host, astronaut: Image.Image, depth: Any, names: str) -> None:
    with pytest.raises(Refused, match=names) as refused:
        depth_host.img2img(astronaut, depth=depth)
    assert refused.value.status == 422
    depth_host.img2img(astronaut)  # the next job is not affected


def test_positional_arguments(depth_host: Host, astronaut: Image.Image) -> None:
    result = depth_host.img2img(astronaut, depth=[True, "picture", None, None, 0.9, 0.1, 1.5, 2.0, True])
    text = result.infotexts[0]
    for part in ("Depth near: 0.9", "Depth far: 0.1", "Depth gamma: 1.5", "Depth blur: 2.0", "Depth invert: True"):
        assert part in text


@pytest.mark.needs("infotext")
def test_infotext_restores_the_options(depth_host: Host, astronaut: Image.Image) -> None:
    first = depth_host.img2img(astronaut, depth={"near": 0.85, "far": 0.15, "gamma": 0.7, "blur": 1.5, "invert": True})
    expected = conditionings(depth_host)[0]
    depth_host.run("probe.clear()")
    again = depth_host.img2img(astronaut, infotext=first.infotexts[0])
    assert np.array_equal(conditionings(depth_host)[0], expected)
    assert without_scheduler(again.infotexts[0]) == without_scheduler(first.infotexts[0])


@pytest.mark.needs("infotext")
def test_off_in_an_infotext(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.img2img(astronaut, infotext="a vase\nSteps: 2, Sampler: Euler, Seed: 1, Depth to image: False")
    assert all((step == 0).all() for step in conditionings(depth_host))


def test_map_is_appended_and_saved_beside_the_picture(depth_host: Host, astronaut: Image.Image, tmp_path: Path) -> None:
    import cv2

    # 1.6 and 1.7 save into their own folder, not into --data-dir.
    depth_host.run(f"shared.opts.data['outdir_img2img_samples'] = {str(tmp_path)!r}")
    depth = {"append_map": True, "save_map": True}
    result = depth_host.img2img(astronaut, depth=depth, save_images=True, batch_size=2, n_iter=2)
    pictures, shown = result.images[:-1], result.images[-1]
    assert len(pictures) == 5  # four and their grid
    assert shown.size == (192, 128) and np.ptp(np.asarray(shown)) == 255
    maps = sorted(tmp_path.rglob("*-depth.png"))
    assert len(maps) == 4
    for path in maps:
        saved = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert saved.dtype == np.uint16 and saved.shape == (128, 192) and np.ptp(saved) == 65535
        assert path.with_name(path.name.replace("-depth", "")).exists()


def test_only_masked(depth_host: Host, astronaut: Image.Image) -> None:
    fields: dict[str, Any] = {"mask": mask((60, 40, 110, 90)), "inpaint_full_res": True, "inpaint_full_res_padding": 8}
    depth_host.img2img(astronaut, depth={"depth_map": to_base64(ramp16(192, 128)), "append_map": True}, **fields)
    first = conditionings(depth_host)[0]
    assert first.shape[-2:] == (16, 24)
    assert (np.diff(first[0, 0, 8]) > 0).all()


@pytest.mark.needs("soft inpainting")
def test_soft_inpainting(depth_host: Host, astronaut: Image.Image) -> None:
    scripts = {"soft inpainting": {"args": [True, 1, 0.5, 4, 0, 1, 2]}}
    fields: dict[str, Any] = {"mask": mask((60, 40, 110, 90)), "inpaint_full_res": False, "alwayson_scripts": scripts}
    depth_host.img2img(astronaut, **fields)
    assert conditionings(depth_host)[0].max() == 1


def test_loopback_estimates_each_loop(depth_host: Host, astronaut: Image.Image) -> None:
    args = [2, 0.6, "Linear", "None"]
    result = depth_host.img2img(astronaut, script_name="loopback", script_args=args, depth={"near": 0.9})
    assert depth_host.run("result = probe.calls['depth']") == 2
    assert "Depth near: 0.9" in result.infotexts[-1]


@pytest.mark.parametrize(("estimate_on", "runs"), [("auto", 1), ("entering", 6)])
def test_sd_upscale(depth_host: Host, astronaut: Image.Image, estimate_on: str, runs: int) -> None:
    """Each tile gets its part of the whole picture's depth, or is estimated by itself."""
    args = ["", 64, "Lanczos", 2.0]
    depth = {"append_map": True, "estimate_on": estimate_on}
    result = depth_host.img2img(
        astronaut, script_name="sd upscale", script_args=args, depth=depth, steps=1, batch_size=2
    )
    assert result.images[0].size == (384, 256)
    assert depth_host.run("result = probe.calls['depth']") == runs or (estimate_on == "entering")
    rows = [row for step in conditionings(depth_host) for row in step[:2]]
    whole_range = [row.min() == -1 and row.max() == 1 for row in rows]
    assert all(whole_range) is (estimate_on == "entering")


def test_loopback_may_keep_the_first_depth(depth_host: Host, astronaut: Image.Image) -> None:
    args = [2, 0.6, "Linear", "None"]
    depth_host.img2img(astronaut, script_name="loopback", script_args=args, depth={"keep_first": True})
    assert depth_host.run("result = probe.calls['depth']") == 1
    steps = conditionings(depth_host)
    assert all(np.array_equal(step, steps[0]) for step in steps)


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_hires_may_estimate_anew(depth_host: Host, upscaler: str) -> None:
    fields = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": upscaler, "denoising_strength": 0.6}
    depth_host.txt2img(depth={"depth_map": to_base64(ramp16()), "hires": "estimate"}, **fields)
    steps = conditionings(depth_host)
    assert depth_host.run("result = probe.calls['depth']") == 1
    assert (np.diff(steps[0][0, 0, 8]) > 0).all() and not (np.diff(steps[-1][0, 0, 12]) > 0).all()
    low, high = depth_host.run("result = probe.seen[-1][:2]")
    assert low < -0.1 and high > 0.1  # MiDaS' input of a picture in 0..1 lies around 0


def test_xyz_grid_copies(depth_host: Host, astronaut: Image.Image) -> None:
    """X/Y/Z runs copies of p: each cell has its own conditioning, none keeps another's."""
    titles = depth_host.run(
        "m = [d.module for d in sys.modules['modules.scripts'].scripts_data if d.path.endswith('xyz_grid.py')][0]\n"
        "s = m.Script(); s.is_img2img = True\n"
        "result = [o.label for o in m.axis_options if type(o) == m.AxisOption or o.is_img2img]"
    )
    args = [
        titles.index("Seed"),
        "5,6",
        [],
        0,
        "",
        [],
        0,
        "",
        [],
        True,
        False,
        False,
        False,
        False,
        False,
        False,
        0,
        False,
    ]
    depth_host.img2img(astronaut, script_name="x/y/z plot", script_args=args, depth={"invert": True})
    steps = conditionings(depth_host)
    assert len(steps) == 4
    assert all(np.array_equal(step, steps[0]) for step in steps)


@pytest.mark.needs("own depth")
def test_half_precision_picture(depth_host: Host, astronaut: Image.Image) -> None:
    """The host's default precision: the picture is float16, and OpenCV refuses it."""
    call = (
        "from modules.processing import StableDiffusionProcessingImg2Img as P\n"
        "p = P(); p.batch_size = 1; p.width = 192; p.height = 128; p.init_images = []\n"
        "g = torch.Generator().manual_seed(3)\n"
        "source = (torch.rand(1, 3, 128, 192, generator=g) * 2 - 1).half(); latent = torch.zeros(1, 4, 16, 24)\n"
    )
    with depth_host.native(), pytest.raises(Refused, match="resize"):
        depth_host.run(call + "p.img2img_image_conditioning(source, latent)")
    low, high = depth_host.run(
        call + "c = p.img2img_image_conditioning(source, latent); result = [float(c.min()), float(c.max())]"
    )
    assert (low, high) == (-1, 1)


@pytest.mark.needs("own depth")
def test_half_precision_weights(depth_host: Host, astronaut: Image.Image) -> None:
    """Weights in float16 run in float32 and are float16 again afterwards, the very same tensors."""
    depth_host.run("m = shared.sd_model.depth_model; probe.ids = None; m.half()")
    try:
        depth_host.img2img(astronaut)
        assert conditionings(depth_host)[0].max() == 1
        types = "result = sorted({str(t.dtype) for t in shared.sd_model.depth_model.parameters()})"
        assert depth_host.run(types) == ["torch.float16"]
    finally:
        depth_host.run("shared.sd_model.depth_model.float()")


@pytest.mark.needs("own depth")
def test_weights_on_the_cpu_while_the_rest_is_elsewhere(depth_host: Host, astronaut: Image.Image) -> None:
    """medvram and lowvram keep the depth network on the CPU and move it in a hook; estimation stays where it is."""
    hook = (
        "def refuse(module, args):\n    raise RuntimeError('moved')\n"
        "probe.handle = shared.sd_model.depth_model.register_forward_pre_hook(refuse)"
    )
    depth_host.run(hook)
    try:
        depth_host.img2img(astronaut)
        assert conditionings(depth_host)[0].max() == 1
    finally:
        depth_host.run("probe.handle.remove()")


def test_nothing_stays_on_p(depth_host: Host, astronaut: Image.Image) -> None:
    """After a good job and after a failed one, `p` is as the host made it."""
    depth_host.run(
        "h = sys.modules['depth2img_webui.jobs.hook']; probe.kept = h.begin; probe.jobs = []\n"
        "def begin(p, args):\n    probe.jobs.append(p); probe.kept(p, args)\nh.begin = begin"
    )
    try:
        depth_host.img2img(astronaut)
        with pytest.raises(Refused):
            depth_host.img2img(astronaut, depth={"near": 3})
        names = depth_host.run(f"result = [[n for n in vars(p) if {OURS}] for p in probe.jobs]")
        assert names == [[], []]
    finally:
        depth_host.run("sys.modules['depth2img_webui.jobs.hook'].begin = probe.kept; probe.jobs = []")


def test_script_info_is_healthy(depth_host: Host) -> None:
    scripts = [script for script in depth_host.get("/sdapi/v1/script-info") if script["name"] == "depth to image"]
    assert [script["is_img2img"] for script in scripts] == [False, True]
    assert [arg["label"] for arg in scripts[1]["args"]][:2] == ["Depth to image", "Depth from"]


def test_client_library(depth_host: Host, astronaut: Image.Image) -> None:
    """`webuiapi`, a client that nobody here wrote."""
    import webuiapi

    port = int(depth_host.url.rsplit(":", 1)[1])
    client = webuiapi.WebUIApi(host="127.0.0.1", port=port)
    result = client.img2img(
        images=[astronaut],
        prompt="a vase",
        steps=2,
        width=192,
        height=128,
        sampler_name="Euler",
        seed=3,
        alwayson_scripts={"Depth to image": {"args": [{"gamma": 2.0, "append_map": True}]}},
    )
    assert len(result.images) == 2 and "Depth gamma: 2.0" in result.info["infotexts"][0]
    content = io.BytesIO()
    result.images[1].save(content, "PNG")
    assert base64.b64encode(content.getvalue())


def test_batch_folder(depth_host: Host, astronaut: Image.Image, coffee: Image.Image, tmp_path: Path) -> None:
    """The batch tab runs one `p` over all files: each picture has its own depth, the options apply to each."""
    for name, image in (("a", astronaut), ("b", coffee)):
        image.save(tmp_path / f"{name}.png")
    code = (
        "import modules.scripts as s, modules.img2img as i\n"
        "runner = s.scripts_img2img\n"
        "script = next(x for x in runner.alwayson_scripts if x.title() == 'Depth to image')\n"
        "p = processing.StableDiffusionProcessingImg2Img(prompt='a vase', steps=2, width=192, height=128,\n"
        "    sampler_name='Euler', denoising_strength=1.0, do_not_save_samples=True, do_not_save_grid=True)\n"
        "args = [c.value if c is not None else 0 for c in runner.inputs]\n"
        "args[0] = 0; args[script.args_from] = {'invert': True}\n"
        "p.scripts = runner; p.script_args = tuple(args)\n"
        f"done = i.process_batch(p, {str(tmp_path)!r}, '', '', tuple(args))\n"
        f"result = [len(done.images), [n for n in vars(p) if {OURS}]]"
    )
    count, left = depth_host.run(code)
    assert count == 2 and left == []
    first, second = conditionings(depth_host)[0], conditionings(depth_host)[-1]
    assert np.abs(first - second).max() > 0.1
    depth_host.run("probe.clear()")
    depth_host.img2img(coffee)
    assert np.abs(second[0] + conditionings(depth_host)[0][0]).max() < 1e-4  # inverted


def test_inpaint_upload_with_a_soft_mask(depth_host: Host, astronaut: Image.Image) -> None:
    """A grey mask of the size of the picture, mask mode "inpaint not masked", latent noise under it."""
    soft = Image.linear_gradient("L").resize((192, 128))
    for fill in (0, 1, 2, 3):
        depth_host.run("probe.clear()")
        depth_host.img2img(
            astronaut, mask=soft, inpainting_fill=fill, inpainting_mask_invert=1, inpaint_full_res=False, mask_blur=6
        )
        assert conditionings(depth_host)[0].max() == 1
