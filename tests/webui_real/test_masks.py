"""Starting from noise, and depth under and around a mask, on the real WebUI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host import Host, to_base64
from PIL import Image

LCM = pytest.param("LCM", marks=pytest.mark.needs("LCM"))
BOX = (60, 40, 110, 90)
ONLY_MASKED: dict[str, Any] = {"inpaint_full_res": True, "inpaint_full_res_padding": 8, "mask_blur": 2}
WHOLE: dict[str, Any] = {"inpaint_full_res": False, "mask_blur": 0}


def conditionings(host: Host) -> list[np.ndarray]:
    """Conditioning of each step, all rows: (rows, 1, h, w)."""
    return [np.array(values, np.float32).reshape(shape) for shape, values, _ in host.conditionings()]


def mask(box: tuple[int, int, int, int] = BOX, size: tuple[int, int] = (192, 128)) -> Image.Image:
    image = Image.new("L", size)
    image.paste(255, box)
    return image


def ramp(width: int = 192, height: int = 128) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 65535, width).round().astype(np.uint16), (height, 1)))


@pytest.fixture
def starts(depth_host: Host) -> Any:
    """Call it after a job: the latent that the first step saw, and `p.init_latent`."""
    depth_host.run(
        "from modules import script_callbacks as sc\n"
        "probe.starts = []\n"
        "def look(params):\n"
        "    den = getattr(params, 'denoiser', None) or sys.modules['depth2img_webui.hosts.sampling'].DENOISER.get()\n"
        "    if den.step == 0: probe.starts.append([params.x[:1].tolist(), den.init_latent[:1].tolist()])\n"
        "probe.look = look; sc.on_cfg_denoiser(look)"
    )
    yield lambda: [np.array(part) for part in depth_host.run("result = probe.starts.pop(); probe.starts = []")]
    depth_host.run("from modules import script_callbacks as sc; sc.remove_callbacks_for_function(probe.look)")


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM", "UniPC", LCM])
def test_noise_alone(depth_host: Host, astronaut: Image.Image, coffee: Image.Image, starts: Any, sampler: str) -> None:
    """Two pictures with the same depth map: with the option the sampler starts from the very same latent."""
    seen = []
    for ignore in (True, False):
        for picture in (astronaut, coffee):
            depth = {"depth_map": to_base64(ramp()), "ignore_colours": ignore}
            depth_host.img2img(picture, depth=depth, sampler_name=sampler, steps=4)
            seen.append(starts())
    (one, start), (other, _), (host_one, _), (host_other, _) = seen
    assert np.array_equal(one, other) and not start.any()
    assert np.abs(host_one - host_other).max() > 1e-3
    assert np.std(one) == pytest.approx(np.std(host_one), rel=0.05)


def test_noise_alone_under_a_mask(depth_host: Host, astronaut: Image.Image, starts: Any) -> None:
    """Under the mask nothing of the picture; elsewhere all of it, to the last bit."""
    fields = {"mask": mask(), "inpainting_fill": 1, **WHOLE}
    depth_host.img2img(astronaut, **fields)
    _, native = starts()
    result = depth_host.img2img(astronaut, depth={"ignore_colours": True}, **fields)
    _, ours = starts()
    inside = np.zeros((16, 24), bool)
    inside[5:11, 8:13] = True
    assert (ours[0, :, inside] == 0).all()
    assert np.allclose(ours[0][:, :4], native[0][:, :4], atol=1e-5)
    kept = np.asarray(result.images[0], int)[:30] - np.asarray(astronaut, int)[:30]
    assert np.abs(kept).max() <= 1


@pytest.mark.needs("soft inpainting")
def test_soft_inpainting_keeps_its_soft_edge(depth_host: Host, astronaut: Image.Image, starts: Any) -> None:
    scripts = {"soft inpainting": {"args": [True, 1, 0.5, 4, 0, 1, 2]}}
    fields = {"mask": mask(), "inpainting_fill": 1, "alwayson_scripts": scripts, **WHOLE, "mask_blur": 12}
    depth_host.img2img(astronaut, **fields)
    _, native = starts()
    fields["alwayson_scripts"] = {**scripts, "depth to image": {"args": [{"ignore_colours": True}]}}
    depth_host.img2img(astronaut, **fields)
    _, ours = starts()
    same = np.isclose(ours, native, atol=1e-5)
    assert same.mean() > 0 and ((ours == 0) | same).all()


def test_below_strength_one_it_does_nothing(depth_host: Host, astronaut: Image.Image, starts: Any) -> None:
    depth_host.img2img(astronaut, depth={"ignore_colours": True}, denoising_strength=0.9, steps=4)
    assert starts()[1].any()


def test_only_masked_keeps_the_whole_picture_s_depth(depth_host: Host, astronaut: Image.Image) -> None:
    """Measured in the box against the whole picture's depth: ours follows it, the host's own does not."""
    depth_host.img2img(astronaut)
    whole = conditionings(depth_host)[0][0, 0]
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, mask=mask(), **ONLY_MASKED)
    ours = conditionings(depth_host)[0][0, 0]
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, depth={"estimate_on": "entering"}, mask=mask(), **ONLY_MASKED)
    entering = conditionings(depth_host)[0][0, 0]
    depth_host.run("probe.clear()")
    with depth_host.native():
        depth_host.img2img(astronaut, mask=mask(), **ONLY_MASKED)
    native = conditionings(depth_host)[0][0, 0]
    # The host's box: mask, blur, padding, widened to 3:2.
    crop = Image.fromarray(whole).crop((5.5, 3.5, 15.5, 12.5)).resize((24, 16), Image.BICUBIC)
    errors = [float(np.abs(np.asarray(crop) - each).mean()) for each in (ours, native)]
    assert np.allclose(entering, native, atol=1e-4)
    assert errors[0] < 0.6 * errors[1]
    assert native.max() == 1 and native.min() == -1
    assert np.ptp(ours) < 2


def test_only_masked_with_an_own_map_keeps_its_range(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.img2img(astronaut, depth={"depth_map": to_base64(ramp())}, mask=mask(), **ONLY_MASKED)
    row = conditionings(depth_host)[0][0, 0, 8]
    assert (np.diff(row) > 0).all()
    assert -0.8 < row[0] < -0.6 and 0.4 < row[-1] < 0.55


def test_estimated_on_the_original(depth_host: Host) -> None:
    """'Crop and resize' of a large picture: depth of all of it, cut the same way."""
    from conftest import photograph

    large = photograph("coffee", 384, 192)
    depth_host.img2img(large, depth={"estimate_on": "original"}, resize_mode=1, width=128, height=128)
    assert depth_host.run("result = probe.seen[0][2]") == [1, 3, 192, 384]
    assert conditionings(depth_host)[0].shape[-2:] == (16, 16)


def test_fill_from_the_surroundings(depth_host: Host, astronaut: Image.Image) -> None:
    bump = np.asarray(ramp()).copy()
    bump[40:90, 60:110] = 65535
    fields = {"mask": mask(), **WHOLE}
    given = {"depth_map": to_base64(Image.fromarray(bump))}
    depth_host.img2img(astronaut, depth=given, **fields)
    kept = conditionings(depth_host)[0][0, 0]
    depth_host.run("probe.clear()")
    depth_host.img2img(astronaut, depth={**given, "under_mask": "fill"}, **fields)
    filled = conditionings(depth_host)[0][0, 0]
    straight = np.linspace(-1, 1, 24)
    assert np.abs(kept[8] - straight).max() > 0.5
    assert np.abs(filled[8] - straight).max() < 0.12


@pytest.mark.parametrize("area", [ONLY_MASKED, WHOLE], ids=["only masked", "whole picture"])
@pytest.mark.parametrize("estimate_on", ["original", "entering"])
def test_own_map_under_the_mask(depth_host: Host, astronaut: Image.Image, area: Any, estimate_on: str) -> None:
    fields = {"mask": mask(), "inpainting_fill": 1, **area}
    depth = {"estimate_on": estimate_on}
    depth_host.img2img(astronaut, depth=depth, **fields)
    before = conditionings(depth_host)[0][0, 0]
    depth_host.run("probe.clear()")
    given = {**depth, "depth_map": to_base64(ramp()), "under_mask": "map"}
    result = depth_host.img2img(astronaut, depth=given, **fields)
    after = conditionings(depth_host)[0][0, 0]
    assert (np.diff(after[8, 9:13]) > 0).all()
    if area is WHOLE:
        assert np.allclose(after[:3], before[:3], atol=0.02)
    assert "Depth under mask: map" in result.infotexts[0]


@pytest.mark.needs("mask of any size")
def test_a_mask_of_another_size_than_the_picture(depth_host: Host, astronaut: Image.Image) -> None:
    """The host's box reaches outside of the picture then; it goes on, and so does the extension."""
    depth_host.img2img(astronaut, mask=mask((250, 200, 300, 250), (384, 256)), **ONLY_MASKED)
    assert conditionings(depth_host)[0].max() == 1


def test_inverted_mask(depth_host: Host, astronaut: Image.Image) -> None:
    inverted = Image.eval(mask(), lambda value: 255 - value)
    depth = {"depth_map": to_base64(ramp()), "under_mask": "fill"}
    seen = []
    for image, invert in ((mask(), 0), (inverted, 1)):
        depth_host.run("probe.clear()")
        depth_host.img2img(astronaut, depth=depth, mask=image, inpainting_mask_invert=invert, **WHOLE)
        seen.append(conditionings(depth_host)[0])
    assert np.array_equal(*seen)
