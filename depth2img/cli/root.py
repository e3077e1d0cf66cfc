"""The command line: estimate | generate | view | batch | compare | checkpoint | estimator | convert | app | demo.

Usage and input errors end with one sentence and exit code 2. torch, diffusers, transformers and gradio are imported by
the commands that need them, when they need them.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .. import __version__
from ..depth.colour_maps import COLOUR_MAPS
from ..diffusion.settings import Settings, in_section
from ..errors import Depth2ImgError, OptionError
from ..options import ADJUSTMENTS, OPTIONS, DepthOptions
from . import flags
from .adjust import adjust_command
from .batch import batch
from .checkpoint import checkpoint, convert
from .estimator import estimator
from .flags import (
    device_flag,
    dtype_flag,
    from_flag,
    json_flag,
    library_flags,
    model_flag,
    output_flag,
    pictures_argument,
    progress,
    report,
    speed_flags,
)
from .view import view_command

if TYPE_CHECKING:
    from ..diffusion import Engine
    from ..diffusion.library import Library
    from ..estimators.pool import EstimatorPool

USER_ERROR: Final = 2
EXTRAS: Final = {
    "diffusers": "diffusers",
    "transformers": "diffusers",
    "huggingface_hub": "diffusers",
    "lark": "diffusers",
    "av": "film",
    "gradio": "app",
    "ray": "ray",
}
"""Optional package that a command needs -> the extra that installs it."""

ENVIRONMENT: Final = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    # Rounds that an idle thread of GNU OpenMP spins before it sleeps. With libgomp's default of 300,000,
    # `depth2img demo` took 22 to 150 s next to one busy process, with this value 15 s; on an idle machine, both take
    # 6 s.
    "GOMP_SPINCOUNT": "1000",
}
"""Variables that libraries read when they are loaded; set unless the user has set them."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with: depth2img demo",
)
@click.version_option(__version__, prog_name="depth2img")
def app() -> None:
    """Stable Diffusion 2 depth-to-image: generate pictures that keep the depth of a given one."""


def main() -> None:
    """Run the command line; exit with 0, 1 (check failed), 2 (usage or input error) or 130 (interrupted)."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Depth2ImgError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USER_ERROR)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        fix = f"Run: pip install 'sd-webui-depth2img[{EXTRAS[name]}]'."
        click.echo(f"Error: The package {name} is not installed. {fix}", err=True)
        sys.exit(USER_ERROR)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; no incomplete file is left.", err=True)
        sys.exit(flags.INTERRUPTED)
    if code:  # given to `Context.exit` by a command whose check failed
        sys.exit(code)


def _engine(
    model: str,
    device: str,
    dtype: str,
    speed: Mapping[str, bool],
    pool: EstimatorPool | None = None,
    library: Library | None = None,
) -> Engine:
    from ..diffusion import Engine

    return Engine.open(model, device=device, dtype=dtype, pool=pool, library=library, **speed)


@app.command(
    epilog="""\b
Examples:
  depth2img estimate photo.jpg
  depth2img estimate *.jpg -o maps --colour-map inferno
  depth2img estimate photo.jpg -m 512-depth-ema.safetensors -o photo.tiff --json
  depth2img estimate photo.jpg --estimator models/Depth-Anything-V2-Small-hf"""
)
@pictures_argument
@output_flag
@click.option("--colour-map", type=click.Choice(list(COLOUR_MAPS)), help="Also write the map in these colours.")
@model_flag
@device_flag
@json_flag
@flags.depth_flags(*(name for name in OPTIONS if name not in (*ADJUSTMENTS, "estimator")))
def estimate(
    pictures: tuple[Path, ...],
    depth: DepthOptions,
    output: Path | None,
    colour_map: str | None,
    model: str,
    device: str,
    as_json: bool,
) -> None:
    """Estimate depth: 16-bit PNG (white = near), or .tiff or .npy with the estimator's raw values."""
    from ..depth.adjustments import adjust
    from ..diffusion import load_estimator
    from ..diffusion.results import MAP_ENDING, view
    from ..io.images import read_picture, to_float
    from ..io.saving import save_picture

    several = len(pictures) > 1
    targets = [flags.output_path(output, source, MAP_ENDING, several=several) for source in pictures]
    shown = [path.with_name(f"{path.stem}-{colour_map}.png") for path in targets if colour_map is not None]
    flags.check_targets([*zip(pictures, targets, strict=True), *zip(pictures, shown, strict=False)])
    decoded = [read_picture(source) for source in pictures]
    estimator = load_estimator(model, device=device, estimator=depth.estimator)
    results: list[dict[str, Any]] = []
    with progress("Estimating", quiet=as_json) as tell:
        for index, (source, picture, path) in enumerate(zip(pictures, decoded, targets, strict=True)):
            found = adjust(estimator.estimate(to_float(picture)), depth)
            found.save(path)
            written = [path]
            if colour_map is not None:
                written.append(path.with_name(f"{path.stem}-{colour_map}.png"))
                save_picture(view(found, picture, colour_map), written[-1])
            far, near = found.range
            size = {"width": found.width, "height": found.height}
            results.append({"picture": str(source), "files": [*map(str, written)], **size, "far": far, "near": near})
            tell(index + 1, len(pictures))
            if found.notice:
                click.echo(f"{source}: {found.notice}", err=True)
    lines = [f"{one['picture']} -> {', '.join(one['files'])} ({one['width']} x {one['height']})" for one in results]
    report({"maps": results}, lines, as_json=as_json)


@app.command(
    epilog="""\b
Examples:
  depth2img generate room.png -p "a red cube on a blue floor, night" -s 1
  depth2img generate room.png -p "a green sphere" --mask mask.png
  depth2img generate room.png -p "an empty floor" --mask mask.png --masked-content fill --under-mask fill
  depth2img generate photo.jpg -m 512-depth-ema.safetensors -p "an oil painting" --depth own-map.png
  depth2img generate a.png b.png -o results --depth-from pose.jpg --json
  depth2img generate photo.jpg -p "an oil painting" --hr-scale 1.5 --hires estimate
  depth2img generate photo.jpg -m 512-depth-ema.safetensors --from 00012-1234.png"""
)
@pictures_argument
@output_flag
@click.option(
    "--mask", "masks", type=flags.PATH, multiple=True, help="Repaint what is white here; one mask, or one per picture."
)
@model_flag
@device_flag
@dtype_flag
@speed_flags
@library_flags
@json_flag
@from_flag
@flags.setting_flags()
@flags.depth_flags()
def generate(
    pictures: tuple[Path, ...],
    settings: Settings,
    depth: DepthOptions,
    output: Path | None,
    masks: tuple[Path, ...],
    model: str,
    device: str,
    dtype: str,
    speed: Mapping[str, bool],
    library: Library,
    as_json: bool,
) -> None:
    """Generate: depth-to-image, or depth inpainting with --mask. Each picture keeps its own depth."""
    from ..diffusion.results import result_paths, save_result
    from ..io.images import read_picture
    from ..io.saving import picture_path

    several = len(pictures) > 1
    targets = [
        picture_path(flags.output_path(output, source, "-depth2img.png", several=several)) for source in pictures
    ]
    flags.check_targets(
        [(source, one) for source, path in zip(pictures, targets, strict=True) for one in result_paths(path, depth)]
    )
    chosen = _one_each(masks, len(pictures))
    decoded = [read_picture(source) for source in pictures]
    given = flags.with_map_read(depth)
    if depth.enabled and depth.source == "picture":
        flags.tell_depth_inside(pictures)
    engine = _engine(model, device, dtype, speed, library=library)
    with progress("Generating", quiet=as_json) as tell:
        results = engine.generate(decoded, settings, given, masks=chosen, on_step=tell)
    values: list[dict[str, Any]] = []
    for source, path, result in zip(pictures, targets, results, strict=True):
        written = save_result(result, path, depth)
        values.append({"picture": str(source), "files": [*map(str, written)], "seed": result.seed})
        values[-1]["infotext"] = result.infotext
        if result.fidelity is not None:
            values[-1]["fidelity"] = round(result.fidelity, 3)
    used = {**dataclasses.asdict(settings), **depth.infotext(), "model": model}
    lines = []
    for one in values:
        score = f", depth fidelity {one['fidelity']:.3f}" if "fidelity" in one else ""
        lines.append(f"{one['picture']} -> {', '.join(one['files'])} (seed {one['seed']}{score})")
    report({"results": values, "settings": used}, lines, as_json=as_json)


def _one_each(masks: tuple[Path, ...], count: int) -> list[Path] | None:
    if len(masks) not in (0, 1, count):
        raise OptionError("mask", "Give one mask, or one per picture.", got=f"{len(masks)} masks for {count} pictures")
    return list(masks) * (count if len(masks) == 1 else 1) or None


@app.command(
    epilog="""\b
Examples:
  depth2img compare room.png -p "a white cone on a green floor"
  depth2img compare photo.jpg -m stable-diffusion-2-depth -p "a marble statue" --steps 30 -o figure.png"""
)
@click.argument("picture", type=flags.PATH)
@output_flag
@click.option(
    "--strength",
    "strengths",
    type=float,
    multiple=True,
    help="A column; may be given several times.  [default: 0.4, 0.5 ... 1.0]",
)
@model_flag
@device_flag
@dtype_flag
@speed_flags
@library_flags
@json_flag
@flags.setting_flags("denoising_strength", *in_section("mask", "hires"))
# --strength is a denoising strength here; there are neither masks nor a hires pass, and there is always a score
@flags.depth_flags("enabled", "append_map", "save_map", "strength", "score", "under_mask", "hires")
def compare(
    picture: Path,
    settings: Settings,
    depth: DepthOptions,
    output: Path | None,
    strengths: tuple[float, ...],
    model: str,
    device: str,
    dtype: str,
    speed: Mapping[str, bool],
    library: Library,
    as_json: bool,
) -> None:
    """Compare img2img and depth2img on one checkpoint over denoising strengths, as one labelled figure."""
    from ..io.images import read_picture
    from ..io.saving import picture_path, save_picture
    from . import compare as comparing

    target = picture_path(flags.output_path(output, picture, "-compare.png", several=False))
    decoded = read_picture(picture)
    depth = flags.with_map_read(depth)
    engine = _engine(model, device, dtype, speed, library=library)
    with progress("Comparing", quiet=as_json) as tell:
        made = comparing.compare(
            engine, decoded, settings, depth, strengths=strengths or comparing.STRENGTHS, on_step=tell
        )
    save_picture(made.figure(settings.prompt), target)
    scores = made.scores(engine)
    lines = [f"{picture} -> {target}", "", "Correlation with the depth map:", *comparing.table(scores)]
    report({"figure": str(target), "correlation": [dataclasses.asdict(one) for one in scores]}, lines, as_json=as_json)


app.add_command(adjust_command)
app.add_command(batch)
app.add_command(checkpoint)
app.add_command(convert)
app.add_command(estimator)
app.add_command(view_command)


@app.command(
    name="app",
    epilog="""\b
Examples:
  depth2img app
  depth2img app -m 512-depth-ema.safetensors -o results --port 7870""",
)
@click.option("-o", "--output", type=flags.PATH, help="Folder for the results.  [default: results are only shown]")
@click.option("--port", type=click.IntRange(1024, 65535), default=7861, show_default=True, help="Port on 127.0.0.1.")
@click.option("--open/--no-open", "open_browser", default=True, show_default=True, help="Open the page in a browser.")
@click.option(
    "--estimators", type=flags.PATH, help="Folder that holds further depth models, each in a folder of its own."
)
@model_flag
@device_flag
@dtype_flag
@speed_flags
@library_flags
def app_command(
    output: Path | None,
    port: int,
    open_browser: bool,
    estimators: Path | None,
    model: str,
    device: str,
    dtype: str,
    speed: Mapping[str, bool],
    library: Library,
) -> None:
    """Serve the panel as a page on this machine: img2img, inpainting, depth preview."""
    from ..estimators.pool import EstimatorPool
    from ..gui import app as page

    if estimators is not None and not estimators.is_dir():
        raise OptionError("estimators", f"There is no folder {estimators}.", fix="Create it first.")
    # Names from a page are never paths: only those of the folder are accepted.
    engine = _engine(model, device, dtype, speed, EstimatorPool(estimators), library)
    click.echo(f"Serving on http://{page.HOST}:{port}; stop with Ctrl+C.", err=True)
    page.serve(engine, port=port, folder=output, open_browser=open_browser)


@app.command(
    epilog="""\b
Example:
  depth2img demo -o my-demo"""
)
@click.option(
    "-o", "--output", type=flags.PATH, default=Path("demo-output"), show_default=True, help="Folder to write into."
)
@model_flag
@device_flag
@dtype_flag
@speed_flags
@json_flag
def demo(output: Path, model: str, device: str, dtype: str, speed: Mapping[str, bool], as_json: bool) -> None:
    """Run everything on a sample picture: depth, comparison, another light, repainting and removing an object."""
    from . import demo as showing

    engine = _engine(model, device, dtype, speed)
    with progress("Demo", quiet=as_json) as tell:
        shown = showing.run(engine, output, on_step=tell)
    report(shown.to_json(), shown.lines(), as_json=as_json)
