"""Depth-to-image and depth inpainting in one call, without the WebUI.

pictures, masks -> frames -> depth maps -> conditioning -> sampler -> pictures
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import torch

from ..depth import schedule
from ..depth.adjustments import sequence_span
from ..depth.conditioning import conditioning, neutral
from ..depth.depth_map import DepthMap, Span
from ..depth.masks import read_mask, read_region
from ..depth.placement import Placed
from ..depth.reading import read_depth_map
from ..depth.scores import structure
from ..errors import Depth2ImgError, DepthMapError, OptionError, PictureError
from ..estimators.cache import DepthCache
from ..estimators.devices import out_of_device_memory
from ..estimators.pool import EstimatorPool
from ..io.images import Picture, read_picture, to_float
from ..options import CHECKPOINT, OPTIONS, WEBUI_ONLY, DepthOptions
from . import levers, sampling
from .frames import Frame, latent_mask, make_frame, resize
from .infotext import infotext
from .loader import TINY, load, own_pool
from .networks import LATENT_FACTOR, Networks
from .sampling import Batch, Step
from .settings import LARGEST_SEED, Settings

T = TypeVar("T")

Read: TypeAlias = dict[tuple[Callable[..., Any], int], Any]
"""Reader and identity of a source -> what was read, while one run holds the sources."""


@dataclass(frozen=True)
class Generated:
    """One result.

    Attributes:
        picture: uint8 (H, W, 3).
        sampled: what the sampler gave, uint8 (h, w, 3), before a mask laid it over the picture.
        frame: the picture as the sampler got it, uint8 (h, w, 3); of a smaller size than the others after a hires pass.
        depth: the adjusted map in the frame; None where depth was off. After a hires pass that of this pass.
        conditioning: float32 (1, 1, h/8, w/8), what the UNet got at full strength, in the last pass.
        seed: the seed that was used.
        infotext: what it was made with, in the WebUI's form; see `infotext.infotext`.
        fidelity: how far the result's own depth agrees with `depth`, -1..1 (`scores.structure`); None unless the option
            `score` asked for it.
    """

    picture: Picture
    sampled: Picture
    frame: Picture
    depth: DepthMap | None
    conditioning: torch.Tensor
    seed: int
    infotext: str
    fidelity: float | None = None


@dataclass(frozen=True)
class Job:
    """One picture to make.

    Attributes:
        picture: anything that `images.read_picture` takes.
        settings: its own; prompt and seed among them.
        options: its own.
        mask: white = repaint, of the picture's size, anything that `read_mask` takes; None repaints all of it.

    Raises:
        OptionError: an option is given that only the WebUI knows.
    """

    picture: object
    settings: Settings
    options: DepthOptions = field(default_factory=DepthOptions)
    mask: object = None

    def __post_init__(self) -> None:
        for name, instead in WEBUI_ONLY.items():
            if getattr(self.options, name) != OPTIONS[name].default:
                raise OptionError(
                    name, f"Depth option '{name}' is for the WebUI; here it would have no effect.", fix=instead
                )

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind, with frames of one size, can go through the sampler together."""
        settings = dataclasses.replace(self.settings, prompt="", negative_prompt="", seed=0)
        options = tuple(getattr(self.options, name) for name, option in OPTIONS.items() if option.kind != "image")
        return settings, options, self.mask is None, self.options.region is None


class Engine:
    """A depth model that generates.

    Args:
        networks: from `load`.
        pool: where other estimators than the model's own are found; by default those that are registered, folders by
            their path, and the hub. They run where the model does.
    """

    def __init__(self, networks: Networks, pool: EstimatorPool | None = None) -> None:
        self.networks: Final = networks
        self.pool: Final = (own_pool() if pool is None else pool).on(lambda: networks.device)
        self._cache = DepthCache()

    @classmethod
    def open(
        cls,
        source: str | Path = TINY,
        *,
        device: str = "auto",
        dtype: str = "auto",
        compiled: bool = False,
        low_memory: bool = False,
        pool: EstimatorPool | None = None,
    ) -> Engine:
        """An engine for a model by name; see `loader.load`."""
        return cls(load(source, device=device, dtype=dtype, compiled=compiled, low_memory=low_memory), pool)

    def estimate(self, picture: Picture, estimator: str = CHECKPOINT) -> DepthMap:
        """The depth map of a picture, uint8 (H, W, 3); kept for the next time.

        Args:
            picture: the picture.
            estimator: `DepthOptions.estimator`; by default the model's own network.

        Raises:
            OptionError, EstimatorError: there is no such estimator, or it failed.
        """
        return self.estimate_all([picture], estimator=estimator)[0]

    def estimate_all(
        self, pictures: Sequence[Picture], rows: int = 1, *, estimator: str = CHECKPOINT
    ) -> list[DepthMap]:
        """The depth maps of several pictures; `rows` as in `run`. Other estimators than the model's take one at a time.

        Raises:
            OptionError, EstimatorError: as in `estimate`.
        """
        unit = [to_float(picture) for picture in pictures]
        if estimator != CHECKPOINT:
            chosen = self.pool.get(estimator)
            return [self._cache.get_or_estimate(picture, chosen) for picture in unit]
        own = self.networks.estimator
        return self._cache.get_or_estimate_all(unit, own.key, lambda some: own.estimate_all(some, rows))

    def _estimated(self, wanted: Mapping[int, tuple[Picture, str]], rows: int) -> dict[int, DepthMap]:
        """The maps of pictures, each by an estimator of its own."""
        found: dict[int, DepthMap] = {}
        for name in dict.fromkeys(estimator for _, estimator in wanted.values()):
            indices = [index for index, (_, estimator) in wanted.items() if estimator == name]
            pictures = [wanted[index][0] for index in indices]
            found.update(zip(indices, self.estimate_all(pictures, rows, estimator=name), strict=True))
        return found

    def preview(
        self, picture: object, settings: Settings, options: DepthOptions, *, mask: object = None
    ) -> Placed | None:
        """The adjusted map that `generate` would use for one picture; None where depth is off.

        Raises:
            Depth2ImgError: as in `generate`.
        """
        job = Job(picture, settings, options, mask)
        return self._maps([job], [self._frame(job)])[0]

    def frame(self, picture: object, settings: Settings, *, mask: object = None) -> Frame:
        """One picture as `generate` would bring it to the sampler.

        Raises:
            Depth2ImgError: as in `generate`.
        """
        return self._frame(Job(picture, settings, mask=mask))

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
        if not pictures:
            raise PictureError("There is no picture to work on.", fix="Give at least one.")
        if masks is not None and len(masks) != len(pictures):
            raise PictureError(
                "There must be one mask per picture.", got=f"{len(masks)} masks for {len(pictures)} pictures"
            )
        prompts = [settings.prompt] * len(pictures) if prompts is None else prompts
        if len(prompts) != len(pictures):
            raise OptionError("prompts", "There must be one prompt per picture.", got=f"{len(prompts)} prompts")
        jobs = []
        for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            own = dataclasses.replace(settings, prompt=prompt, seed=(settings.seed + index) % (LARGEST_SEED + 1))
            jobs.append(Job(picture, own, options, None if masks is None else masks[index]))
        return self.run(jobs, on_step=on_step)

    def run(
        self, jobs: Sequence[Job], *, rows: int | None = None, span: Span | None = None, on_step: Step | None = None
    ) -> list[Generated]:
        """New pictures for jobs that may differ in everything; those of one kind and size go together.

        Args:
            jobs: what to make.
            rows: every pass of a network has so many pictures, filled up where there are fewer, so that a result is
                the same to the bit whatever goes along with it (on one kind of device, with one number of threads).
                None: all of a kind at once, in as many rows as they are.
            span: the range for jobs whose `range` is "shared"; None is that of all of them together.
            on_step: told the steps done and the steps in all, of each group anew.

        Raises:
            Depth2ImgError: something that was given cannot be used; the message says what to do.
        """
        frames = [self._frame(job) for job in jobs]
        maps = self._maps(jobs, frames, rows or 1, span)
        groups: dict[Hashable, list[int]] = {}
        for index, (job, frame) in enumerate(zip(jobs, frames, strict=True)):
            groups.setdefault((job.kind, frame.size), []).append(index)
        done: dict[int, Generated] = {}
        for indices in groups.values():
            most = rows or len(indices)
            for begin in range(0, len(indices), most):
                part = indices[begin : begin + most]
                results = self._sample([(jobs[i], frames[i], maps[i]) for i in part], most, on_step)
                done.update(zip(part, results, strict=True))
        self._score(jobs, done, rows or 1)
        return [self._noted(job, frame, done[i]) for i, (job, frame) in enumerate(zip(jobs, frames, strict=True))]

    def _noted(self, job: Job, frame: Frame, made: Generated) -> Generated:
        """A result with its infotext."""
        own = job.settings.cfg_scale
        text = infotext(
            job.settings,
            job.options,
            size=frame.size,
            cfg_scale=self.networks.cfg_scale if own is None else own,
            model=self.networks.name,
            masked=frame.mask is not None,
            fidelity=made.fidelity,
        )
        return dataclasses.replace(made, infotext=text)

    def _score(self, jobs: Sequence[Job], done: dict[int, Generated], rows: int) -> None:
        """Notes on the results whose jobs ask for it how far their depth agrees with what was asked."""
        asked = {
            index: depth
            for index, depth in ((index, done[index].depth) for index, job in enumerate(jobs) if job.options.score)
            if depth is not None
        }
        found = self._estimated({index: (done[index].sampled, jobs[index].options.estimator) for index in asked}, rows)
        for index, depth in asked.items():
            done[index] = dataclasses.replace(done[index], fidelity=structure(depth, found[index]))

    def _frame(self, job: Job) -> Frame:
        mask = None if job.mask is None else read_mask(job.mask)
        if mask is not None and job.settings.hr_scale > 1:
            raise OptionError(
                "hr_scale", "The hires pass works on whole pictures.", got="a mask", fix="Leave one of them out."
            )
        return make_frame(read_picture(job.picture), mask, job.settings, self.networks.side)

    def span_of(self, job: Job, rows: int = 1) -> Span | None:
        """The range of one job's depth, for others to share; None where depth is off. `rows` as in `run`.

        Raises:
            Depth2ImgError: as in `run`.
        """
        [depth] = self._depths([job], [self._frame(job)], rows, {})
        return None if depth is None else depth.range

    def _depths(self, jobs: Sequence[Job], frames: Sequence[Frame], rows: int, read: Read) -> list[DepthMap | None]:
        """What depth is taken from, a map each; `read` keeps what jobs share."""
        found: dict[int, DepthMap] = {}
        seen: dict[int, tuple[Picture, str]] = {}
        for index, (job, frame) in enumerate(zip(jobs, frames, strict=True)):
            options = job.options
            if not options.enabled:
                continue
            if options.source == "map":
                found[index] = _own_map(options, read)
            elif options.source == "reference":
                seen[index] = _reference(options, read), options.estimator
            else:
                picture = frame.original if frame.estimates_on_original(options) else frame.picture
                seen[index] = picture, options.estimator
        found |= self._estimated(seen, rows)
        return [found.get(index) for index in range(len(jobs))]

    def _maps(
        self, jobs: Sequence[Job], frames: Sequence[Frame], rows: int = 1, span: Span | None = None
    ) -> list[Placed | None]:
        read: Read = {}
        depths = self._depths(jobs, frames, rows, read)
        placed: list[Placed | None] = []
        shared = [
            depth
            for job, depth in zip(jobs, depths, strict=True)
            if depth is not None and job.options.range == "shared"
        ]
        for job, frame, depth in zip(jobs, frames, depths, strict=True):
            options = job.options
            if depth is None:
                placed.append(None)
                continue
            own = _own_map(options, read) if options.under_mask == "map" and options.source != "map" else None
            kept = span if span is not None and options.range == "shared" else sequence_span(options, shared)
            entering = options.source == "picture" and not frame.estimates_on_original(options)
            placed.append(frame.adjusted(depth, options, own, kept, entering=entering))
        return placed

    def _sample(
        self, group: Sequence[tuple[Job, Frame, Placed | None]], rows: int, on_step: Step | None
    ) -> list[Generated]:
        jobs, frames, first_maps = zip(*group, strict=True)
        maps: Sequence[Placed | None] = first_maps
        settings = jobs[0].settings
        depth = self._conditioning(frames, maps, jobs, frames[0].size)
        first, second = _passes(settings, on_step)
        try:
            with torch.no_grad():
                batch = self._batch(frames, depth, jobs).filled(rows)
                latents = sampling.sample(self.networks, batch, settings, settings.first_steps, first)
                if settings.hr_scale > 1:
                    batch, maps, depth = self._enlarged(batch, latents, jobs, frames, maps)
                    latents = sampling.sample(self.networks, batch, settings, settings.hires_steps, second)
                decoded = sampling.decode(self.networks, latents[: len(jobs)])
        except Exception as problem:
            if not out_of_device_memory(problem):
                raise
            levers.release(self.networks)
            width, height = frames[0].size
            raise Depth2ImgError(
                "There is not enough memory on the device.",
                got=f"{rows} pictures of {width} x {height}",
                fix="Make the pictures smaller, give fewer at a time, or ask for low memory.",
            ) from problem
        made = []
        for index, (job, frame, one, result) in enumerate(zip(jobs, frames, maps, _pictures(decoded), strict=True)):
            given = None if one is None else one.depth, depth[index : index + 1], job.settings.seed
            made.append(Generated(frame.finish(result), result, frame.picture, *given, infotext=""))
        return made

    def _enlarged(
        self,
        batch: Batch,
        latents: torch.Tensor,
        jobs: Sequence[Job],
        frames: Sequence[Frame],
        maps: Sequence[Placed | None],
    ) -> tuple[Batch, Sequence[Placed | None], torch.Tensor]:
        """What the hires pass begins with: its batch, its maps and its conditioning.

        The steps and their order are the host's (`sample_hr_pass`, modules/processing.py, 1.10.1): the size is that of
        the first pass times the scale, cut to what a latent can have; a new estimation sees the enlarged picture, or
        what the enlarged latents decode to.
        """
        settings, options = jobs[0].settings, jobs[0].options
        size = _multiple(frames[0].size[0] * settings.hr_scale), _multiple(frames[0].size[1] * settings.hr_scale)
        anew = options.hires == "estimate" and options.enabled
        seen: list[Picture] = []
        if settings.hr_upscaler == "lanczos":
            seen = [resize(one, *size, "just resize") for one in _pictures(sampling.decode(self.networks, latents))]
            latents = sampling.encode(self.networks, self._stacked(seen), batch.generators)
        else:
            latents = sampling.enlarged(latents, size[1] // LATENT_FACTOR, size[0] // LATENT_FACTOR)
            if anew:
                seen = _pictures(sampling.decode(self.networks, latents[: len(jobs)]))
        if anew:
            wanted = {index: (seen[index], job.options.estimator) for index, job in enumerate(jobs)}
            depths = [*self._estimated(wanted, len(latents)).values()]
            maps = [
                frame.adjusted(depth, options, None, sequence_span(options, depths), entering=True)
                for frame, depth in zip(frames, depths, strict=True)
            ]
        depth = self._conditioning(frames, maps, jobs, size)
        rows = sampling.repeated(depth.to(latents.device, latents.dtype), len(latents))
        return dataclasses.replace(batch, latents=latents, depth=rows, from_noise=False), maps, depth

    @staticmethod
    def _conditioning(
        frames: Sequence[Frame], maps: Sequence[Placed | None], jobs: Sequence[Job], size: tuple[int, int]
    ) -> torch.Tensor:
        """Float32 (B, 1, h/8, w/8) for pictures of that width and height."""
        options = jobs[0].options  # of one kind: alike but for images
        width, height = size[0] // LATENT_FACTOR, size[1] // LATENT_FACTOR
        known = [one for one in maps if one is not None]
        if not known:
            return neutral(len(maps), height=height, width=width, level=options.neutral)
        depths, spans = [one.depth for one in known], [one.span for one in known]
        tensor = conditioning(depths, height=height, width=width, spans=spans)
        if options.region is None:
            return tensor
        regions = [
            schedule.region_tensor(frame.place(read_region(job.options.region)), height=height, width=width)
            for job, frame in zip(jobs, frames, strict=True)
        ]
        return schedule.inside(tensor, torch.cat(regions), options.neutral)

    def _stacked(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """Pictures of one size as the autoencoder takes them: (B, 3, h, w), -1..1, on the model's device."""
        stacked = torch.from_numpy(np.stack([to_float(picture) for picture in pictures])).permute(0, 3, 1, 2)
        return (2.0 * stacked - 1.0).to(self.networks.device, self.networks.dtype)

    def _batch(
        self,
        frames: Sequence[Frame],
        depth: torch.Tensor,
        jobs: Sequence[Job],
    ) -> Batch:
        networks, settings = self.networks, jobs[0].settings
        device, dtype = networks.device, networks.dtype
        generators = [torch.Generator().manual_seed(job.settings.seed) for job in jobs]
        latents = sampling.encode(networks, self._stacked([frame.picture for frame in frames]), generators)
        keep = _keep(frames)
        if keep is not None:
            keep = keep.to(device, dtype)
            if settings.masked_content == "latent noise":
                latents = latents * keep + sampling.noise_like(latents, generators) * (1 - keep)
            elif settings.masked_content == "latent nothing":
                latents = latents * keep
        text = sampling.text_states(networks, [job.settings.prompt for job in jobs])
        negative = sampling.text_states(networks, [job.settings.negative_prompt for job in jobs])
        options = jobs[0].options
        noise = options.enabled and options.ignore_colours and settings.denoising_strength == 1
        return Batch(latents, depth.to(device, dtype), keep, (text, negative), generators, options, noise)


def _passes(settings: Settings, on_step: Step | None) -> tuple[Step | None, Step | None]:
    """What the two passes tell of their steps, so that both count as one."""
    if on_step is None or settings.hr_scale <= 1:
        return on_step, None
    count = settings.first_steps.run
    total = count + settings.hires_steps.run
    return lambda done, _: on_step(done, total), lambda done, _: on_step(count + done, total)


def _multiple(length: float) -> int:
    return int(length) // LATENT_FACTOR * LATENT_FACTOR


def _pictures(decoded: torch.Tensor) -> list[Picture]:
    """float (B, 3, h, w), -1..1 and beyond -> uint8 (h, w, 3) each."""
    unit = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return [*(unit * 255).round().astype(np.uint8)]


def _keep(frames: Sequence[Frame]) -> torch.Tensor | None:
    """1 where the pictures stay, float32 (B, 1, h, w) at the latent's size."""
    width, height = frames[0].size[0] // LATENT_FACTOR, frames[0].size[1] // LATENT_FACTOR
    masks = [latent_mask(frame.mask, width, height) for frame in frames if frame.mask is not None]
    return 1 - torch.from_numpy(np.stack(masks))[:, None] if masks else None


def _own_map(options: DepthOptions, read: Read) -> DepthMap:
    """The user's own map."""
    if options.depth_map is None:
        raise DepthMapError("The depth map is to be your own, but there is none.", fix="Give a depth map.")
    return _once(options.depth_map, read_depth_map, read)


def _reference(options: DepthOptions, read: Read) -> Picture:
    """The picture whose depth is used."""
    if options.reference is None:
        raise PictureError("Depth is to come from another picture, but there is none.", fix="Give a picture.")
    return _once(options.reference, read_picture, read)


def _once(source: object, reader: Callable[[object], T], read: Read) -> T:
    """What a reader makes of a source; once for all jobs that share it."""
    key = reader, id(source)
    if key not in read:
        read[key] = reader(source)
    found: T = read[key]
    return found
