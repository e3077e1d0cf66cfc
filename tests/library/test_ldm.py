"""Against Stability's own ldm: same weights in, same conditioning out."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from depth2img import MidasEstimator, conditioning
from depth2img.estimators.midas import midas_input

# The WebUI's environment has no `ldm` on its path; there is nothing to compare with then.
pytest.importorskip("ldm", reason="needs stable-diffusion-sdkit (tests/requirements-no-deps.txt)")
midas = importlib.import_module("ldm.modules.midas.api")
AddMiDaS = importlib.import_module("ldm.data.util").AddMiDaS


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """`MiDaSInference("dpt_hybrid")` as the depth checkpoint has it, 123 M parameters, with seeded random weights."""
    from ldm.modules.midas.midas.dpt_depth import DPTDepthModel

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(20240229)
        # Without this it reads its weights from a file that is not there.
        build = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True).eval()
        patch.setattr(midas, "load_model", lambda _: (build, None))
        built = midas.MiDaSInference("dpt_hybrid").eval()
    with torch.no_grad():
        # MiDaS' maps span tens to thousands, those of small random weights a tenth; scaling the last layer mends that.
        last = built.model.scratch.output_conv[4]
        last.weight *= 300
        last.bias *= 300
    return built


def ldm_input(picture: np.ndarray) -> np.ndarray:
    """Return AddMiDaS' output for a picture 0..1; its input is -1..1."""
    return AddMiDaS("dpt_hybrid")({"jpg": torch.from_numpy(picture * np.float32(2) - np.float32(1))})["midas_in"]


def as_ldm_sees_it(picture: np.ndarray) -> np.ndarray:
    """The picture after the way to -1..1 and back, which rounds."""
    return AddMiDaS("dpt_hybrid").pt2np(torch.from_numpy(picture * np.float32(2) - np.float32(1)))


@settings(max_examples=25)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 2**32 - 1))
def test_input_is_that_of_add_midas(width, height, seed):
    # Beyond that their rounding may give a side of 0, at which OpenCV fails.
    assume(max(width, height) <= 20 * min(width, height))
    picture = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    theirs = ldm_input(picture)
    ours = midas_input(as_ldm_sees_it(picture))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    # Straight from 0..1 it differs by that rounding: 2**-24, doubled twice, with the cubic's negative lobes below 1e-6.
    assert np.abs(midas_input(picture) - theirs).max() < 1e-6


def host_conditioning(network: torch.nn.Module, midas_in: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`depth2img_image_conditioning` of the host from `midas_in` on (modules/processing.py, 1.10.1)."""
    conditioning = torch.nn.functional.interpolate(
        network(midas_in), size=(height, width), mode="bicubic", align_corners=False
    )
    (depth_min, depth_max) = torch.aminmax(conditioning)
    return 2.0 * (conditioning - depth_min) / (depth_max - depth_min) - 1.0


def test_conditioning_is_the_hosts(network, photo):
    picture = as_ldm_sees_it(photo)
    theirs = host_conditioning(network, torch.from_numpy(ldm_input(photo))[None], 12, 20)
    depth = MidasEstimator(network, key="k").estimate(picture)
    ours = conditioning([depth], height=12, width=20)
    assert ours.std() > 0.1, "the random network sees something"
    # Same operations on the same numbers in the same order.
    assert torch.equal(ours, theirs)


@pytest.fixture
def strip(photo) -> np.ndarray:
    """float32 (32, 160, 3): MiDaS sees 384 x 64, a quarter of the work."""
    return photo[30:62]


def test_conditioning_of_a_batch_is_the_hosts_of_equal_copies(network, strip):
    """The host runs the network on n copies; a batch may be summed in another order."""
    copies = torch.from_numpy(ldm_input(strip))[None].repeat(2, 1, 1, 1)
    theirs = host_conditioning(network, copies, 4, 20)
    depth = MidasEstimator(network, key="k").estimate(as_ldm_sees_it(strip))
    assert (conditioning([depth] * 2, height=4, width=20) - theirs).abs().max() < 1e-4


def test_half_precision_weights_run_as_if_loaded_in_float32(network, strip):
    """The host's default halves `depth_model`; its own path then fails in OpenCV."""
    exact = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        depth = MidasEstimator(network.half(), key="k").estimate(strip)
        assert network.model.scratch.output_conv[4].weight.dtype == torch.float16
        theirs = host_conditioning(network.float(), torch.from_numpy(midas_input(strip))[None], 4, 20)
        assert torch.equal(conditioning([depth], height=4, width=20), theirs)
    finally:
        network.float().load_state_dict(exact)


@pytest.fixture(scope="module")
def ddpm() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, in the release that the WebUI pins
        import pytorch_lightning.utilities.rank_zero

        # Since Lightning 2 the function is there; ldm asks for it where it was in 2022.
        sys.modules.setdefault("pytorch_lightning.utilities.distributed", pytorch_lightning.utilities.rank_zero)
        return importlib.import_module("ldm.models.diffusion.ddpm")


def test_conditioning_is_that_of_training(ddpm, network, strip):
    """`LatentDepth2ImageDiffusion.get_input`, with the 0.001 that training adds to the range taken out again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(midas, "load_model", lambda _: (network.model, None))
        model = ddpm.LatentDepth2ImageDiffusion(
            depth_stage_config={
                "target": "ldm.modules.midas.api.MiDaSInference",
                "params": {"model_type": "dpt_hybrid"},
            },
            finetune_keys=None,
            timesteps=1000,
            unet_config={"target": "torch.nn.Identity"},
            cond_stage_config={"target": "torch.nn.Identity"},
            cond_stage_key="txt",
            conditioning_key="hybrid",
            first_stage_key="jpg",
            use_ema=False,
            first_stage_config={
                "target": "ldm.models.autoencoder.AutoencoderKL",
                "params": {
                    "embed_dim": 4,
                    "lossconfig": {"target": "torch.nn.Identity"},
                    "ddconfig": {
                        "double_z": True,
                        "z_channels": 4,
                        "resolution": 32,
                        "in_channels": 3,
                        "out_ch": 3,
                        "ch": 32,
                        "ch_mult": [1, 1, 1, 1],
                        "num_res_blocks": 1,
                        "attn_resolutions": [],
                        "dropout": 0.0,
                    },
                },
            },
        )
    pictures = [strip, np.ascontiguousarray(strip[::-1, ::-1]) * np.float32(0.3)]
    batch = {
        "jpg": torch.from_numpy(np.stack(pictures)) * 2 - 1,
        "txt": ["a", "b"],
        "midas_in": torch.from_numpy(np.stack([ldm_input(picture) for picture in pictures])),
    }
    latent, conditions = model.get_input(batch, "jpg")
    (theirs,) = conditions["c_concat"]
    assert theirs.shape == (2, 1, *latent.shape[2:]) == (2, 1, 4, 20)

    maps = [MidasEstimator(model.depth_model, key="k").estimate(as_ldm_sees_it(picture)) for picture in pictures]
    ours = conditioning(maps, height=4, width=20)
    for sample, depth in enumerate(maps):
        low, high = torch.aminmax(
            torch.nn.functional.interpolate(torch.tensor(depth.values)[None, None], size=(4, 20), mode="bicubic")
        )
        span = float(high - low)
        assert span > 1, "far from where the 0.001 would matter"
        assert (ours[sample] - theirs[sample]).abs().max() <= 2 * 0.001 / span + 1e-4
        without = (theirs[sample] + 1) * (span + 0.001) / span - 1
        assert (ours[sample] - without).abs().max() < 1e-4
