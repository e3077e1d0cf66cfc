"""Depth-to-image and depth inpainting in one call, without the WebUI.

pictures, masks -> frames -> depth maps -> conditioning -> sampler -> pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from .. import schedule
from ..adjust import sequence_span
from ..cache import DepthCache
from ..conditioning import conditioning, neutral
from ..depth_map import DepthMap, read_depth_map
from ..errors import Depth2ImgError, DepthMapError, OptionError, PictureError
from ..geometry import Placed
from ..images import Picture, read_picture, to_float
from ..options import DepthOptions
from . import sampling
from .frames import Frame, latent_mask, make_frame
from .loader import TINY, load
from .networks import LATENT_FACTOR, Networks
from .sampling import Batch, Step
from .settings import LARGEST_SEED, Settings


@dataclass(frozen=True)
class Generated:
    """One result.

    Attributes:
        picture: uint8 (H, W, 3).
        frame: the picture as the sampler got it, uint8 (h, w, 3).
        depth: the adjusted map in the frame; None where depth was off.
        conditioning: float32 (1, 1, h/8, w/8), what the UNet got at full strength.
        seed: the seed that was used.
    """

    picture: Picture
    frame: Picture
    depth: DepthMap | None
    conditioning: torch.Tensor
    seed: int


class Engine:
    """A depth model that generates.

    Args:
        networks: from `load`.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks: Final = networks
        self._cache = DepthCache()

    @classmethod
    def open(cls, source: str | Path = TINY, *, device: str = "auto", dtype: str = "auto") -> Engine:
        """An engine for a model by name; see `loader.load`."""
        return cls(load(source, device=device, dtype=dtype))

    def estimate(self, picture: Picture) -> DepthMap:
        """The depth map of a picture, uint8 (H, W, 3), by the model's own network; kept for the next time."""
        return self._cache.get_or_estimate(to_float(picture), self.networks.estimator)

    def preview(
        self, picture: object, settings: Settings, options: DepthOptions, *, mask: object = None
    ) -> Placed | None:
        """The adjusted map that `generate` would use for one picture; None where depth is off.

        Raises:
            Depth2ImgError: as in `generate`.
        """
        return self._maps([self.frame(picture, settings, mask=mask)], options)[0]

    def frame(self, picture: object, settings: Settings, *, mask: object = None) -> Frame:
        """One picture as `generate` would bring it to the sampler.

        Raises:
            Depth2ImgError: as in `generate`.
        """
        return self._frames([picture], settings, None if mask is None else [mask])[0]

    def generate(
        self,
        pictures: Sequence[object],
        settings: Settings,
        options: DepthOptions | None = None,
        *,
        masks: Sequence[object] | None = None,
        prompts: Sequence[str] | None = None,
        on_step: Step | None = None,
    ) -> list[Generated]:
        """New pictures that keep the depth of the given ones.

        Args:
            pictures: anything that `images.read_picture` takes; each keeps its own depth.
            settings: the job's; picture n has the seed `settings.seed + n`.
            options: the depth options; by default depth is on and comes from each picture.
            masks: one per picture, white = repaint, of the picture's size.
            prompts: one per picture instead of `settings.prompt`.
            on_step: told the steps done and the steps in all.

        Raises:
            Depth2ImgError: something that was given cannot be used; the message says what to do.
        """
        options = DepthOptions() if options is None else options
        frames = self._frames(pictures, settings, masks)
        prompts = [settings.prompt] * len(frames) if prompts is None else prompts
        if len(prompts) != len(frames):
            raise OptionError("prompts", "There must be one prompt per picture.", got=f"{len(prompts)} prompts")
        maps = self._maps(frames, options)
        region = read_region(options.region) if options.enabled and options.region is not None else None
        groups: dict[tuple[int, int], list[int]] = {}
        for index, frame in enumerate(frames):
            groups.setdefault(frame.size, []).append(index)
        done: dict[int, Generated] = {}
        for indices in groups.values():
            seeds = [(settings.seed + index) % (LARGEST_SEED + 1) for index in indices]
            group = [(frames[i], maps[i], prompts[i]) for i in indices]
            done.update(zip(indices, self._run(group, seeds, settings, options, region, on_step), strict=True))
        return [done[index] for index in range(len(frames))]

    def _frames(self, pictures: Sequence[object], settings: Settings, masks: Sequence[object] | None) -> list[Frame]:
        if not pictures:
            raise PictureError("There is no picture to work on.", fix="Give at least one.")
        if masks is not None and len(masks) != len(pictures):
            raise PictureError(
                "There must be one mask per picture.", got=f"{len(masks)} masks for {len(pictures)} pictures"
            )
        frames: list[Frame] = []
        for index, source in enumerate(pictures):
            mask = None if masks is None else read_mask(masks[index])
            frames.append(make_frame(read_picture(source), mask, settings, self.networks.side))
        return frames

    def _maps(self, frames: Sequence[Frame], options: DepthOptions) -> Sequence[Placed | None]:
        if not options.enabled:
            return [None] * len(frames)
        given: DepthMap | None = None
        own: DepthMap | None = None
        if "map" in (options.source, options.under_mask):
            if options.depth_map is None:
                raise DepthMapError("The depth map is to be your own, but there is none.", fix="Give a depth map.")
            own = read_depth_map(options.depth_map)
        if options.source == "map":
            given, own = own, None
        elif options.source == "reference":
            if options.reference is None:
                raise PictureError("Depth is to come from another picture, but there is none.", fix="Give a picture.")
            given = self.estimate(read_picture(options.reference))
        if given is not None:
            span = sequence_span(options, [given])
            return [frame.adjusted(given, options, own, span, entering=False) for frame in frames]
        original = [frame.estimates_on_original(options) for frame in frames]
        depths = [
            self.estimate(frame.original if whole else frame.picture)
            for frame, whole in zip(frames, original, strict=True)
        ]
        span = sequence_span(options, depths)
        return [
            frame.adjusted(depth, options, own, span, entering=not whole)
            for frame, depth, whole in zip(frames, depths, original, strict=True)
        ]

    def _run(
        self,
        group: Sequence[tuple[Frame, Placed | None, str]],
        seeds: Sequence[int],
        settings: Settings,
        options: DepthOptions,
        region: DepthMap | None,
        on_step: Step | None,
    ) -> list[Generated]:
        frames, maps, prompts = zip(*group, strict=True)
        depth = self._conditioning(frames, maps, region, options)
        try:
            with torch.no_grad():
                batch = self._batch(frames, depth, prompts, seeds, settings, options)
                latents = sampling.sample(self.networks, batch, settings, on_step)
                decoded = sampling.decode(self.networks, latents)
        except torch.OutOfMemoryError as problem:
            width, height = frames[0].size
            raise Depth2ImgError(
                "There is not enough memory on the device.",
                got=f"{len(frames)} pictures of {width} x {height}",
                fix="Make the pictures smaller, or give fewer at a time.",
            ) from problem
        unit = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        results = (unit * 255).round().astype(np.uint8)
        return [
            Generated(frame.finish(result), frame.picture, one and one.depth, depth[index : index + 1], seed)
            for index, (frame, one, result, seed) in enumerate(zip(frames, maps, results, seeds, strict=True))
        ]

    @staticmethod
    def _conditioning(
        frames: Sequence[Frame], maps: Sequence[Placed | None], region: DepthMap | None, options: DepthOptions
    ) -> torch.Tensor:
        width, height = frames[0].size[0] // LATENT_FACTOR, frames[0].size[1] // LATENT_FACTOR
        known = [one for one in maps if one is not None]
        if not known:
            return neutral(len(maps), height=height, width=width, level=options.neutral)
        depths, spans = [one.depth for one in known], [one.span for one in known]
        tensor = conditioning(depths, height=height, width=width, spans=spans)
        if region is None:
            return tensor
        regions = [schedule.region_tensor(frame.place(region), height=height, width=width) for frame in frames]
        return schedule.inside(tensor, torch.cat(regions), options.neutral)

    def _batch(
        self,
        frames: Sequence[Frame],
        depth: torch.Tensor,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Settings,
        options: DepthOptions,
    ) -> Batch:
        networks = self.networks
        device, dtype = networks.device, networks.dtype
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        stacked = torch.from_numpy(np.stack([to_float(frame.picture) for frame in frames])).permute(0, 3, 1, 2)
        latents = sampling.encode(networks, (2.0 * stacked - 1.0).to(device, dtype), generators)
        keep = _keep(frames)
        if keep is not None:
            keep = keep.to(device, dtype)
            if settings.masked_content == "latent noise":
                latents = latents * keep + sampling.noise_like(latents, generators) * (1 - keep)
            elif settings.masked_content == "latent nothing":
                latents = latents * keep
        text = sampling.text_states(networks, prompts)
        negative = sampling.text_states(networks, [settings.negative_prompt]).expand_as(text)
        return Batch(latents, depth.to(device, dtype), keep, (text, negative), generators, options)


def _keep(frames: Sequence[Frame]) -> torch.Tensor | None:
    """1 where the pictures stay, float32 (B, 1, h, w) at the latent's size."""
    width, height = frames[0].size[0] // LATENT_FACTOR, frames[0].size[1] // LATENT_FACTOR
    masks = [latent_mask(frame.mask, width, height) for frame in frames if frame.mask is not None]
    return 1 - torch.from_numpy(np.stack(masks))[:, None] if masks else None


def read_region(source: object) -> DepthMap:
    """A region mask as values 0 outside .. 1 inside; see `read_mask`."""
    return DepthMap(values=read_mask(source).astype(np.float32) / 255, origin="region")


def read_mask(source: object) -> npt.NDArray[np.uint8]:
    """A mask, uint8 (H, W), 255 = repaint, from anything that `images.read_picture` takes.

    Grey is taken as it is, of a colour picture the mean; transparent parts are kept.

    Raises:
        PictureError: it cannot be read.
    """
    mask: npt.NDArray[np.uint8] = np.round(read_picture(source, background=(0, 0, 0)).mean(axis=2)).astype(np.uint8)
    return mask
