"""Start the stand-in for the WebUI, a new one for each test, and run jobs on it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).parent / "host"
OURS = ("modules", "ldm", "depth2img_webui", "modules_forge", "backend", "huggingface_guess", "ldm_patched")
"""Packages that exist only while a test runs; `ldm` may also be installed for other tiers."""

WEIGHTS = (0.5, 0.3, 0.2)
"""Red, green and blue in the depth network, which is one 1 x 1 convolution: brighter is nearer."""

FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
MARK = "depth_model.model.pretrained.act_postprocess3.0.project.0.bias"
"""The tensor by which the host recognises a depth checkpoint."""


def depth_weights() -> dict[str, torch.Tensor]:
    return {
        MARK: torch.zeros(1),
        "depth_model.model.pretrained.weight": torch.tensor(WEIGHTS).reshape(1, 3, 1, 1),
        "depth_model.model.pretrained.bias": torch.tensor([0.7]),
    }


def state_dict(channels: int, *, midas: bool) -> dict[str, torch.Tensor]:
    return {FIRST_CONVOLUTION: torch.zeros(4, channels, 3, 3), **(depth_weights() if midas else {})}


class Loader(importlib.machinery.SourceFileLoader):
    """Compile a file once, since every test imports it again."""

    compiled: ClassVar[dict[str, CodeType]] = {}

    def get_code(self, fullname: str) -> CodeType:
        if self.path not in self.compiled:
            self.compiled[self.path] = super().get_code(fullname)
        return self.compiled[self.path]


class Finder:
    """Finds `OURS` as usual, for `Loader` to load."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] not in OURS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


class Host:
    """The stand-in while one test runs.

    Attributes:
        folder: where checkpoints lie and pictures are saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> ModuleType:
        """A module of the host, by its name under `modules`."""
        return importlib.import_module(f"modules.{name}")

    def ours(self, name: str) -> ModuleType:
        """A module of the adapter."""
        return importlib.import_module(f"depth2img_webui.{name}")

    @property
    def midas(self) -> ModuleType:
        return importlib.import_module("ldm.modules.midas.api")

    def add(self, name: str, make: Callable[[], dict[str, Any]], yaml: str | None = None) -> Any:
        """Put a checkpoint into the host's list; its state dict is made whenever it is read."""
        path = self.folder / f"{name}.safetensors"
        path.write_bytes(b"")
        if yaml is not None:
            path.with_suffix(".yaml").write_text(yaml)
        info = self.sd_models.CheckpointInfo(str(path))
        info.register()
        self.sd_models.fake_files[str(path)] = make
        return info

    def select(self, name: str) -> None:
        """Choose in the drop-down: the setting changes, and the weights are loaded; back to the old one on failure."""
        before = self.shared.opts.sd_model_checkpoint
        self.shared.opts.sd_model_checkpoint = name
        try:
            self.sd_models.reload_model_weights()
        except BaseException:
            self.shared.opts.sd_model_checkpoint = before
            raise

    @property
    def model(self) -> Any:
        return self.shared.sd_model

    @property
    def seen(self) -> list[torch.Tensor]:
        """The conditioning at each step of the loaded checkpoint's UNet, all rows."""
        return self.model.model.seen

    @property
    def reported(self) -> list[str]:
        """Return the exceptions that the host has swallowed."""
        return self.errors.fake_reported

    def count_estimates(self) -> list[tuple[int, ...]]:
        """A list that grows by the shape of each input of the loaded checkpoint's depth network."""
        runs: list[tuple[int, ...]] = []
        network = self.model.depth_model
        inner = network.forward

        def forward(x: torch.Tensor) -> Any:
            runs.append(tuple(x.shape))
            return inner(x)

        network.forward = forward
        return runs

    def runner(self, is_img2img: bool) -> Any:
        """A script runner with the extension in it, as the host makes one for each tab."""
        runner = self.scripts.ScriptRunner()
        runner.fake_add(self.ours("script").DepthToImage(), is_img2img)
        return runner

    def img2img(self, *pictures: Image.Image, args: tuple[Any, ...] = (), **fields: Any) -> Any:
        """A job, not yet run: 96 x 64."""
        fields = {"width": 96, "height": 64, **fields}
        p = self.processing.StableDiffusionProcessingImg2Img(init_images=list(pictures), **fields)
        p.scripts, p.script_args = self.runner(True), (0, *args)
        return p

    def batch(self, p: Any, pictures: Any, masks: str = "") -> Any:
        """Run a job of the Batch tab over a folder, or over uploads."""
        self.scripts.scripts_img2img = p.scripts
        return importlib.import_module("modules.img2img").process_batch(p, pictures, "", masks, p.script_args)

    def txt2img(self, args: tuple[Any, ...] = (), **fields: Any) -> Any:
        """A job, not yet run: 96 x 64."""
        fields = {"width": 96, "height": 64, **fields}
        p = self.processing.StableDiffusionProcessingTxt2Img(**fields)
        p.scripts, p.script_args = self.runner(False), (0, *args)
        return p

    def run(self, p: Any) -> Any:
        return self.processing.process_images(p)

    def left_on(self, p: Any) -> list[str]:
        """List the attributes that the extension has left on `p`."""
        return [name for name in p.__dict__ if name.startswith("_depth2img")]


@contextlib.contextmanager
def running(folder: Path, *, without: tuple[str, ...] = (), extra: Path | None = None) -> Iterator[Host]:
    """The stand-in in `sys.modules` and on `sys.path`; afterwards everything is as it was.

    Args:
        folder: see `Host`.
        without: packages that this host does not have.
        extra: a folder with more packages.
    """
    kept = _take_out()
    path = sys.path[:]
    # Before the finder that it stands for, and behind those that change what is loaded (a fuzzer's, for coverage).
    sys.meta_path.insert(sys.meta_path.index(importlib.machinery.PathFinder), Finder)
    sys.path[:0] = [str(STAND_IN), *([str(extra)] if extra else [])]
    for name in without:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        host = Host(folder)
        host.sd_models.model_path = str(folder)
        importlib.import_module("modules.paths").models_path = str(folder)
        yield host
    finally:
        sys.path[:] = path
        sys.meta_path.remove(Finder)
        _take_out()
        sys.modules.update(kept)


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.split(".")[0] in OURS]
    return {name: sys.modules.pop(name) for name in names}


def load_script(host: Host) -> ModuleType:
    """The script file, as the host loads it: the extension's folder is on `sys.path` only meanwhile."""
    path = sys.path
    sys.path = [str(ROOT), *path]
    try:
        return host.script_loading.load_module(str(ROOT / "scripts" / "depth2img.py"))
    finally:
        sys.path = path


def ramp(width: int = 96, height: int = 64) -> Image.Image:
    """RGB, no two columns and no two rows alike, brighter (nearer) to the right and, by less, to the bottom."""
    across = np.linspace(10, 200, width)[None, :]
    down = np.linspace(0, 50, height)[:, None]
    red = np.repeat(across, height, 0)
    return Image.fromarray(np.stack([red, across + down, red * 0.5 + down], -1).astype(np.uint8))


def blobs(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """RGB, coloured blobs."""
    small = np.random.default_rng(seed).integers(1, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def depth_of(picture: Image.Image) -> np.ndarray:
    """Compute the depth network's output for each pixel: float64 (H, W)."""
    return (np.asarray(picture, np.float64) / 255 * 2 - 1) @ np.array(WEIGHTS) + 0.7


def stretched(values: np.ndarray) -> np.ndarray:
    """To -1..1 by the extremes."""
    return 2 * (values - values.min()) / (values.max() - values.min()) - 1


def map_file(values: np.ndarray, path: Path) -> Path:
    """A depth map as .npy, which keeps every value."""
    np.save(path, values.astype(np.float32))
    return path
