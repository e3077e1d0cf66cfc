"""The registry, MiDaS' transform and how a network is run."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from depth2img import DepthOptions, EstimatorError, MidasEstimator, PictureError, adjust
from depth2img.estimators import base
from depth2img.estimators.devices import ON_CPU, in_float32
from depth2img.estimators.midas import LONGEST_SIDE, midas_input, midas_size
from depth2img.gui.view import describe


def autocast_is_on() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch 2.1
        return torch.is_autocast_cpu_enabled()


class Net(nn.Module):
    """A seeded network with MiDaS' interface: two convolutions, a normalisation with buffers, output (1, h, w)."""

    def __init__(self, *, channel: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean += 0.123
        self.last = nn.Conv2d(4, 1, 1)
        self.channel = channel
        self.seen: list[tuple[torch.Tensor, torch.dtype, bool]] = []
        self.recorded: list[bool] = []
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((x, self.first.weight.dtype, autocast_is_on()))
        out = self.last(torch.relu(self.norm(self.first(x))))
        self.recorded.append(out.requires_grad)
        return out if self.channel else out[:, 0]


def snapshot(net: nn.Module) -> dict[str, tuple[int, int, torch.dtype, bytes]]:
    """Identity, memory, type and bits of every tensor of a network."""
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    return {
        name: (id(t), t.data_ptr(), t.dtype, t.detach().contiguous().view(torch.uint8).numpy().tobytes())
        if t.dim()
        else (id(t), t.data_ptr(), t.dtype, bytes(str(t.item()), "ascii"))
        for name, t in tensors.items()
    }


# --- registry ----------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", {})


@pytest.mark.usefixtures("registry")
def test_registry():
    made = []
    estimator = MidasEstimator(Net(), key="a")
    base.register_estimator("one", lambda: made.append("one") or estimator)
    base.register_estimator("two", lambda: made.append("two") or estimator)
    assert base.names() == ("one", "two")
    assert made == [], "nothing is loaded before it is asked for"
    assert base.get("two") is estimator
    assert made == ["two"]


@pytest.mark.usefixtures("registry")
def test_a_taken_name_changes_nothing():
    first, second = MidasEstimator(Net(), key="a"), MidasEstimator(Net(), key="b")
    base.register_estimator("one", lambda: first)
    with pytest.raises(EstimatorError, match="already is an estimator 'one'"):
        base.register_estimator("one", lambda: second)
    assert base.get("one") is first
    base.register_estimator("one", lambda: second, replace=True)
    assert base.get("one") is second


@pytest.mark.usefixtures("registry")
def test_an_unknown_name():
    with pytest.raises(EstimatorError, match=r"no depth estimator 'x'\. Registered are: none"):
        base.get("x")
    base.register_estimator("one", lambda: MidasEstimator(Net(), key="a"))
    with pytest.raises(EstimatorError, match="Registered are: one"):
        base.get("x")


# --- the transform -----------------------------------------------------------------------------------------------


def original_size(width: int, height: int) -> tuple[int, int]:
    """`Resize.get_size`, "minimal", 384, multiple of 32 (ldm/modules/midas/midas/transforms.py)."""
    scale_height, scale_width = 384 / height, 384 / width
    if abs(1 - scale_width) < abs(1 - scale_height):
        scale_height = scale_width
    else:
        scale_width = scale_height
    return int(np.round(scale_width * width / 32) * 32), int(np.round(scale_height * height / 32) * 32)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((512, 512), (384, 384)),
        ((768, 512), (576, 384)),
        ((512, 768), (384, 576)),
        ((1024, 512), (768, 384)),
        ((640, 480), (512, 384)),
        ((1920, 1080), (672, 384)),
        ((1536, 640), (928, 384)),
        ((256, 256), (384, 384)),
        ((64, 512), (64, 384)),
        ((100, 768), (64, 384)),
        ((1, 1), (384, 384)),
    ],
)
def test_sizes_seen_on_the_host(size, wanted):
    assert midas_size(*size) == wanted


@given(st.integers(1, 9000), st.integers(1, 9000))
@example(2048, 64)
@example(64, 2048)
@example(384, 384)
@example(9000, 1)
def test_size_is_the_original_wherever_that_is_sound(width, height):
    wanted = original_size(width, height)
    result = midas_size(width, height)
    for side, original in zip(result, wanted, strict=True):
        assert side % 32 == 0
        assert 32 <= side <= LONGEST_SIDE
        assert side == min(max(original, 32), LONGEST_SIDE)


@pytest.mark.parametrize(("width", "height"), [(2048, 64), (64, 2048), (4096, 16), (1, 700), (65_535, 1)])
def test_extreme_proportions_survive(width, height):
    picture = np.linspace(0, 1, width * height * 3, dtype=np.float32).reshape(height, width, 3)
    values = midas_input(picture)
    assert values.shape == (3, *midas_size(width, height)[::-1])
    assert min(values.shape) > 0
    assert np.isfinite(values).all()


def test_input_formula(photo):
    values = midas_input(photo)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert values.shape == (3, 224, 384)
    resized = cv2.resize(photo, (384, 224), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    np.testing.assert_array_equal(values, ((resized - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32))


def test_input_is_not_clipped():
    edge = np.zeros((60, 90, 3), np.float32)
    edge[:, 45:] = 1
    values = midas_input(edge)
    assert values.min() < -1
    assert values.max() > 1


# --- running a network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [False, True])
def test_map_is_the_networks_output(photo, channel):
    net = Net(channel=channel)
    depth = MidasEstimator(net, key="k", name="Tiny").estimate(photo)
    with torch.no_grad():
        wanted = net(torch.from_numpy(midas_input(photo))[None])
    np.testing.assert_array_equal(depth.values, wanted.reshape(224, 384).numpy())
    assert (depth.width, depth.height, depth.origin) == (384, 224, "Tiny")


def test_eight_bit_picture_is_the_same_picture(colours):
    estimator = MidasEstimator(Net(), key="k")
    np.testing.assert_array_equal(
        estimator.estimate(colours).values, estimator.estimate((colours / 255.0).astype(np.float32)).values
    )


def test_key():
    assert MidasEstimator(Net(), key="model.ckpt|1").key == "model.ckpt|1"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_run_in_float32_and_come_back_bit_for_bit(photo, dtype):
    net = Net().to(dtype)
    before = snapshot(net)
    depth = MidasEstimator(net, key="k").estimate(photo)
    (seen, weight_dtype, _) = net.seen[0]
    assert (seen.dtype, weight_dtype) == (torch.float32, torch.float32)
    assert snapshot(net) == before
    with torch.no_grad():
        wanted = net.float().forward(torch.from_numpy(midas_input(photo))[None])
    np.testing.assert_array_equal(depth.values, wanted[0].numpy())


def test_float32_weights_are_not_copied(photo):
    net = Net()
    before = snapshot(net)
    places = []
    net.first.register_forward_pre_hook(lambda module, _: places.append(module.weight.data_ptr()))
    MidasEstimator(net, key="k").estimate(photo)
    assert places == [before["first.weight"][1]]
    assert snapshot(net) == before


def test_mixed_precision_and_tied_weights(photo):
    net = Net()
    net.last.half()
    net.tied = net.last.weight
    before = snapshot(net)
    assert np.isfinite(MidasEstimator(net, key="k").estimate(photo).values).all()
    assert snapshot(net) == before
    assert net.tied is net.last.weight


def test_weights_come_back_after_a_failure(photo):
    net = Net().half()
    before = snapshot(net)
    net.last.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel for\nthis")))
    with pytest.raises(EstimatorError, match=r"depth network of MiDaS failed\. Got RuntimeError: no kernel for\. "):
        MidasEstimator(net, key="k").estimate(photo)
    assert snapshot(net) == before
    assert len(net.seen) == 1, "only a lack of memory is worth a second attempt"


def failing(net: nn.Module, problems: list[Exception]) -> None:
    """Makes the network raise these, one per run, before it runs as ever."""

    def hook(*_: object) -> None:
        if problems:
            raise problems.pop(0)

    net.last.register_forward_pre_hook(hook)


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
]


@pytest.mark.parametrize("problem", OUT_OF_MEMORY, ids=["CUDA", "MPS"])
def test_without_memory_on_the_card_the_cpu_estimates(photo, problem):
    net = Net().half()
    before = snapshot(net)
    estimator = MidasEstimator(net, key="k")
    wanted = estimator.estimate(photo)
    failing(net, [problem])
    depth = estimator.estimate(photo)
    assert depth.notice == ON_CPU and wanted.notice == ""
    assert describe(depth).endswith(ON_CPU)
    np.testing.assert_array_equal(depth.values, wanted.values)
    assert snapshot(net) == before
    assert estimator.estimate(photo).notice == "", "the next one is tried on the card again"


@pytest.mark.parametrize("second", [*OUT_OF_MEMORY, MemoryError(), ValueError("shape")])
def test_the_cpu_is_tried_once(photo, second):
    net = Net().half()
    before = snapshot(net)
    failing(net, [torch.cuda.OutOfMemoryError("CUDA out of memory"), second, ValueError("a third time")])
    with pytest.raises(EstimatorError, match=type(second).__name__):
        MidasEstimator(net, key="k").estimate(photo)
    assert len(net.seen) == 2 and snapshot(net) == before


def test_the_first_attempt_is_let_go_before_the_second(photo):
    """Else what it had made would still fill the card."""
    net, kept = Net(), []
    alive: list[bool] = []

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if not kept:
            kept.append(weakref.ref(args[0]))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        alive.append(kept[0]() is not None)

    net.last.register_forward_pre_hook(hook)
    MidasEstimator(net, key="k").estimate(photo)
    assert alive == [False]


def test_a_notice_survives_what_is_done_to_a_map(photo):
    net = Net()
    failing(net, [torch.cuda.OutOfMemoryError("CUDA out of memory")])
    depth = MidasEstimator(net, key="k").estimate(photo)
    assert adjust(depth.resized(40, 30), DepthOptions(near=0.5)).cropped(1, 2, 9, 9).notice == ON_CPU


def test_autocast_is_off_inside_and_on_again_outside(photo):
    net = Net()
    plain = MidasEstimator(net, key="k").estimate(photo)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = MidasEstimator(net, key="k").estimate(photo)
        assert autocast_is_on()
        assert net(torch.zeros(1, 3, 32, 32)).dtype == torch.bfloat16, "the test's own autocast works"
    assert [autocast for _, _, autocast in net.seen[:2]] == [False, False]
    np.testing.assert_array_equal(plain.values, under.values)


def test_hooks_of_the_network_do_not_run(photo):
    """The host's low-memory mode moves weights in a hook of `depth_model`, away from where we look for them."""
    net, ran = Net(), []
    net.register_forward_pre_hook(lambda *_: ran.append("before"))
    net.register_forward_hook(lambda *_: ran.append("after"))
    MidasEstimator(net, key="k").estimate(photo)
    assert ran == []


def test_nothing_is_recorded_for_training(photo):
    net = Net()
    MidasEstimator(net, key="k").estimate(photo)
    assert torch.is_grad_enabled()
    assert net.recorded == [False]


def test_one_network_at_a_time(photo):
    """DPT keeps its activations in one dict for all instances."""
    busy: list[int] = []

    class Slow(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            busy.append(1)
            assert len(busy) == 1
            time.sleep(0.02)
            out = super().forward(x)
            busy.pop()
            return out

    networks = [MidasEstimator(Slow(), key="a"), MidasEstimator(Slow(), key="b")]
    barrier = threading.Barrier(4)

    def work(index: int) -> np.ndarray:
        barrier.wait()
        return networks[index % 2].estimate(photo).values

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert all(np.array_equal(results[0], other) for other in results)


class Returns(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.output = output

    def forward(self, x: torch.Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "returned no depth map. Got NoneType"),
        ([torch.ones(1, 4, 6)], "returned no depth map. Got list"),
        (torch.ones(4, 6), r"returned no depth map. Got shape \(4, 6\)"),
        (torch.ones(2, 1, 4, 6), r"returned no depth map. Got shape \(2, 1, 4, 6\)"),
        (torch.ones(1, 3, 4, 6), r"returned no depth map. Got shape \(1, 3, 4, 6\)"),
        (torch.ones(1, 1, 0, 6), r"returned no depth map. Got shape \(1, 1, 0, 6\)"),
        (torch.full((1, 4, 6), float("nan")), "NaN or infinity"),
        (torch.full((1, 4, 6), float("inf")), "NaN or infinity"),
        (torch.full((1, 4, 6), 1e31), "NaN or infinity"),
    ],
)
def test_what_is_no_depth_map(photo, output, message):
    with pytest.raises(EstimatorError, match=message):
        MidasEstimator(Returns(output), key="k").estimate(photo)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_output_of_any_floating_type(photo, dtype):
    depth = MidasEstimator(Returns(torch.arange(24.0).reshape(1, 4, 6).to(dtype)), key="k").estimate(photo)
    np.testing.assert_array_equal(depth.values, np.arange(24.0).reshape(4, 6))


def test_no_weights(photo):
    with pytest.raises(EstimatorError, match=r"not on one device\. Got no weights"):
        MidasEstimator(nn.ReLU(), key="k").estimate(photo)


def test_weights_that_were_never_loaded(photo):
    with pytest.raises(EstimatorError, match=r"not on one device\. Got meta"):
        MidasEstimator(Net().to("meta"), key="k").estimate(photo)


def test_weights_on_two_devices(photo):
    net = Net()
    net.last.to("meta")
    before = {name: tensor.device for name, tensor in net.named_parameters()}
    with pytest.raises(EstimatorError, match="Got cpu, meta"):
        MidasEstimator(net, key="k").estimate(photo)
    assert {name: tensor.device for name, tensor in net.named_parameters()} == before


@pytest.mark.parametrize("picture", [np.ones((4, 6), np.float32), np.ones((4, 6, 3)), np.ones((0, 6, 3), np.float32)])
def test_what_is_no_picture(picture):
    net = Net()
    with pytest.raises(PictureError):
        MidasEstimator(net, key="k").estimate(picture)
    assert net.seen == []


def test_in_float32_nests():
    net = Net().half()
    before = snapshot(net)
    with in_float32(net), in_float32(net) as device:
        assert device == torch.device("cpu")
        assert net.first.weight.dtype == torch.float32
    assert snapshot(net) == before
