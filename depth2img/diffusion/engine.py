"""Depth-to-image and depth inpainting in one call, without the WebUI.

pictures, masks -> frames -> depth maps -> conditioning -> sampler -> pictures
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from ..depth.adjustments import sequence_span
from ..depth.depth_map import DepthMap, Span
from ..depth.masks import read_mask
from ..depth.resolve import Basis, PlacedMap, Resolved, resolve
from ..depth.scores import structure
from ..depth.sources import Sources, read_sources
from ..errors import Depth2ImgError, OptionError, PictureError
from ..estimators.cache import DepthCache
from ..estimators.devices import release_memory
from ..estimators.pool import EstimatorPool
from ..io.images import Picture, read_picture, to_float
from ..options import CHECKPOINT, DepthOptions
from ..prompts.language import take_networks
from ..prompts.tokens import PromptTokens
from . import levers
from .frames import Frame, make_frame
from .infotext import infotext
from .job import Generated, Job
from .library import Library, LoraFile
from .loader import TINY, load, own_pool
from .lora import with_loras
from .networks import Networks
from .passes import Prepared, run_passes
from .sampling import Step
from .settings import LARGEST_SEED, Settings
from .text import Encoder, read_passes

Given = ParamSpec("Given")
Result = TypeVar("Result")


def _one_at_a_time(
    method: Callable[Concatenate[Engine, Given], Result],
) -> Callable[Concatenate[Engine, Given], Result]:
    """Make a method of an engine wait until no other thread is inside one."""

    @functools.wraps(method)
    def run(engine: Engine, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with engine._lock:
            return method(engine, *args, **kwargs)

    return run


class Engine:
    """A depth model that generates.

    Threads may share an engine: its methods run one after the other, in the order in which the lock is given. An engine
    is a context manager that closes itself.

    Args:
        networks: from `load`.
        pool: where other estimators than the model's own are found; by default those that are registered, folders by
            their path, and the hub. They run where the model does.
        library: where LoRAs and learned words are found; by default there are none.
    """

    def __init__(self, networks: Networks, pool: EstimatorPool | None = None, library: Library | None = None) -> None:
        device = networks.device
        self.library: Final = Library() if library is None else library
        self.pool: Final = (own_pool() if pool is None else pool).on(lambda: device)
        self._networks: Networks | None = networks
        self._cache = DepthCache()
        self._lock = threading.RLock()

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
        library: Library | None = None,
    ) -> Engine:
        """Open a model by name; see `loader.load`."""
        return cls(load(source, device=device, dtype=dtype, compiled=compiled, low_memory=low_memory), pool, library)

    @property
    def networks(self) -> Networks:
        """The model's networks.

        Raises:
            Depth2ImgError: the engine is closed.
        """
        if self._networks is None:
            raise Depth2ImgError("The engine is closed.", fix="Open another with Engine.open.")
        return self._networks

    @_one_at_a_time
    def close(self) -> None:
        """Release the networks, the estimators and the maps that are kept; waits for a job that is running.

        Every later use raises `Depth2ImgError`; closing again does nothing. Memory that others hold through
        `networks` stays theirs.
        """
        if self._networks is None:
            return
        levers.release(self._networks)
        self._networks = None
        self._cache = DepthCache()
        self.pool.unload()
        release_memory()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def estimate(self, picture: Picture, estimator: str = CHECKPOINT) -> DepthMap:
        """Estimate the depth map of a picture, uint8 (H, W, 3); it is kept for the next time.

        Args:
            picture: the picture.
            estimator: `DepthOptions.estimator`; by default the model's own network.

        Raises:
            OptionError, EstimatorError: there is no such estimator, or it failed.
        """
        return self.estimate_all([picture], estimator=estimator)[0]

    @_one_at_a_time
    def estimate_all(
        self, pictures: Sequence[Picture], rows: int | None = 1, *, estimator: str = CHECKPOINT
    ) -> list[DepthMap]:
        """Estimate the depth maps of several pictures; `rows` as in `MidasEstimator.estimate_all`.

        Estimators other than the model's own take one picture at a time.

        Raises:
            OptionError, EstimatorError: as in `estimate`.
        """
        unit = [to_float(picture) for picture in pictures]
        if estimator != CHECKPOINT:
            chosen = self.pool.get(estimator)
            return [self._cache.get_or_estimate(picture, chosen) for picture in unit]
        own = self.networks.estimator
        return self._cache.get_or_estimate_all(unit, own.key, lambda some: own.estimate_all(some, rows))

    @_one_at_a_time
    def preview(
        self, picture: object, settings: Settings, options: DepthOptions, *, mask: object = None
    ) -> PlacedMap | None:
        """Return the adjusted map that `generate` would use for one picture; None where depth is off.

        Raises:
            Depth2ImgError: as in `generate`.
        """
        [prepared] = self._prepared([Job(picture, settings, options, mask)])
        return prepared.placed

    def frame(self, picture: object, settings: Settings, *, mask: object = None) -> Frame:
        """Return one picture as it would enter the sampler in `generate`.

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
        """Generate pictures that keep the depth of the given ones.

        Args:
            pictures: anything that `images.read_picture` takes; each keeps its own depth.
            settings: the job's; picture n has the seed `settings.seed + n`.
            options: the depth options; by default depth is on and comes from each picture.
            masks: one per picture, white = repaint, of the picture's size.
            prompts: one per picture instead of `settings.prompt`.
            on_step: called with the steps done and the steps in all, in the thread of the caller. An exception that it
                raises, such as `Cancelled`, ends the job after that step and reaches the caller; the engine can be
                used again.

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

    @_one_at_a_time
    def run(
        self, jobs: Sequence[Job], *, rows: int | None = None, span: Span | None = None, on_step: Step | None = None
    ) -> list[Generated]:
        """Run jobs that may differ in everything; those of one kind and size go through the networks together.

        Args:
            jobs: what to make.
            rows: pictures in every pass of a network, padded if there are fewer, so that a result is bit for bit the
                same whatever else is in its batch (on one kind of device, with one number of threads).
                None: all of a kind at once, in as many rows as they are.
            span: the range for jobs whose `range` is "shared"; None is that of all of them together.
            on_step: called with the steps done and the steps in all, of each group by itself.

        Raises:
            Depth2ImgError: something that was given cannot be used; the message says what to do.
        """
        estimated = rows or self._estimated_together
        texts = self._texts(jobs)  # what is wrong with a prompt shows before anything is estimated
        prepared = [
            dataclasses.replace(one, prompts=prompts, loras=loras)
            for one, (prompts, loras) in zip(self._prepared(jobs, estimated, span), texts, strict=True)
        ]
        groups: dict[Hashable, list[int]] = {}
        for index, one in enumerate(prepared):
            shapes = tuple(tokens.shape for tokens in one.prompts)
            groups.setdefault((one.job.kind, one.frame.size, shapes, one.loras), []).append(index)
        done: dict[int, Generated] = {}
        for indices in groups.values():
            most = rows or len(indices)
            for begin in range(0, len(indices), most):
                part = indices[begin : begin + most]
                group = [prepared[index] for index in part]
                encoder = Encoder(self.networks, self.library, group[0].loras)
                with with_loras(self.networks, encoder.loras):
                    results = run_passes(encoder, group, most, self._estimated, on_step)
                done.update(zip(part, results, strict=True))
        self._score(jobs, done, estimated)
        return [self._with_infotext(one, done[index]) for index, one in enumerate(prepared)]

    @_one_at_a_time
    def span_of(self, job: Job, rows: int = 1) -> Span | None:
        """Return the range of one job's depth, for others to share; None where depth is off. `rows` as in `run`.

        Raises:
            Depth2ImgError: as in `run`.
        """
        frame, sources = self._frame(job), read_sources(job.options)
        resolved = resolve(job.options, frame.framing)
        return None if resolved is None else self._depths([resolved], [frame], [sources], rows)[0].range

    def _texts(self, jobs: Sequence[Job]) -> list[tuple[tuple[PromptTokens, ...], tuple[LoraFile, ...]]]:
        """Read the prompts of jobs, and find the LoRAs that they ask for."""
        words = self.library.words(int(self.networks.text_encoder.config.hidden_size))
        return [
            (read_passes(job.settings, words), self.library.find(take_networks(job.settings.prompt)[1])) for job in jobs
        ]

    @property
    def _estimated_together(self) -> int | None:
        """`rows` of an estimation where none are asked for: one picture by itself, on a card several."""
        return None if levers.is_cuda(self.networks.device) else 1

    def _frame(self, job: Job) -> Frame:
        mask = None if job.mask is None else read_mask(job.mask)
        if mask is not None and job.settings.hr_scale > 1:
            raise OptionError(
                "hr_scale", "The hires pass works on whole pictures.", got="a mask", fix="Leave one of them out."
            )
        return make_frame(read_picture(job.picture), mask, job.settings, self.networks.side)

    def _prepared(self, jobs: Sequence[Job], rows: int | None = 1, span: Span | None = None) -> list[Prepared]:
        """Frame the pictures, and bring the maps of their depth into the frames; `rows` as in `estimate_all`."""
        frames = [self._frame(job) for job in jobs]
        known: dict[tuple[object, int], Any] = {}  # jobs of one run share payloads: each is decoded once

        def once(reader: Callable[[Any], Any], payload: Any) -> Any:
            if (reader, id(payload)) not in known:
                known[reader, id(payload)] = reader(payload)
            return known[reader, id(payload)]

        sources = [read_sources(job.options, once) for job in jobs]
        resolved = [resolve(job.options, frame.framing) for job, frame in zip(jobs, frames, strict=True)]
        found = self._depths(resolved, frames, sources, rows)
        shared = [depth for index, depth in found.items() if jobs[index].options.range == "shared"]
        prepared = []
        for index, (job, frame, given, decision) in enumerate(zip(jobs, frames, sources, resolved, strict=True)):
            placed = None
            if decision is not None:
                own_span = sequence_span(job.options, shared)
                kept = span if span is not None and job.options.range == "shared" else own_span
                placed = decision.place(found[index], given.own, kept)
            prepared.append(Prepared(job, frame, given, placed))
        return prepared

    def _depths(
        self, resolved: Sequence[Resolved | None], frames: Sequence[Frame], sources: Sequence[Sources], rows: int | None
    ) -> dict[int, DepthMap]:
        """Take or estimate the maps that were decided on, before they are placed; none where depth is off."""
        found: dict[int, DepthMap] = {}
        wanted: dict[int, tuple[Picture, str]] = {}
        for index, decision in enumerate(resolved):
            if decision is None:
                continue
            pictures = {
                Basis.REFERENCE: sources[index].reference,
                Basis.ORIGINAL: frames[index].original,
                Basis.ENTERING: frames[index].picture,
            }
            picture, own = pictures.get(decision.basis), sources[index].own
            if picture is not None:
                wanted[index] = picture, decision.options.estimator
            elif own is not None:
                found[index] = own
        return found | self._estimated(wanted, rows)

    def _estimated(self, wanted: Mapping[int, tuple[Picture, str]], rows: int | None) -> dict[int, DepthMap]:
        """Estimate the maps of pictures, each by an estimator of its own."""
        found: dict[int, DepthMap] = {}
        for name in dict.fromkeys(estimator for _, estimator in wanted.values()):
            indices = [index for index, (_, estimator) in wanted.items() if estimator == name]
            pictures = [wanted[index][0] for index in indices]
            found.update(zip(indices, self.estimate_all(pictures, rows, estimator=name), strict=True))
        return found

    def _score(self, jobs: Sequence[Job], done: dict[int, Generated], rows: int | None) -> None:
        """Note on the results whose jobs ask for it how far their depth agrees with the depth that was asked for."""
        asked = {
            index: depth
            for index, depth in ((index, done[index].depth) for index, job in enumerate(jobs) if job.options.score)
            if depth is not None
        }
        found = self._estimated({index: (done[index].sampled, jobs[index].options.estimator) for index in asked}, rows)
        for index, depth in asked.items():
            done[index] = dataclasses.replace(done[index], fidelity=structure(depth, found[index]))

    def _with_infotext(self, prepared: Prepared, made: Generated) -> Generated:
        job, frame = prepared.job, prepared.frame
        own = job.settings.cfg_scale
        text = infotext(
            job.settings,
            job.options,
            size=frame.size,
            cfg_scale=self.networks.cfg_scale if own is None else own,
            model=self.networks.name,
            masked=frame.mask is not None,
            fidelity=made.fidelity,
            hashes=self.library.hashes(prepared.loras, prepared.prompts),
        )
        return dataclasses.replace(made, infotext=text)
