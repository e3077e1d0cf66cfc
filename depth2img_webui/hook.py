"""Puts depth conditioning on a job and takes it off again; keeps errors and raises them where the host listens.

All state of a request lives in a `Job` on `p`. What is put on the instance `p` is listed in `OVERRIDES` and removed by
`detach`: when the job is done, when it fails, and when the next run on the same `p` begins. What other extensions have
put there stays or comes back.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from modules import processing, shared
from PIL import Image

from depth2img import (
    Depth2ImgError,
    DepthCache,
    DepthMap,
    DepthMapError,
    DepthOptions,
    MidasEstimator,
    NoDepthError,
    NoDepthModelError,
    conditioning,
    neutral,
    panel,
    read_depth_map,
    read_picture,
    schedule,
)
from depth2img.adjust import joint_span
from depth2img.depth_map import Span
from depth2img.errors import PictureError
from depth2img.images import FloatPicture, Picture, to_float
from depth2img.options import OPTIONS
from depth2img.scores import structure

from . import compat, place, settings, tiles, xyz
from .place import Placed

JOB: Final = "_depth2img_job"
REPLACED: Final = "_depth2img_replaced"
FIRST: Final = "_depth2img_first"
"""The maps of Loopback's first loop. It stays on `p` between the loops, and goes when another job begins on it."""

SPAN: Final = "_depth2img_span"
"""The range of the first picture of a batch folder or of Loopback, which the others share; kept like `FIRST`."""

FIDELITY: Final = "Depth fidelity"
"""Infotext key of the score of a result."""

LOOPBACK: Final = "Loopback"
OVERRIDES: Final = (JOB, REPLACED, "init", "img2img_image_conditioning", "txt2img_image_conditioning")

CACHE: Final = DepthCache()
"""Maps by picture content and checkpoint; holds nothing that belongs to a request."""


@dataclasses.dataclass
class Job:
    """One request.

    Attributes:
        options: as given.
        own: the user's depth map, decoded.
        reference: the other picture, decoded.
        region: where depth counts, decoded: 0 outside .. 1 inside, over the whole picture.
        pictures: the pictures as they enter the sampler, one per sample; kept for a depth checkpoint that comes in
            later (refiner, hires).
        mask: the host's mask in the frame of the sampler, white = repaint.
        used: number of the batch -> the placed maps of its latest conditioning, one per sample; empty before and when
            depth is off. What img2img computes for all batches at once stands under one number.
        scored: how many results have their fidelity score.
        seen: the pictures of the latest conditioning.
    """

    options: DepthOptions
    own: DepthMap | None = None
    reference: Picture | None = None
    region: DepthMap | None = None
    pictures: list[FloatPicture] = dataclasses.field(default_factory=list)
    mask: Image.Image | None = None
    used: dict[int, list[Placed]] = dataclasses.field(default_factory=dict)
    scored: int = 0
    seen: list[FloatPicture] = dataclasses.field(default_factory=list)


def begin(p: Any, args: tuple[Any, ...]) -> None:
    """Called when the model of a job is final (`Script.process`). Never raises: the host would swallow the error and go
    on without depth, so `p.init` raises it instead."""
    detach(p)
    try:
        job = _job(p, args)
    except Exception as error:
        stop(p, error)
        return
    if job is None:
        return
    p.extra_generation_params.update(job.options.infotext())
    setattr(p, JOB, job)
    if not (job.options.keep_first and tiles.driving_script(p) == LOOPBACK):
        p.__dict__.pop(FIRST, None)
    if job.options.range != "shared":
        p.__dict__.pop(SPAN, None)
    _replace(
        p,
        img2img_image_conditioning=lambda *given, **named: _img2img_conditioning(p, *given, **named),
        txt2img_image_conditioning=lambda *given, **named: _txt2img_conditioning(p, *given, **named),
    )


def detach(p: Any) -> None:
    """Remove everything that `begin` and `stop` put on `p`. Safe to call at any time."""
    _take_off(p)
    for option in OPTIONS.values():
        p.extra_generation_params.pop(option.infotext, None)
    p.extra_generation_params.pop(FIDELITY, None)


def _replace(p: Any, **methods: Callable[..., Any]) -> None:
    own = p.__dict__
    own[REPLACED] = {name: (method, own.get(name)) for name, method in methods.items()}
    own.update(methods)


def _take_off(p: Any) -> None:
    own = p.__dict__
    own.pop(JOB, None)
    for name, (ours, before) in own.pop(REPLACED, {}).items():
        if own.get(name) is not ours:
            continue  # another extension has replaced it in turn
        del own[name]
        if before is not None:
            own[name] = before


def _original(p: Any, name: str) -> Callable[..., Any]:
    """What ours stands for: the host's method, or what another extension had put in its place."""
    _, before = p.__dict__.get(REPLACED, {}).get(name, (None, None))
    return before if before is not None else types.MethodType(getattr(type(p), name), p)


def stop(p: Any, error: Exception) -> None:
    """Make the job fail with this error as soon as the host begins to work on it."""

    def init(*_: Any, **__: Any) -> None:
        detach(p)
        raise for_client(error)

    _replace(p, init=init)


def for_client(error: Exception) -> Exception:
    """The same error with what the host's API answers: a 422 for what the request got wrong, the sentence always.
    Errors that are not ours are left as they are.

    `handle_exception` in modules/api/api.py reads `status_code` and `detail` from the exception.
    """
    if isinstance(error, Depth2ImgError):
        faults = (ValueError, NoDepthError, NoDepthModelError)
        error.__dict__.update(detail=str(error), status_code=422 if isinstance(error, faults) else 500)
    return error


def wants_given_depth(options: DepthOptions) -> bool:
    """Whether depth is switched on and comes from an explicitly given map or picture."""
    return options.enabled and (
        (options.source == "map" and options.depth_map is not None)
        or (options.source == "reference" and options.reference is not None)
    )


def read_options(args: tuple[Any, ...], changes: dict[str, Any] | None = None) -> DepthOptions:
    """The options from the script's arguments, as the page or the API sends them.

    Args:
        args: a list by position, or one object with names first.
        changes: named values that replace the others, from an X/Y/Z axis.

    Raises:
        Depth2ImgError: a value is bad; the message names it.
    """
    options = DepthOptions.from_args([panel.uploaded(value) for value in args])
    return dataclasses.replace(options, **changes) if changes else options


def estimate(picture: FloatPicture | Picture, model: Any) -> DepthMap:
    """The depth map of a picture by a checkpoint's own network, from the cache if it was seen.

    Raises:
        NoDepthModelError: the checkpoint has no depth network.
    """
    network = compat.depth_network(model)
    if network is None:
        raise no_depth_model(model)
    # Here, since with --nowebui the host does not know the setting and would tell nobody of a change.
    CACHE.resize(settings.cache_bytes())
    with compat.plain_forward():
        return CACHE.get_or_estimate(to_float(picture), MidasEstimator(network, key=compat.network_key(model)))


def no_depth_model(model: Any | None) -> NoDepthModelError:
    """The sentence for a checkpoint without a depth network."""
    return NoDepthModelError(
        "Depth needs a depth checkpoint.",
        got=f"the checkpoint '{compat.checkpoint_name(model)}'" if model is not None else "no checkpoint",
        fix="Select one such as 512-depth-ema, choose one under Settings > Depth to image to switch to, "
        "or untick 'Depth to image'.",
    )


def load(options: DepthOptions) -> Job:
    """A job with its pictures decoded.

    Raises:
        DepthMapError, PictureError: the source that was chosen is missing or cannot be read.
    """
    job = Job(options)
    if options.enabled and "map" in (options.source, options.under_mask):
        if options.depth_map is None:
            raise DepthMapError("'My own depth map' is chosen, but there is none.", fix="Upload a depth map.")
        job.own = read_depth_map(options.depth_map)
    if options.enabled and options.source == "reference":
        if options.reference is None:
            raise PictureError("'Another picture' is chosen, but there is none.", fix="Upload a picture.")
        job.reference = read_picture(options.reference)
    if options.enabled and options.region is not None:
        job.region = read_region(options.region)
    return job


def read_region(payload: object) -> DepthMap:
    """A mask that the user gives, as values 0 outside .. 1 inside; transparent parts are outside.

    Raises:
        PictureError: it cannot be read.
    """
    grey = to_float(read_picture(payload, background=(0, 0, 0))).mean(axis=2)
    return DepthMap(values=grey, origin="region")


def maps(p: Any, job: Job, pictures: list[FloatPicture], count: int, model: Any) -> list[Placed]:
    """The adjusted maps of a job, one per sample, in the frame of the sampler.

    Args:
        p: the job; its resize mode, crop and size are read.
        job: what the user wants.
        pictures: the pictures as they enter the sampler; not read if depth comes from elsewhere.
        count: number of samples.
        model: the checkpoint whose network estimates.
    """
    job.seen = pictures
    first = p.__dict__.get(FIRST)
    placed = first if first else _maps(p, job, pictures, model)
    if job.options.keep_first and tiles.driving_script(p) == LOOPBACK:
        p.__dict__[FIRST] = placed
    return [placed[index % len(placed)] for index in range(count)]


def _maps(p: Any, job: Job, pictures: list[FloatPicture], model: Any) -> list[Placed]:
    options, own, mask = job.options, job.own if job.options.under_mask == "map" else None, job.mask
    anew = bool(pictures) and options.hires == "estimate" and getattr(p, "is_hr_pass", False)
    if not anew and options.source != "picture":
        given = job.own if options.source == "map" else None
        if given is None and job.reference is not None:
            given = estimate(job.reference, model)
        if given is not None:
            count = len(p.init_images) if place.tiled(p) else 1
            return [
                place.place(p, given, options, own, mask, given="depth map" if index == 0 else "", index=index)
                for index in range(count)
            ]
    if not anew and place.estimates_on_original(p, options):
        originals = {id(picture): index for index, picture in reversed(list(enumerate(p.init_images)))}
        whole = {key: estimate(place.original(p, index), model) for key, index in originals.items()}
        span = _shared_span(p, options, whole.values())
        known = {
            key: place.place(p, whole[key], options, own, mask, index=index, span=span)
            for key, index in originals.items()
        }
        return [known[id(picture)] for picture in p.init_images]
    estimated = [estimate(picture, model) for picture in pictures]
    distinct = {id(depth): depth for depth in estimated}
    span = _shared_span(p, options, distinct.values())
    known = {key: place.entering(p, depth, options, own, mask, span) for key, depth in distinct.items()}
    return [known[id(depth)] for depth in estimated]


def _shared_span(p: Any, options: DepthOptions, depths: Iterable[DepthMap]) -> Span | None:
    """The range that these maps share with each other and with the earlier pictures of a sequence; None for none."""
    if options.range != "shared":
        return None
    span: Span | None = p.__dict__.setdefault(SPAN, joint_span(depths))
    return span


def start_from_noise(p: Any) -> None:
    """Take every trace of the picture out of what the sampler starts from, at denoising strength 1.

    The host adds noise to `p.init_latent`, so the picture's tones stay to some per cent even at the highest noise
    level; Stability's own script starts from `torch.randn_like` there (scripts/gradio/depth2img.py).
    `p.init_latent` becomes zero, except where a mask keeps the picture, wholly or in part: from there the host takes it
    at each step and in the end. `p.init` has just made it and makes it anew for each job: there is nothing to undo.
    """
    if p.denoising_strength < 1:
        p.comment("'Ignore source colours' acts at denoising strength 1 only.")
        return
    if p.mask is None:
        p.init_latent = torch.zeros_like(p.init_latent)
    else:
        p.init_latent = torch.where(p.mask > 0, p.init_latent, torch.zeros_like(p.init_latent))


def pictures_of(source: torch.Tensor, *, zero_to_one: bool = False) -> list[FloatPicture]:
    """The host's picture tensor -> float32 (H, W, 3) 0..1 each; equal pictures are the same object.

    Args:
        source: (B, 3, H, W), -1..1, any floating type.
        zero_to_one: the range is 0..1 already: the host's hires pass since 1.6.0.
    """
    distinct: list[tuple[torch.Tensor, FloatPicture]] = []
    pictures = []
    for sample in source.detach():
        known = next((picture for seen, picture in distinct if torch.equal(seen, sample)), None)
        if known is None:
            # The order of operations is AddMiDaS' own (ldm/data/util.py), so that no bit differs.
            unit = sample.float() if zero_to_one else (sample.float() + 1.0) * 0.5
            known = np.ascontiguousarray(unit.permute(1, 2, 0).cpu().numpy())
            distinct.append((sample, known))
        pictures.append(known)
    return pictures


def score(p: Any, picture: Any) -> None:
    """Called with each result before its infotext is made: writes how far its depth agrees with what was asked.

    Args:
        p: the job; its checkpoint estimates, if it has a depth network at the end of the job.
        picture: Pillow image, in the frame of the sampler.
    """
    job: Job | None = getattr(p, JOB, None)
    p.extra_generation_params.pop(FIDELITY, None)
    if job is None or not job.options.score or not job.used or compat.depth_network(p.sd_model) is None:
        return
    batch, position = divmod(job.scored, p.batch_size)
    used = job.used.get(batch, next(iter(job.used.values())))
    job.scored += 1
    asked = used[position % len(used)].depth
    agreement = structure(asked, estimate(read_picture(picture), p.sd_model))
    p.extra_generation_params[FIDELITY] = f"{agreement:.3f}"


def finish(p: Any, processed: Any) -> None:
    """Called when the pictures are done: append and save maps, then take everything off `p`."""
    job: Job | None = getattr(p, JOB, None)
    try:
        if job is not None and job.used:
            if job.options.save_map:
                _save_maps(p, processed, job)
            if job.options.append_map and not _driven_by_script(p):
                used = [placed.depth for batch in job.used.values() for placed in batch]
                distinct = {depth.values.tobytes(): depth for depth in used}.values()
                processed.images.extend(
                    depth.resized(p.width, p.height).to_image(settings.colour_map()) for depth in distinct
                )
    finally:
        _take_off(p)


def _job(p: Any, args: tuple[Any, ...]) -> Job | None:
    options = read_options(args, xyz.values(p))
    has_network = compat.depth_network(p.sd_model) is not None
    if not has_network and not _other_checkpoints(p):
        if wants_given_depth(options):
            raise no_depth_model(p.sd_model)
        return None
    job = load(options)
    if has_network and options.enabled and options.source == "picture" and not _has_picture(p):
        raise NoDepthError(
            "A depth checkpoint needs depth, and txt2img has no picture to take it from.",
            fix="Under 'Depth to image' give another picture or a depth map, or use img2img, "
            "or untick 'Depth to image' to generate without depth.",
        )
    return job


def _has_picture(p: Any) -> bool:
    """Whether the job works on a picture: img2img, or txt2img that only upscales one (`firstpass_image`)."""
    return hasattr(p, "init_images") or (getattr(p, "firstpass_image", None) is not None and p.enable_hr)


def _other_checkpoints(p: Any) -> bool:
    """Whether a second checkpoint may come in during the job."""
    hires = getattr(p, "enable_hr", False) and getattr(p, "hr_checkpoint_name", None) not in (
        None,
        "",
        "Use same checkpoint",
    )
    return hires or getattr(p, "refiner_checkpoint_info", None) is not None


def condition(p: Any, job: Job, pictures: list[FloatPicture], latent: torch.Tensor) -> torch.Tensor:
    """Conditioning for a latent (B, C, h, w): (B, 1, h, w) on its device, in the UNet's type."""
    count, (height, width) = latent.shape[0], latent.shape[-2:]
    if not job.options.enabled:
        tensor = neutral(count, height=height, width=width, level=job.options.neutral)
    else:
        used = maps(p, job, pictures, count, p.sd_model)
        job.used[p.iteration] = used
        depths, spans = [placed.depth for placed in used], [placed.span for placed in used]
        tensor = conditioning(depths, height=height, width=width, spans=spans)
        if job.region is not None:
            region = _region(p, job.region, count if place.tiled(p) else 1, height, width)
            tensor = schedule.inside(tensor, region, job.options.neutral)
    return tensor.to(device=latent.device, dtype=compat.conditioning_dtype())


def _region(p: Any, region: DepthMap, count: int, height: int, width: int) -> torch.Tensor:
    frames = [
        place.boxed(p, place.fitted(p, region, "" if index else "region", index=index), index=index)
        for index in range(count)
    ]
    return torch.cat([schedule.region_tensor(framed, height=height, width=width) for framed in frames])


def _img2img_conditioning(
    p: Any, source_image: torch.Tensor, latent_image: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Stands for `img2img_image_conditioning`: img2img, inpaint, and the hires pass after a pixel upscaler."""
    job: Job | None = getattr(p, JOB, None)
    if job is None:  # another extension has kept ours beyond the job
        return _original(p, "img2img_image_conditioning")(source_image, latent_image, *args, **kwargs)
    job.mask = kwargs.get("image_mask", args[0] if args else None)
    hires_pixels = getattr(p, "is_hr_pass", False) and getattr(p, "latent_scale_mode", None) is None
    try:
        pictures = pictures_of(source_image, zero_to_one=hires_pixels)
        if compat.depth_network(p.sd_model) is not None:
            tensor = condition(p, job, pictures, latent_image)
            if job.options.enabled and job.options.ignore_colours and hasattr(p, "init_images"):
                start_from_noise(p)
            return tensor
        job.pictures = pictures
        return _original(p, "img2img_image_conditioning")(source_image, latent_image, *args, **kwargs)
    except Exception as error:
        detach(p)
        raise for_client(error) from error.__cause__


def _txt2img_conditioning(p: Any, x: torch.Tensor, width: int | None = None, height: int | None = None) -> torch.Tensor:
    """Stands for `txt2img_image_conditioning`: the first pass, and the hires pass after a latent upscaler."""
    job: Job | None = getattr(p, JOB, None)
    if job is None or compat.depth_network(p.sd_model) is None:
        return _original(p, "txt2img_image_conditioning")(x, width, height)
    pictures: list[FloatPicture] = []
    try:
        anew = job.options.hires == "estimate" and getattr(p, "is_hr_pass", False)
        if job.options.enabled and (job.options.source == "picture" or anew):
            # Only a hires pass gets here: `begin` has refused a first pass without a picture.
            pictures = pictures_of(processing.decode_first_stage(p.sd_model, x).clamp(-1, 1))
        return condition(p, job, pictures, x)
    except Exception as error:
        detach(p)
        raise for_client(error) from error.__cause__


def _driven_by_script(p: Any) -> bool:
    """Whether a script of the dropdown runs this job: such scripts take every picture of the result for their own."""
    args: Any = getattr(p, "script_args", None)
    return bool(args) and args[0] not in (None, 0)


def _save_maps(p: Any, processed: Any, job: Job) -> None:
    with_mask = getattr(p, "mask_for_overlay", None) is not None
    extras = with_mask * (bool(shared.opts.return_mask) + bool(shared.opts.return_mask_composite))
    pictures = processed.images[processed.index_of_first_image :: 1 + extras]
    first = next(iter(job.used.values()))
    for index, picture in enumerate(pictures):
        saved = getattr(picture, "already_saved_as", None)
        if saved is None:
            # `p.comment` would be too late: the result has taken over its comments already.
            processed.comments += "Depth maps are saved only beside saved pictures, and this picture was not saved.\n"
            return
        batch, position = divmod(index, p.batch_size)
        used = job.used.get(batch, first)
        path = Path(saved)
        depth = place.at_picture_size(p, used[position % len(used)], picture.size)
        depth.save(path.with_name(f"{path.stem}-depth.png"))
