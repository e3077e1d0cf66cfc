"""REST routes under /depth2img/v1: status, options, estimators, and depth maps without generating anything.

They exist where the host's own API does (`--api`, `--nowebui`), behind the same `--api-auth`, and in the same OpenAPI
page. What a request got wrong is answered by 4xx with the library's sentence as `detail`.
"""

from __future__ import annotations

import base64
import io
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import call_queue, devices, shared
from pydantic import BaseModel, Field

from depth2img import OPTIONS, Depth2ImgError, DepthMap, DepthOptions, OptionError, read_picture
from depth2img.depth.adjustments import finish
from depth2img.depth.colour_maps import check_colour_map
from depth2img.depth.hints import hints
from depth2img.depth.reading import MapReader
from depth2img.options import ADJUSTMENTS, CHECKPOINT, MAP_OPTIONS

from . import estimators, settings
from .errors import for_client
from .hosts import compat, host
from .jobs import maps
from .page import status

PREFIX: Final = "/depth2img/v1"
LARGEST_BODY: Final = 64 * 1024 * 1024
"""Of a request, in bytes: a 16-bit map of 4096 x 4096 as base64 fits."""

MOST_PLACES: Final = 20
"""Of what is wrong with a body, in one answer."""

_ROOM: Final = threading.BoundedSemaphore(2)
"""So many maps of callers are worked on at once: one of 8192 x 8192 takes gigabytes meanwhile."""

COLOUR_MAPS: Final = "grey, inferno, magma, viridis or turbo"


class Status(BaseModel):
    state: str = Field(
        description="ready; wrong: no depth checkpoint; failed: loading it failed; host: no Stable Diffusion 2"
    )
    message: str = Field(description="The sentence that the panel shows.")
    checkpoint: str | None = Field(None, nullable=True, description="The checkpoint in memory.")


class OptionItem(BaseModel):
    name: str
    kind: str = Field(description="switch, number, choice, text or image")
    default: Any
    label: str
    help: str
    infotext: str = Field(description="Key in the infotext and name of the X/Y/Z axis; empty for images.")
    minimum: float | None = Field(None, nullable=True)
    maximum: float | None = Field(None, nullable=True)
    step: float | None = Field(None, nullable=True)
    choices: dict[str, str] | None = Field(None, nullable=True, description="Value -> label.")


class Estimators(BaseModel):
    estimators: list[str]
    default: str


class Problem(BaseModel):
    detail: str | list[dict[str, Any]] = Field(
        description="What was wrong, what arrived and what to do; a list of places and messages where a field is "
        "missing, unknown or of another type."
    )


class EstimateRequest(BaseModel, extra="forbid"):
    image: str = Field(description="The picture: base64 or a data URL.")
    estimator: str = Field(CHECKPOINT, description="A name from /estimators.")
    options: dict[str, Any] = Field(default_factory=dict, description=f"Adjustments: {', '.join(ADJUSTMENTS)}.")
    colour_map: str = Field("grey", description=f"Of the preview: {COLOUR_MAPS}.")


class AdjustRequest(BaseModel, extra="forbid"):
    depth_map: str = Field(description="PNG, TIFF, EXR, PFM, .npy or .npz, as base64 or a data URL.")
    options: dict[str, Any] = Field(
        default_factory=dict, description=f"How it is read and adjusted: {', '.join(MAP_OPTIONS)}."
    )
    colour_map: str = Field("grey", description=f"Of the preview: {COLOUR_MAPS}.")


class MapResponse(BaseModel):
    depth_map: str = Field(description="16-bit grey PNG, base64; 65535 = nearest.")
    preview: str = Field(description="8-bit RGB PNG, base64.")
    width: int
    height: int
    minimum: float = Field(description="Farthest value before adjustment, as estimated or read.")
    maximum: float = Field(description="Nearest value before adjustment.")
    origin: str
    notice: str = Field("", description="How it came about, where that is worth knowing.")
    notices: list[str] = Field(
        default_factory=list, description="Everything noteworthy: how the map was read or made, what it seems to be."
    )
    seconds: float


class BoundedRoute(APIRoute):
    """Refuses a body that is too large before anything of it is read, and says briefly what is wrong with another."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if request.method == "POST":
                length = request.headers.get("content-length", "")
                if not length.isdecimal():
                    raise HTTPException(411, "The request must say how long it is (Content-Length).")
                if len(length) > 12 or int(length) > LARGEST_BODY:
                    raise HTTPException(413, f"The request is larger than {LARGEST_BODY // 2**20} megabytes.")
            try:
                return await inner(request)
            except RequestValidationError as error:
                raise HTTPException(422, _places(error)) from error

        return handler


def _places(error: RequestValidationError) -> list[dict[str, Any]]:
    """Build FastAPI's own answer without the request's body.

    FastAPI repeats a body that is not JSON: half a surrogate pair in it cannot be sent back, and the rest is as long as
    the body.
    """

    def sent(value: object) -> object:
        return value if isinstance(value, int) else str(value)[:200].encode("utf-8", "backslashreplace").decode()

    return [
        {"loc": [sent(part) for part in one["loc"]], "msg": sent(one["msg"]), "type": one["type"]}
        for one in error.errors()[:MOST_PLACES]
    ]


def add(_: Any, app: FastAPI) -> None:
    """Add the routes; called by the host's `on_app_started`, also after each "Reload UI"."""
    if not (shared.cmd_opts.api or shared.cmd_opts.nowebui) or any(
        getattr(route, "path", "").startswith(PREFIX) for route in app.routes
    ):
        return
    guards = [Depends(_authenticated)] if shared.cmd_opts.api_auth else []
    problems: dict[int | str, dict[str, Any]] = {401: {"model": Problem}} if guards else {}
    bad: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 411, 413, 422, 500)}
    router = APIRouter(
        prefix=PREFIX, route_class=BoundedRoute, dependencies=guards, tags=["Depth to image"], responses=problems
    )
    router.add_api_route("/status", get_status, methods=["GET"], response_model=Status)
    router.add_api_route("/options", get_options, methods=["GET"], response_model=list[OptionItem])
    router.add_api_route("/estimators", get_estimators, methods=["GET"], response_model=Estimators)
    router.add_api_route("/estimate", post_estimate, methods=["POST"], response_model=MapResponse, responses=bad)
    router.add_api_route("/adjust", post_adjust, methods=["POST"], response_model=MapResponse, responses=bad)
    app.include_router(router)


def get_status() -> Status:
    """Report whether a depth checkpoint is in use; loads nothing."""
    state, message = status.status()
    model = host().known()
    return Status(state=state, message=message, checkpoint=compat.checkpoint_name(model) if model else None)


def get_options() -> list[OptionItem]:
    """List every option that a generation request may carry, in the order of the positional list."""
    return [
        OptionItem(
            name=option.name,
            kind=option.kind,
            default=option.default,
            label=option.label,
            help=option.help,
            infotext=option.infotext,
            minimum=option.minimum if option.kind == "number" else None,
            maximum=option.maximum if option.kind == "number" else None,
            step=option.step if option.kind == "number" else None,
            choices=dict(option.choices) if option.kind == "choice" else None,
        )
        for option in OPTIONS.values()
    ]


def get_estimators() -> Estimators:
    """List the names of the estimators."""
    return Estimators(estimators=estimators.POOL.names(), default=settings.default("estimator"))


def post_estimate(request: EstimateRequest) -> MapResponse:
    """Estimate the depth map of a picture, and adjust it."""

    def make(options: DepthOptions) -> tuple[DepthMap, list[str]]:
        name = OPTIONS["estimator"].check(request.estimator)
        with call_queue.queue_lock:
            # Decoded only when it is its turn, so that a queue of large pictures lies in memory as it was sent.
            picture = read_picture(request.image)
            # Only its own network needs the checkpoint, which is loaded when it is asked for.
            depth = maps.estimate(picture, host().ready() if name == CHECKPOINT else None, name)
            devices.torch_gc()
        return depth, [depth.notice] if depth.notice else []

    return _answer(make, request.options, ADJUSTMENTS, request.colour_map)


def post_adjust(request: AdjustRequest) -> MapResponse:
    """Adjust a depth map of the caller's; its size is kept."""

    def make(options: DepthOptions) -> tuple[DepthMap, list[str]]:
        depth = MapReader.of(options)(request.depth_map)
        return depth, [*hints(depth, options).values()]

    with _ROOM:
        return _answer(make, request.options, MAP_OPTIONS, request.colour_map)


def _answer(
    make: Callable[[DepthOptions], tuple[DepthMap, list[str]]],
    options: dict[str, Any],
    allowed: Sequence[str],
    colour_map: str,
) -> MapResponse:
    started = time.perf_counter()
    try:
        for name in options:
            if name not in allowed:
                raise OptionError(name, f"'{name[:40]}' is not an adjustment.", fix=f"Use {', '.join(allowed)}.")
        checked = DepthOptions.from_mapping(options)
        check_colour_map(colour_map)
        raw, notices = make(checked)
        shown, span = finish(raw, checked)
        preview = io.BytesIO()
        shown.to_image(colour_map, span).save(preview, "PNG")
    except Depth2ImgError as error:
        answer: Any = for_client(error)
        raise HTTPException(answer.status_code, answer.detail) from error
    low, high = raw.range
    return MapResponse(
        depth_map=base64.b64encode(shown.to_png(span)).decode(),
        preview=base64.b64encode(preview.getvalue()).decode(),
        width=shown.width,
        height=shown.height,
        minimum=low,
        maximum=high,
        origin=raw.origin,
        notice=raw.notice,
        notices=notices,
        seconds=round(time.perf_counter() - started, 4),
    )


def _authenticated(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:  # noqa: B008
    """Apply the host's rule (`Api.auth`, modules/api/api.py): "user:password", several separated by commas."""
    given = f"{credentials.username}:{credentials.password}".encode()
    known = [pair.encode() for pair in str(shared.cmd_opts.api_auth).split(",")]
    if not any([secrets.compare_digest(given, pair) for pair in known]):
        raise HTTPException(401, "Incorrect username or password", headers={"WWW-Authenticate": "Basic"})
