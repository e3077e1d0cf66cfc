"""The engine: against diffusers' own pipeline, and its promises."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import Depth2ImgError, DepthMap, DepthMapError, DepthOptions, OptionError, PictureError, conditioning
from depth2img.checkpoints.layout.tokenizer import token_ids
from depth2img.diffusion import Engine, Settings, sampling
from depth2img.diffusion.job import Job
from depth2img.diffusion.networks import build
from tests.engine import small

WIDE = (64, 96)
"""Height and width of most pictures here: not square, multiples of 8."""


@functools.lru_cache(maxsize=2)
def engine(midas: bool = False) -> Engine:
    return Engine(build(small.model(midas=midas), device=torch.device("cpu"), dtype=torch.float32))


def picture(seed: int, size: tuple[int, int] = WIDE) -> np.ndarray:
    """A smooth picture with edges, seeded."""
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    rng = np.random.default_rng(seed)
    waves = [np.sin(rng.uniform(3, 9) * rows + rng.uniform(3, 9) * columns + seed) for _ in range(3)]
    out = np.stack(waves, axis=2) * 90 + 128
    out[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] // 2] = rng.integers(0, 256, 3)
    return np.round(out).astype(np.uint8)


def settings(**changes: Any) -> Settings:
    height, width = WIDE
    return Settings(**{"prompt": "a red box", "steps": 4, "width": width, "height": height, **changes})


@functools.lru_cache(maxsize=1)
def pipeline() -> Any:
    """diffusers' own pipeline around the same networks; its text goes in as states, its depth as a map."""
    from diffusers import StableDiffusionDepth2ImgPipeline
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    from depth2img.diffusion.sampling import make_scheduler

    networks = engine().networks
    made = StableDiffusionDepth2ImgPipeline(
        vae=networks.vae,
        text_encoder=networks.text_encoder,
        tokenizer=None,
        unet=networks.unet,
        scheduler=make_scheduler(networks, "ddim"),
        depth_estimator=DPTForDepthEstimation(DPTConfig(**small.DPT)),
        feature_extractor=DPTImageProcessor(),
    )
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
@pytest.mark.parametrize(("strength", "of_diffusers"), [(0.5, 0.75), (1.0, 1.0)])
@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler a", "dpm++ 2m"])
def test_pictures_are_those_of_diffusers(
    strength: float, of_diffusers: float, sampler: str, record_property: Any
) -> None:
    """Below 1 the WebUI, and so the engine, runs one step more than diffusers does."""
    from depth2img.diffusion.sampling import make_scheduler

    pictures, seed = [picture(1), picture(2)], 7
    ours = engine().generate(pictures, settings(denoising_strength=strength, sampler=sampler, seed=seed, cfg_scale=5.0))
    networks = engine().networks
    pipe = pipeline()
    pipe.scheduler = make_scheduler(networks, sampler)
    states = [networks.text_encoder(token_ids([text])).last_hidden_state for text in ("a red box", "")]
    theirs = pipe(
        image=[Image.fromarray(one) for one in pictures],
        prompt_embeds=states[0].repeat(2, 1, 1),
        negative_prompt_embeds=states[1].repeat(2, 1, 1),
        depth_map=torch.from_numpy(np.stack([one.depth.values for one in ours])),
        strength=of_diffusers,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(seed + n) for n in (0, 1)],
        output_type="np",
    ).images
    mine = np.stack([one.picture for one in ours]) / 255.0
    apart = float(np.abs(mine - theirs).max())
    record_property("largest difference", apart)
    # Ours is rounded to 8 bits, so half a step of 255 is equality; the rest is fp32 in another batch order.
    assert apart <= 0.5 / 255 + 1e-3
    assert float(mine.std()) > 0.02


def test_same_seed_same_picture_whatever_the_batch() -> None:
    together = engine().generate([picture(1), picture(2)], settings(seed=5))
    alone = engine().generate([picture(2)], settings(seed=6))
    assert together[1].seed == 6
    # The batch changes the order of sums in a convolution, no more: one step of 255 at the most.
    assert np.abs(together[1].picture.astype(int) - alone[0].picture.astype(int)).max() <= 1
    assert np.abs(together[0].picture.astype(int) - together[1].picture.astype(int)).max() > 10


def test_each_picture_keeps_its_own_depth() -> None:
    first, second = engine().generate([picture(1), picture(2)], settings())
    assert not torch.equal(first.conditioning, second.conditioning)
    for result in (first, second):
        assert result.depth is not None
        assert torch.equal(result.conditioning, conditioning([result.depth], height=8, width=12))
        assert result.picture.shape == (*WIDE, 3)


def test_conditioning_is_the_library_s_for_a_given_map() -> None:
    depth = DepthMap(np.linspace(0, 1, 40 * 60, dtype=np.float32).reshape(40, 60))
    options = DepthOptions(source="map", depth_map=depth, gamma=2.0, invert=True)
    [result] = engine().generate([picture(1)], settings(), options)
    from depth2img import adjust

    assert torch.equal(result.conditioning, conditioning([adjust(depth, options)], height=8, width=12))


def test_toggle_off_is_neutral() -> None:
    [result] = engine().generate([picture(1)], settings(), DepthOptions(enabled=False))
    assert result.depth is None
    assert not result.conditioning.any()
    assert result.conditioning.shape == (1, 1, 8, 12)


def test_flat_depth_gives_a_picture() -> None:
    flat = DepthOptions(source="map", depth_map=np.full((20, 30), 3.0, np.float32))
    [result] = engine().generate([picture(1)], settings(), flat)
    assert not result.conditioning.any()
    [off] = engine().generate([picture(1)], settings(), DepthOptions(enabled=False))
    assert np.array_equal(result.picture, off.picture)


def test_depth_of_another_picture_changes_the_result_but_lends_no_colours() -> None:
    other = DepthOptions(source="reference", reference=picture(3, (48, 72)))
    [result] = engine().generate([picture(1)], settings(), other)
    [own] = engine().generate([picture(1)], settings())
    assert np.array_equal(result.frame, own.frame)
    assert not torch.equal(result.conditioning, own.conditioning)


def test_one_source_may_be_a_map_here_and_a_picture_there() -> None:
    grey = picture(3)[:, :, :1].repeat(3, axis=2)
    as_map, as_picture = DepthOptions(depth_map=grey, source="map"), DepthOptions(reference=grey, source="reference")
    both = engine().run([Job(picture(1), settings(), as_map), Job(picture(1), settings(), as_picture)])
    apart = [engine().generate([picture(1)], settings(), options)[0] for options in (as_map, as_picture)]
    assert all(torch.equal(one.conditioning, alone.conditioning) for one, alone in zip(both, apart, strict=True))
    assert not torch.equal(both[0].conditioning, both[1].conditioning)


def test_midas_of_a_real_layout_estimates_in_the_engine() -> None:
    [result] = engine(midas=True).generate([picture(1)], settings())
    assert result.depth is not None
    # MiDaS' own rule: of 64 x 96 the longer side is the nearer to 384.
    assert (result.depth.height, result.depth.width) == (256, 384)


def test_strength_zero_gives_the_picture_of_the_autoencoder() -> None:
    [result] = engine().generate([picture(1)], settings(denoising_strength=0.0))
    [again] = engine().generate([picture(1)], settings(denoising_strength=0.0, prompt="another"))
    assert np.array_equal(result.picture, again.picture)


# --- inpainting -------------------------------------------------------------------------------------------------------


def box_mask(size: tuple[int, int] = WIDE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 255
    return mask


@pytest.mark.parametrize("content", ["fill", "original", "latent noise", "latent nothing"])
@pytest.mark.parametrize("area", ["whole picture", "only masked"])
def test_what_is_not_masked_stays_to_the_bit(content: str, area: str) -> None:
    made = settings(
        masked_content=content, inpaint_area=area, mask_blur=0, only_masked_padding=8, denoising_strength=1.0
    )
    [result] = engine().generate([picture(1)], made, masks=[box_mask()])
    kept = box_mask() == 0
    assert np.array_equal(result.picture[kept], picture(1)[kept])
    assert np.abs(result.picture[~kept].astype(int) - picture(1)[~kept].astype(int)).mean() > 5


def test_blurred_mask_fades() -> None:
    [sharp] = engine().generate([picture(1)], settings(mask_blur=0), masks=[box_mask()])
    [soft] = engine().generate([picture(1)], settings(mask_blur=4), masks=[box_mask()])
    changed = [np.abs(r.picture.astype(int) - picture(1)).sum(axis=2) > 0 for r in (sharp, soft)]
    assert changed[1].sum() > changed[0].sum()
    assert not changed[1][-8:].any()


def test_inverted_mask_repaints_the_rest() -> None:
    [result] = engine().generate([picture(1)], settings(mask_invert=True, mask_blur=0), masks=[box_mask()])
    inside = box_mask() == 255
    assert np.array_equal(result.picture[inside], picture(1)[inside])


def test_only_masked_leaves_the_picture_s_size_alone() -> None:
    large = picture(4, (120, 200))
    [result] = engine().generate([large], settings(inpaint_area="only masked"), masks=[box_mask((120, 200))])
    assert result.picture.shape == large.shape
    assert result.frame.shape == (*WIDE, 3)


def test_own_map_is_cropped_with_the_picture() -> None:
    large, mask = picture(4, (128, 192)), box_mask((128, 192))
    ramp = np.tile(np.linspace(0, 1, 192, dtype=np.float32), (128, 1))
    options = DepthOptions(source="map", depth_map=ramp)
    made = settings(inpaint_area="only masked", only_masked_padding=0, mask_blur=0)
    [result] = engine().generate([large], made, options, masks=[mask])
    assert result.depth is not None
    # The mask spans columns 48 to 96 of 192.
    assert result.depth.range == pytest.approx((48 / 192, 95 / 191), abs=0.01)


def test_fill_takes_the_object_out_of_the_depth() -> None:
    [kept] = engine().generate([picture(1)], settings(masked_content="original"), masks=[box_mask()])
    [filled] = engine().generate([picture(1)], settings(masked_content="fill"), masks=[box_mask()])
    assert not torch.equal(kept.conditioning, filled.conditioning)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(PictureError, match="another size"):
        engine().generate([picture(1)], settings(), masks=[box_mask((64, 64))])


def test_empty_mask_is_refused() -> None:
    with pytest.raises(PictureError, match="masks nothing"):
        engine().generate([picture(1)], settings(), masks=[np.zeros(WIDE, np.uint8)])


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory."),
            "not enough memory on the device. Got 1 pictures of 96 x 64",
        ),
        (RuntimeError("MPS backend out of memory (...)"), "not enough memory on the device"),
        (RuntimeError("something else"), "something else"),
    ],
)
def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch, problem: Exception, told: str) -> None:
    def fail(*_: object) -> None:
        raise problem

    monkeypatch.setattr(sampling, "sample", fail)
    with pytest.raises((Depth2ImgError, RuntimeError), match=told) as caught:
        engine().generate([picture(1)], settings())
    assert isinstance(caught.value, Depth2ImgError) is ("memory" in told)


def test_counts_must_match() -> None:
    with pytest.raises(PictureError, match="one mask per picture"):
        engine().generate([picture(1), picture(2)], settings(), masks=[box_mask()])
    with pytest.raises(OptionError, match="one prompt per picture"):
        engine().generate([picture(1)], settings(), prompts=["a", "b"])
    with pytest.raises(PictureError, match="no picture"):
        engine().generate([], settings())


def test_missing_sources_are_named() -> None:
    with pytest.raises(DepthMapError, match="no map was given"):
        engine().generate([picture(1)], settings(), DepthOptions(source="map"))
    with pytest.raises(PictureError, match="no picture was given"):
        engine().generate([picture(1)], settings(), DepthOptions(source="reference"))


def test_nan_in_a_map_is_refused() -> None:
    bad = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(DepthMapError, match="NaN"):
        engine().generate([picture(1)], settings(), DepthOptions(source="map", depth_map=bad))


def test_extreme_proportions_are_refused_without_a_size() -> None:
    with pytest.raises(PictureError, match="proportions"):
        engine().generate([np.zeros((10, 4000, 3), np.uint8)], Settings())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("mask_invert", 2),
        ("denoising_strength", 1.5),
        ("denoising_strength", float("nan")),
        ("steps", 0),
        ("steps", 2.5),
        ("cfg_scale", "seven"),
        ("seed", -1),
        ("width", 100),
        ("width", 100_000),
        ("sampler", "plms"),
        ("masked_content", "noise"),
        ("inpaint_area", ""),
        ("mask_blur", True),
    ],
)
def test_bad_settings_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(OptionError, match=field) as caught:
        Settings(**{field: value})
    assert caught.value.field == field
