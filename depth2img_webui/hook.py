"""Puts depth conditioning on a job and takes it off again; keeps errors and raises them where the host listens.

All state of a request lives in a `Job` on `p`. What is put on the instance `p` is listed in `OVERRIDES` and removed by
`detach`: when the job is done, when it fails, and when the next run on the same `p` begins. What other extensions have
put there stays or comes back.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from modules import processing, shared

from depth2img import (
    Depth2ImgError,
    DepthCache,
    DepthMap,
    DepthMapError,
    DepthOptions,
    MidasEstimator,
    NoDepthError,
    NoDepthModelError,
    adjust,
    conditioning,
    geometry,
    neutral,
    panel,
    read_depth_map,
    read_picture,
)
from depth2img.errors import PictureError
from depth2img.images import FloatPicture, Picture, to_float
from depth2img.options import OPTIONS

from . import compat

JOB: Final = "_depth2img_job"
REPLACED: Final = "_depth2img_replaced"
OVERRIDES: Final = (JOB, REPLACED, "init", "img2img_image_conditioning", "txt2img_image_conditioning")

CACHE: Final = DepthCache()
"""Maps by picture content and checkpoint; holds nothing that belongs to a request."""

CROP_AND_RESIZE: Final = geometry.RESIZE_MODES.index("Crop and resize")
RESIZE_AND_FILL: Final = geometry.RESIZE_MODES.index("Resize and fill")


@dataclasses.dataclass
class Job:
    """One request.

    Attributes:
        options: as given.
        own: the user's depth map, decoded.
        reference: the other picture, decoded.
        pictures: the pictures as they enter the sampler, one per sample; kept for a depth checkpoint that comes in
            later (refiner, hires).
        used: number of the batch -> the adjusted maps of its latest conditioning, one per sample; empty before and when
            depth is off. What img2img computes for all batches at once stands under one number.
        raw: the maps of the latest conditioning before they were adjusted.
        seen: the pictures that they were estimated from; empty if the user gave a map or another picture.
    """

    options: DepthOptions
    own: DepthMap | None = None
    reference: Picture | None = None
    pictures: list[FloatPicture] = dataclasses.field(default_factory=list)
    used: dict[int, list[DepthMap]] = dataclasses.field(default_factory=dict)
    raw: list[DepthMap] = dataclasses.field(default_factory=list)
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


def read_options(args: tuple[Any, ...]) -> DepthOptions:
    """The options from the script's arguments, as the page or the API sends them.

    Raises:
        Depth2ImgError: a value is bad; the message names it.
    """
    return DepthOptions.from_args([panel.uploaded(value) for value in args])


def estimate(picture: FloatPicture | Picture, model: Any) -> DepthMap:
    """The depth map of a picture by a checkpoint's own network, from the cache if it was seen.

    Raises:
        NoDepthModelError: the checkpoint has no depth network.
    """
    network = compat.depth_network(model)
    if network is None:
        raise no_depth_model(model)
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
    if options.enabled and options.source == "map":
        if options.depth_map is None:
            raise DepthMapError("'My own depth map' is chosen, but there is none.", fix="Upload a depth map.")
        job.own = read_depth_map(options.depth_map)
    if options.enabled and options.source == "reference":
        if options.reference is None:
            raise PictureError("'Another picture' is chosen, but there is none.", fix="Upload a picture.")
        job.reference = read_picture(options.reference)
    return job


def maps(p: Any, job: Job, pictures: list[FloatPicture], count: int, model: Any) -> list[DepthMap]:
    """The adjusted maps of a job, one per sample, in the frame of the sampler.

    Args:
        p: the job; its resize mode, crop and size are read.
        job: what the user wants.
        pictures: the pictures as they enter the sampler; not read if the user gave a map or another picture.
        count: number of samples.
        model: the checkpoint whose network estimates.
    """
    if job.own is not None:
        placed = [_place(p, job.own)] * count
    elif job.reference is not None:
        placed = [_place(p, estimate(job.reference, model))] * count
    else:
        placed = [estimate(picture, model) for picture in pictures]
        placed = [placed[index % len(placed)] for index in range(count)]
    job.raw, job.seen = placed, pictures
    distinct = {id(depth): depth for depth in placed}
    adjusted = {key: adjust(depth, job.options) for key, depth in distinct.items()}
    return [adjusted[id(depth)] for depth in placed]


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


def finish(p: Any, processed: Any) -> None:
    """Called when the pictures are done: append and save maps, then take everything off `p`."""
    job: Job | None = getattr(p, JOB, None)
    try:
        if job is not None and job.used:
            if job.options.save_map:
                _save_maps(p, processed, job)
            if job.options.append_map and not _driven_by_script(p):
                distinct = {depth.values.tobytes(): depth for used in job.used.values() for depth in used}.values()
                processed.images.extend(depth.resized(p.width, p.height).to_image() for depth in distinct)
    finally:
        _take_off(p)


def _job(p: Any, args: tuple[Any, ...]) -> Job | None:
    options = read_options(args)
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
        tensor = neutral(count, height=height, width=width)
    else:
        used = maps(p, job, pictures, count, p.sd_model)
        job.used[p.iteration] = used
        tensor = conditioning(used, height=height, width=width)
    return tensor.to(device=latent.device, dtype=compat.conditioning_dtype())


def _img2img_conditioning(
    p: Any, source_image: torch.Tensor, latent_image: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Stands for `img2img_image_conditioning`: img2img, inpaint, and the hires pass after a pixel upscaler."""
    job: Job | None = getattr(p, JOB, None)
    if job is None:  # another extension has kept ours beyond the job
        return _original(p, "img2img_image_conditioning")(source_image, latent_image, *args, **kwargs)
    hires_pixels = getattr(p, "is_hr_pass", False) and getattr(p, "latent_scale_mode", None) is None
    try:
        pictures = pictures_of(source_image, zero_to_one=hires_pixels)
        if compat.depth_network(p.sd_model) is not None:
            return condition(p, job, pictures, latent_image)
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
        if job.options.enabled and job.options.source == "picture":
            # Only a hires pass gets here: `begin` has refused a first pass without a picture.
            pictures = pictures_of(processing.decode_first_stage(p.sd_model, x).clamp(-1, 1))
        return condition(p, job, pictures, x)
    except Exception as error:
        detach(p)
        raise for_client(error) from error.__cause__


def _place(p: Any, depth: DepthMap) -> DepthMap:
    """A map of a whole picture -> the frame of the sampler, by the geometry that the host applies to the picture."""
    mode = getattr(p, "resize_mode", CROP_AND_RESIZE)
    box = _crop_box(p)
    frame = (p.width, p.height) if box is None else p.init_images[0].size
    whole = geometry.fit(depth, width=frame[0], height=frame[1], resize_mode=mode)
    if not geometry.same_proportions(depth, *frame):
        p.comment(
            f"The depth map has other proportions ({depth.width} x {depth.height}) than the picture "
            f"({frame[0]} x {frame[1]}): '{geometry.RESIZE_MODES[mode]}' was applied to it."
        )
    if box is None:
        return whole
    part = geometry.crop(whole, picture_size=frame, box=box)
    return geometry.fit(part, width=p.width, height=p.height, resize_mode=RESIZE_AND_FILL)


def _crop_box(p: Any) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what an only-masked job cuts out of the picture; None for all other jobs."""
    # With a blank mask the host unsets `inpaint_full_res` and leaves the box of an earlier picture of the batch tab.
    if getattr(p, "paste_to", None) is None or not getattr(p, "inpaint_full_res", False):
        return None
    left, top, width, height = p.paste_to
    return left, top, left + width, top + height


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
        depth = _at_picture_size(p, used[position % len(used)], picture.size)
        depth.save(path.with_name(f"{path.stem}-depth.png"))


def _at_picture_size(p: Any, depth: DepthMap, size: tuple[int, int]) -> DepthMap:
    """The map at the picture's size; of an only-masked job the crop in its place, the rest far."""
    box = _crop_box(p)
    if box is None or not shared.opts.overlay_inpaint:  # without the overlay the picture is the crop alone
        return depth.resized(*size)
    left, top, right, bottom = box
    canvas = np.zeros((size[1], size[0]), np.float32)
    canvas[top:bottom, left:right] = depth.resized(right - left, bottom - top).normalised()
    return dataclasses.replace(depth, values=canvas)
