"""Forge, reForge and their relatives: which adapter a host gets, and what it does at the host's own seams."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from depth2img import CheckpointError, Depth2ImgError, NoDepthModelError, embedded
from tests.webui_fake import standin
from tests.webui_fake.standin import Host

HERE = Path(__file__).parent
KINDS = ("forge", "reforge")
X = torch.zeros(2, 4, 8, 12)
"""A latent of two pictures."""


@contextlib.contextmanager
def relative(kind: str, folder: Path) -> Iterator[Host]:
    """The stand-in with what makes it a relative, and as `forge` without `ldm`."""
    without = ("ldm", "sgm") if kind == "forge" else ()
    with standin.running(folder, without=without, extra=HERE / kind) as host:
        if kind == "reforge":  # its denoiser calls this by a name of its own
            host.sd_samplers_cfg_denoiser.sampling_function = reforge_step
            STEPS.clear()
        if kind == "forge":  # ersatzForge has removed these; the stand-in's own modules have them already
            for name in ("sd_hijack", "sd_models_config"):
                delattr(sys.modules["modules"], name)
                sys.modules[f"modules.{name}"] = None  # type: ignore[assignment]
        yield host
        host.ours("hosts").HOST.undo()


STEPS: list[Any] = []


def reforge_step(
    model: Any, x: Any, timestep: Any, uncond: Any, cond: Any, cond_scale: float, model_options: Any = None
) -> Any:
    STEPS.append((cond, uncond, cond_scale))
    return x


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(kind: str, tmp_path: Path) -> Iterator[Host]:
    with relative(kind, tmp_path) as started:
        yield started


@pytest.fixture
def bundled(host: Host) -> Any:
    """The bundled model as an entry of the host's list, chosen; nothing is loaded."""
    info = host.add("bundled", dict)
    embedded.install(Path(info.filename))
    host.shared.opts.sd_model_checkpoint = "bundled"
    return info


def jobs(host: Host, at_step: Any = lambda step: None) -> Any:
    """Functions that an adapter calls, with nothing behind it but `at_step`."""

    @contextlib.contextmanager
    def running(p: Any) -> Iterator[None]:
        yield

    def left(original: Any, p: Any, *args: Any, **kwargs: Any) -> Any:
        return original(p, *args, **kwargs)

    return host.ours("hosts.base").Jobs(running, lambda p: True, left, left, at_step)


def engine(kind: str, channels: int, filename: str = "") -> Any:
    """A checkpoint in memory."""
    config = SimpleNamespace(unet_config={"in_channels": channels})
    if kind == "forge":
        return SimpleNamespace(model_config=config, is_inpaint=channels > 4, filename=filename)
    unet = SimpleNamespace(model=SimpleNamespace(model_config=config))
    return SimpleNamespace(forge_objects=SimpleNamespace(unet=unet), filename=filename)


def load(host: Host, model: Any) -> None:
    host.sd_models.model_data.sd_model = model
    host.sd_models.model_data.was_loaded_at_least_once = True


def step(host: Host, given: torch.Tensor, *, uncond: bool = True, scale: float = 5.0, known: bool = True) -> Any:
    """Run one step as the host does. Returns what the UNet gets for the halves, and the sampler's arguments."""
    adapter = host.ours("hosts").HOST
    module = importlib.import_module(adapter.STEP[0])
    extra = {"image_cond": given}
    denoiser = SimpleNamespace(
        p="job", step=3, total_steps=7, init_latent=None, sampler=SimpleNamespace(sampler_extra_args=extra)
    )
    token = host.ours("hosts.sampling").DENOISER.set(denoiser if known else None)
    halves = [{"model_conds": {}}], [{"model_conds": {}}] if uncond else None
    try:
        getattr(module, adapter.STEP[1])(None, X, None, halves[1], halves[0], scale)
    finally:
        host.ours("hosts.sampling").DENOISER.reset(token)
    kept = module.fake_steps if hasattr(module, "fake_steps") else STEPS
    with_prompt, without, _ = kept[-1]
    return with_prompt[0]["model_conds"], without and without[0]["model_conds"], extra


def test_a_host_gets_the_adapter_for_what_it_has(kind: str, host: Host) -> None:
    assert type(host.ours("hosts").HOST).__name__ == {"forge": "Forge", "reforge": "ReForge"}[kind]


def test_the_script_loads_and_registers(host: Host) -> None:
    module = standin.load_script(host)
    assert module.DepthToImage.__name__ == "DepthToImage"
    host.ours("script").unregister()


def test_both_halves_get_their_own_depth(kind: str, host: Host) -> None:
    seen = []
    rows = [torch.full((2, 1, 8, 12), value) for value in (0.9, 0.5, 0.1)]

    def at_step(one: Any) -> Any:
        seen.append(one)
        return host.ours("hosts.base").Halves(*rows)

    adapter = host.ours("hosts").HOST
    adapter.apply(jobs(host, at_step))
    load(host, engine(kind, 5))
    given = torch.full((2, 1, 8, 12), 0.7)
    with_prompt, without, extra = step(host, given)
    assert torch.equal(with_prompt["c_concat"].cond, rows[1]) and torch.equal(without["c_concat"].cond, rows[2])
    assert extra["image_cond"] is rows[0]
    (one,) = seen
    assert (one.p, one.number, one.total, one.cfg_scale) == ("job", 3, 7, 5.0)
    assert one.latent is X and one.given is given


def test_a_step_without_the_negative_half(kind: str, host: Host) -> None:
    """At CFG 1, and where the host skips the half, there is none."""
    scales = []
    host.ours("hosts").HOST.apply(jobs(host, lambda one: scales.append(one.cfg_scale)))
    load(host, engine(kind, 5))
    given = torch.full((2, 1, 8, 12), 0.7)
    with_prompt, without, _ = step(host, given, uncond=False, scale=1.0)
    assert torch.equal(with_prompt["c_concat"].cond, given) and without is None and scales == [1.0]


@pytest.mark.parametrize("shape", [(1, 1, 8, 12), (2, 1, 8, 11), (2, 5, 1, 1)])
def test_depth_that_does_not_fit_is_not_dropped_in_silence(kind: str, host: Host, shape: tuple[int, ...]) -> None:
    host.ours("hosts").HOST.apply(jobs(host))
    load(host, engine(kind, 5))
    with pytest.raises(Depth2ImgError, match="does not fit the latent"):
        step(host, torch.zeros(shape))


def test_a_step_of_nobody_knows_which_job(kind: str, host: Host) -> None:
    host.ours("hosts").HOST.apply(jobs(host))
    load(host, engine(kind, 5))
    with pytest.raises(Depth2ImgError, match="does not tell which job"):
        step(host, torch.zeros(2, 1, 8, 12), known=False)


def test_other_checkpoints_are_left_alone(kind: str, host: Host) -> None:
    host.ours("hosts").HOST.apply(jobs(host, lambda one: pytest.fail("asked")))
    load(host, engine(kind, 4))
    with_prompt, without, _ = step(host, torch.zeros(2, 5, 1, 1))
    assert with_prompt == without == {}


def test_forge_is_told_that_a_depth_checkpoint_is_no_inpainting_model(tmp_path: Path) -> None:
    with relative("forge", tmp_path) as host:
        host.ours("hosts").HOST.apply(jobs(host))
        (loaded,) = host.script_callbacks.fake_of("model_loaded")
        for channels, is_inpaint in ((5, False), (9, True), (4, False)):
            model = engine("forge", channels)
            loaded(model)
            assert model.is_inpaint is is_inpaint


def test_a_checkpoint_that_is_loaded_already_is_told_too(tmp_path: Path) -> None:
    """Reload UI registers again while the checkpoint stays."""
    with relative("forge", tmp_path) as host:
        load(host, engine("forge", 5))
        host.ours("hosts").HOST.apply(jobs(host))
        assert host.sd_models.model_data.sd_model.is_inpaint is False


def test_the_selected_checkpoint_is_known_by_its_header(host: Host, bundled: Any) -> None:
    adapter = host.ours("hosts").HOST
    assert adapter.known() is adapter.ready() is bundled and adapter.is_depth(bundled) and adapter.selected_is_depth()
    assert host.ours("page.status").status() == ("ready", "Ready: bundled.")
    assert host.sd_models.fake_loads == []
    other = host.add("other", dict)
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}, other.filename)
    assert not adapter.is_depth(other) and not adapter.is_depth(None) and not adapter.is_depth(SimpleNamespace())


def test_the_depth_network_comes_from_the_file(host: Host, bundled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from depth2img.diffusion.networks import build_estimator

    adapter = host.ours("hosts").HOST
    picture = np.linspace(0, 1, 64 * 96 * 3, dtype=np.float32).reshape(64, 96, 3)
    estimator = adapter.own_estimator(bundled)
    own = build_estimator(embedded.open_embedded(), device=torch.device("cpu")).estimate(picture)
    # The installed file keeps the weights' type, so that nothing differs but the order of sums.
    np.testing.assert_allclose(estimator.estimate(picture).values, own.values, rtol=1e-4, atol=1e-5)
    assert adapter.own_estimator(bundled) is estimator
    plain = host.add("plain", dict)
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}, plain.filename)
    with pytest.raises(NoDepthModelError, match="'plain'"):
        adapter.own_estimator(plain)
    monkeypatch.setattr("depth2img.diffusion.networks.build_estimator", lambda *_, **__: pytest.fail("read again"))
    assert adapter.own_estimator(bundled) is estimator


def test_a_checkpoint_in_memory_is_estimated_by_its_entry_in_the_list(kind: str, host: Host, bundled: Any) -> None:
    """ersatzForge's has no file name of its own."""
    model = engine(kind, 5)
    del model.filename
    model.sd_checkpoint_info = bundled
    adapter = host.ours("hosts").HOST
    assert adapter.own_estimator(model) is adapter.own_estimator(bundled)


def test_a_file_without_midas_says_so(host: Host, bundled: Any) -> None:
    path = Path(bundled.filename)
    weights = {key: value for key, value in load_file(path).items() if not key.startswith("depth_model.")}
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"no depth_model weights \(MiDaS\).*models/midas"):
        host.ours("hosts").HOST.own_estimator(bundled)


def test_the_bundled_models_sizes_are_known_while_the_extension_is_there(kind: str, host: Host) -> None:
    adapter = host.ours("hosts").HOST
    module = importlib.import_module(adapter.MODELS)
    published = list(module.models)
    adapter.apply(jobs(host))
    adapter.apply(jobs(host))
    ours, *others = module.models
    assert others == published and issubclass(ours, module.SD20)
    assert ours.unet_config == {"model_channels": 64, "context_dim": 96, "use_linear_in_transformer": True}
    assert ours.unet_extra_config == {"num_heads": -1, "num_head_channels": 32}
    assert ours().latent_format().scale_factor == pytest.approx(0.27058, abs=1e-5)
    if kind == "forge":
        folder = Path(ours.huggingface_repo)
        assert '"block_out_channels": [64, 64, 64, 64]' in (folder / "vae" / "config.json").read_text()
        assert '"hidden_size": 96' in (folder / "text_encoder" / "config.json").read_text()
        assert (folder / "tokenizer" / "vocab.json").is_file()
    adapter.undo()
    assert module.models == published
    assert kind != "forge" or not folder.exists()


def test_everything_is_given_back(host: Host) -> None:
    adapter = host.ours("hosts").HOST
    step_module = importlib.import_module(adapter.STEP[0])

    def patched() -> list[Any]:
        kind = host.processing.StableDiffusionProcessing
        found = [getattr(step_module, adapter.STEP[1]), host.processing.process_images_inner]
        found += [host.sd_samplers_cfg_denoiser.CFGDenoiser.forward, kind.img2img_image_conditioning]
        return [*found, kind.txt2img_image_conditioning]

    before = patched()
    adapter.apply(jobs(host))
    adapter.apply(jobs(host))
    assert not any(one is other for one, other in zip(patched(), before, strict=True))
    adapter.undo()
    adapter.undo()
    assert patched() == before


def test_reforge_builds_no_midas_and_needs_no_file(tmp_path: Path) -> None:
    with relative("reforge", tmp_path) as host:
        host.ours("hosts").HOST.apply(jobs(host))
        host.add("depth", lambda: standin.state_dict(5, midas=True))
        host.shared.opts.sd_model_checkpoint = "depth"
        model = host.sd_models.load_model()
        assert isinstance(model.depth_model.model, torch.nn.Identity)
        loader = importlib.import_module("modules_forge.forge_loader")
        assert loader.find_checkpoint_config.__module__ == "depth2img_webui.hosts.loader"


def test_reforges_autoencoder_has_the_sizes_of_the_file(tmp_path: Path) -> None:
    with relative("reforge", tmp_path) as host:
        host.ours("hosts").HOST.apply(jobs(host))
        loader = importlib.import_module("modules_forge.forge_loader")

        def config_of(width: int) -> Any:
            return loader.VAE(sd={"decoder.conv_in.weight": torch.zeros(width, 4, 3, 3)}, metadata=None).fake_config

        assert config_of(512) is None and loader.VAE(sd={}).fake_config is None
        sizes = config_of(64)["params"]
        assert sizes["embed_dim"] == 4
        assert {"ch": 64, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1}.items() <= sizes["ddconfig"].items()


@pytest.mark.parametrize(("penultimate", "layers", "layer"), [(False, 2, "last"), (True, 3, "hidden")])
def test_reforges_text_encoder_has_the_sizes_of_the_file(
    tmp_path: Path, penultimate: bool, layers: int, layer: str
) -> None:
    import dataclasses

    with relative("reforge", tmp_path) as host:
        config = dataclasses.replace(embedded.read_config(), penultimate=penultimate)
        host.ours("hosts").HOST.register_sizes(config, tmp_path)
        models = importlib.import_module("ldm_patched.modules.supported_models").models
        encoder = models[0]().clip_target().clip(device="cpu", dtype=torch.float32)
        options = encoder.clip_h.fake_options
        assert options["layer"] == layer and options["dtype"] == torch.float32
        assert options["textmodel_json_config"]["hidden_size"] == 96
        assert options["textmodel_json_config"]["num_hidden_layers"] == layers


def test_weights_of_8_bits_do_not_make_conditioning_of_8_bits(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.devices, "dtype_unet", torch.float8_e4m3fn)
    assert host.ours("hosts.compat").conditioning_dtype() is torch.float32
    monkeypatch.setattr(host.devices, "dtype_unet", torch.bfloat16)
    assert host.ours("hosts.compat").conditioning_dtype() is torch.bfloat16
