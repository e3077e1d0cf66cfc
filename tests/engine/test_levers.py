"""Levers for a graphics card, as far as a CPU can tell: pictures stay, memory comes back, nothing is on by itself."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from depth2img import Depth2ImgError, OptionError
from depth2img.diffusion import Engine, Settings, berth, levers, load, replay, sampling, text
from depth2img.diffusion.job import Job
from depth2img.diffusion.networks import Networks, build
from depth2img.estimators.devices import without_tf32
from tests.engine import small

CPU = torch.device("cpu")


@pytest.fixture
def networks() -> Networks:
    """Of its own for each test: levers change them in place."""
    made = build(small.model(), device=CPU, dtype=torch.float32)
    for name in ("unet", "vae", "text_encoder"):  # `small` shares its modules
        getattr(made, name).load_state_dict({k: v.clone() for k, v in getattr(made, name).state_dict().items()})
    return made


def pictures(networks: Networks, prompt: str = "a red box") -> np.ndarray:
    rng = np.random.default_rng(4)
    given = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(2)]
    settings = Settings(prompt, steps=3, denoising_strength=1.0, width=96, height=64)
    return np.stack([one.picture for one in Engine(networks).generate(given, settings)]).astype(int)


def record(run: Any, inputs: tuple[torch.Tensor, ...]) -> replay.Recording:
    """Imitate a CUDA graph, which reads and writes fixed tensors."""
    kept = tuple(one.clone() for one in inputs)
    output = run(*kept).clone()
    return replay.Recording(lambda: output.copy_(run(*kept)), kept, output)


def test_nothing_is_tuned_on_a_cpu(networks: Networks) -> None:
    assert levers.tuned(networks) is networks
    assert levers.tuned(dataclasses.replace(networks, device=torch.device("cuda"))).unet.unet is networks.unet
    assert not levers.is_cuda(CPU) and not levers.is_cuda(torch.device("mps"))


def test_a_replayed_model_makes_the_same_pictures(networks: Networks) -> None:
    expected = pictures(networks)
    made = pictures(dataclasses.replace(networks, unet=replay.Replayed(networks.unet, record)))
    assert np.array_equal(made, expected)
    assert expected.std() > 10


@pytest.mark.parametrize(
    ("cuda", "rows", "passes"), [(False, None, [1, 1, 1]), (True, None, [2, 1]), (True, 2, [2, 2])]
)
def test_on_a_card_depth_is_estimated_together(
    networks: Networks, monkeypatch: pytest.MonkeyPatch, cuda: bool, rows: int | None, passes: list[int]
) -> None:
    """Two pictures of one size and one of another; not filled up, but where rows are asked for."""
    rng = np.random.default_rng(4)
    plain = Settings("a red box", steps=1, denoising_strength=1.0, height=64)
    jobs = [
        Job(rng.integers(0, 256, (64, width, 3), np.uint8), dataclasses.replace(plain, width=width))
        for width in (128, 64, 128)
    ]
    expected = Engine(networks).run(jobs)
    seen: list[int] = []
    forward = networks.estimator.network.forward

    def counted(picture: torch.Tensor) -> torch.Tensor:
        seen.append(len(picture))
        found: torch.Tensor = forward(picture)
        return found

    monkeypatch.setattr(networks.estimator.network, "forward", counted)
    monkeypatch.setattr(levers, "is_cuda", lambda device: cuda)
    made = Engine(networks).run(jobs, rows=rows)
    assert seen == passes
    for one, other in zip(made, expected, strict=True):
        # Sums in another order: fp32 of a dozen layers.
        assert torch.allclose(one.conditioning, other.conditioning, atol=1e-3)
        assert float(one.conditioning.std()) > 0.1


class Counting(nn.Module):
    """A UNet that counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, latents: Any, timestep: Any, encoder_hidden_states: Any, return_dict: bool) -> Any:
        self.runs += 1
        return (latents * timestep + encoder_hidden_states.mean(),)


def asked(unet: replay.Replayed, value: float, rows: int = 1) -> torch.Tensor:
    return unet(torch.full((rows, 2), value), torch.tensor(3.0), encoder_hidden_states=torch.ones(rows, 4)).sample


def test_calls_are_recorded_once_per_shape() -> None:
    recorded: list[torch.Size] = []

    def watched(run: Any, inputs: Any) -> replay.Recording:
        recorded.append(inputs[0].shape)
        return record(run, inputs)

    unet = replay.Replayed(Counting(), watched)
    results = [asked(unet, value) for value in (1.0, 2.0, 5.0)]
    # Each result is its own, not the place that the next one is written to.
    assert [float(one[0, 0]) for one in results] == [4.0, 7.0, 16.0]
    assert recorded == [(1, 2)]
    asked(unet, 1.0, rows=2)
    assert recorded == [(1, 2)], "the first call of a shape runs as usual"
    asked(unet, 1.0, rows=2)
    assert recorded == [(1, 2), (2, 2)]
    unet.forget()
    assert float(asked(unet, 7.0)[0, 0]) == 22.0 and len(recorded) == 2


def test_recordings_are_few() -> None:
    unet = replay.Replayed(Counting(), record)
    for rows in range(1, 8):
        for _ in range(2):
            asked(unet, 1.0, rows)
    assert len(unet._recordings) == replay.MOST


def test_a_full_card_gives_recordings_up_first() -> None:
    full = [torch.cuda.OutOfMemoryError("CUDA out of memory")]

    def tight(run: Any, inputs: Any) -> replay.Recording:
        if full and inputs[0].shape[0] == 2:
            raise full.pop()
        return record(run, inputs)

    unet = replay.Replayed(Counting(), tight)
    for rows in (1, 1, 2, 2):
        made = asked(unet, 2.0, rows)
    assert float(made[1, 1]) == 7.0 and not full
    assert [key[0] for key in unet._recordings] == [(2, 2)]


def test_lack_of_memory_while_sampling_gives_recordings_up(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = replay.Replayed(networks.unet, record)
    engine = dataclasses.replace(networks, unet=unet)
    pictures(engine)
    assert unet._recordings

    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sampling, "decode", full)
    with pytest.raises(Depth2ImgError, match=r"not enough memory on the device.*low memory"):
        pictures(engine)
    assert not unet._recordings


def test_with_low_memory_one_network_at_a_time_is_on_the_card(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pictures(networks)
    networks.texts.clear()
    guests: list[str] = []
    clear = berth.Berth.clear

    def cleared(self: berth.Berth) -> None:
        if self.guest is not None:
            guests.append(type(self.guest).__name__)
        clear(self)

    monkeypatch.setattr(berth.Berth, "clear", cleared)
    visiting = berth.visiting(networks, CPU)
    assert np.array_equal(pictures(visiting), expected)
    assert guests == ["DptNetwork", "AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"]
    assert visiting.vae.use_tiling and visiting.vae.tile_latent_min_size == 64


def test_a_network_that_does_not_fit_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    place, network = berth.Berth(torch.device("meta")), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    before = [value.data_ptr() for value in network.parameters()]
    moved = torch.Tensor.to

    def full(self: torch.Tensor, *how: Any, **more: Any) -> torch.Tensor:
        if tuple(self.shape) == (4, 3):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return moved(self, "cpu", copy=True)

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        place.take(network)
    assert [value.data_ptr() for value in network.parameters()] == before
    assert place.guest is None


def test_prompts_are_encoded_once_for_an_engine(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    forward = networks.text_encoder.forward

    def counted(ids: torch.Tensor) -> Any:
        encoded.append(len(ids))
        return forward(ids)

    monkeypatch.setattr(networks.text_encoder, "forward", counted)
    first = pictures(networks)
    assert encoded == [1, 1], "the prompt of both pictures, and the negative one"
    assert np.array_equal(pictures(networks), first) and len(encoded) == 2
    pictures(networks, "a blue box")
    assert len(encoded) == 3
    for number in range(text.MOST_TEXTS + 3):
        [tokens] = text.read_passes(Settings(prompt=str(number)), {})
        text.encode_text(text.Encoder(networks), tokens)
    assert len(networks.texts) == text.MOST_TEXTS
    assert tokens.negative.chunks[0][0].tokens in {chunk[0] for chunk, _ in networks.texts}


def test_tf32_is_off_only_within() -> None:
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [one.allow_tf32 for one in settings]
    try:
        for one in settings:
            one.allow_tf32 = True
        with without_tf32(torch.device("cuda")):
            assert not any(one.allow_tf32 for one in settings)
        assert all(one.allow_tf32 for one in settings)
        with without_tf32(CPU):
            assert all(one.allow_tf32 for one in settings)
    finally:
        for one, allowed in zip(settings, before, strict=True):
            one.allow_tf32 = allowed


def test_compiling_and_low_memory_exclude_each_other() -> None:
    with pytest.raises(OptionError, match="cannot leave the card"):
        load("tiny", device="cpu", compiled=True, low_memory=True)


def test_compiling_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: asked_for.append({type(self).__name__: how}))
    load("tiny", device="cpu")
    assert not asked_for
    load("tiny", device="cpu", compiled=True)
    assert asked_for == [{"UNet2DConditionModel": {"dynamic": False}}]


def test_command_line_with_low_memory(run: Any, tmp_path: Any) -> None:
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(tmp_path / "a.png")
    for name, flags in (("plain.png", []), ("low.png", ["--low-memory"])):
        done = run("generate", "a.png", "-o", name, "-p", "a red cube", "--steps", 2, *flags)
        assert done.code == 0, done.err
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "low.png").read_bytes()
    both = run("generate", "a.png", "-o", "b.png", "--compile", "--low-memory")
    assert both.code == 2 and "cannot leave the card" in both.err


def test_graphs_share_a_pool_as_long_as_one_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses to record into a pool whose graphs are all gone."""
    pools: list[Any] = []

    class Graph:
        def replay(self) -> None:
            pass

        def pool(self) -> tuple[int, int]:
            return 0, 7

    @contextlib.contextmanager
    def graph(_: Graph, *, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        pools.append(pool)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    unet = replay.Replayed(Counting())
    for rows in (1, 1, 2, 2):
        asked(unet, 1.0, rows)
    unet.forget()
    for _ in range(2):
        asked(unet, 1.0)
    assert pools == [None, (0, 7), None]
