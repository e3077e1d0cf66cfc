"""Flags of the command line, made from the tables of options, and what all commands do alike."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ..diffusion.settings import CHOICES, DEVICES, DTYPES, Settings
from ..errors import OptionError
from ..options import OPTIONS, WEBUI_ONLY, DepthOptions, Option

Command = TypeVar("Command", bound=Callable[..., Any])

PATH: Final = click.Path(path_type=Path)

INTERRUPTED: Final = 130
"""Exit code of a command that Ctrl+C or SIGTERM has ended."""

NOT_HERE: Final = ("source", *WEBUI_ONLY)
"""Options without a flag: `source` follows from the files that are given."""

PAYLOAD_FLAGS: Final = {"depth_map": "--depth", "reference": "--depth-from"}
"""Files that depth comes from have a name of their own here."""

SETTING_HELP: Final[Mapping[str, str]] = {
    "prompt": "What to show.",
    "negative_prompt": "What not to show.",
    "denoising_strength": "0 leaves the picture, 1 keeps only its depth. 0 to 1.",
    "steps": "Steps of the sampler at strength 1. 1 to 150.",
    "cfg_scale": "Guidance by the prompt, 1 to 30.  [default: what suits the model]",
    "sampler": "Sampler.",
    "seed": "Seed of the first picture; each further picture has the next.",
    "width": "Width of the frame, a multiple of 8.  [default: from the picture]",
    "height": "Height of the frame, a multiple of 8.  [default: from the picture]",
    "resize_mode": "How a picture of other proportions gets into the frame.",
    "mask_blur": "Softness of the mask's edge in pixels. 0 to 64.",
    "mask_invert": "Repaint what is not masked.",
    "masked_content": "What is under the mask at the start. 'fill' takes the object out, its depth too.",
    "inpaint_area": "Work on the whole picture, or on the masked part at full resolution.",
    "only_masked_padding": "Pixels around the masked part with 'only masked'. 0 to 256.",
    "hr_scale": "Hires pass: make the result so many times larger and work on it once more. 1 to 4; 1 is no such pass.",
    "hr_upscaler": "Hires pass: enlarge the latents, or the picture.",
    "hr_second_pass_steps": "Hires pass: its steps. 0 to 150; 0 is as many as --steps.",
    "hr_denoising_strength": "Hires pass: its denoising strength. 0 to 1.",
}
SHORT: Final[Mapping[str, str]] = {"prompt": "-p", "negative_prompt": "-n", "denoising_strength": "-s"}

model_flag = click.option(
    "-m",
    "--model",
    default="tiny",
    show_default=True,
    help="'tiny' (bundled), a folder in the layout of diffusers, a .safetensors or .ckpt file, or owner/name on the "
    "Hugging Face hub.",
)
device_flag = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Where to run.",
)
dtype_flag = click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="auto",
    show_default=True,
    help="Precision; auto is float32 on a CPU and float16 elsewhere. Depth is always estimated in float32.",
)
compile_flag = click.option(
    "--compile",
    is_flag=True,
    help="Compile the UNet: the first step of each size takes about a minute, all others less than before.",
)
low_memory_flag = click.option(
    "--low-memory",
    is_flag=True,
    help="Keep on the graphics card only the network that computes; slower, and large pictures are decoded in tiles.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and no progress.")
output_flag = click.option(
    "-o", "--output", type=PATH, help="File to write, or a folder that exists.  [default: the current folder]"
)
pictures_argument = click.argument("pictures", nargs=-1, required=True, type=PATH)


def _dashes(name: str) -> str:
    return "--" + name.replace("_", "-")


def _depth_flag(option: Option) -> Callable[[Command], Command]:
    """The flag of one depth option; ranges are checked by `DepthOptions`, in its own words."""
    settings: dict[str, Any] = {"default": option.default, "help": option.help, "show_default": True}
    names = [_dashes(option.name)]
    if option.kind == "image":
        settings |= {"type": PATH, "show_default": False}
        names = [PAYLOAD_FLAGS.get(option.name, _dashes(option.name))]
    elif option.kind == "switch":
        names = [f"{_dashes(option.name)}/{_dashes('no_' + option.name)}"]
    elif option.kind == "text":
        settings["type"] = str
    elif option.kind == "choice":
        settings["type"] = click.Choice(list(option.choices))
    else:
        settings |= {"type": float, "help": f"{option.help} {option.minimum:g} to {option.maximum:g}."}
    return click.option(*names, option.name, **settings)


def _setting_flag(field: dataclasses.Field[Any]) -> Callable[[Command], Command]:
    kinds = {"float": float, "int": int, "str": str, "bool": bool}
    kind = kinds[str(field.type).partition(" ")[0]]
    settings: dict[str, Any] = {"default": field.default, "help": SETTING_HELP[field.name], "type": kind}
    settings["show_default"] = field.default not in (None, "")
    if field.name in CHOICES:
        settings["type"] = click.Choice(list(CHOICES[field.name]))
    if kind is bool:
        settings = {"is_flag": True, "help": SETTING_HELP[field.name]}
    names = [*([SHORT[field.name]] if field.name in SHORT else []), _dashes(field.name)]
    return click.option(*names, field.name, **settings)


def speed_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: adds --compile and --low-memory; the command gets `speed`, for `Engine.open`."""

    @low_memory_flag
    @compile_flag
    @functools.wraps(command)
    def run(compile: bool, low_memory: bool, **given: Any) -> None:
        command(speed={"compiled": compile, "low_memory": low_memory}, **given)

    return run


def depth_flags(*leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: adds a flag for every depth option but those left out; the command gets `depth: DepthOptions`."""
    options = [option for option in OPTIONS.values() if option.name not in (*NOT_HERE, *leave_out)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            depth = depth_options({option.name: given.pop(option.name) for option in options})
            command(depth=depth, **given)

        for option in reversed(options):
            run = _depth_flag(option)(run)
        return run

    return decorate


def setting_flags(*leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: adds a flag for every setting but those left out; the command gets `settings: Settings`."""
    fields = [field for field in dataclasses.fields(Settings) if field.name not in leave_out]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            settings = Settings(**{field.name: given.pop(field.name) for field in fields})
            command(settings=settings, **given)

        for field in reversed(fields):
            run = _setting_flag(field)(run)
        return run

    return decorate


def depth_options(values: Mapping[str, Any]) -> DepthOptions:
    """The depth options from flags; a file that is given says where depth comes from.

    Raises:
        OptionError: a value is out of range, or two files contradict.
    """
    given = {name: value for name, value in values.items() if value != OPTIONS[name].default}
    if all(name in given for name in PAYLOAD_FLAGS) and given.get("under_mask") != "map":
        raise OptionError("depth_map", "Give either --depth or --depth-from, not both.")
    return DepthOptions.from_mapping(given)


@contextlib.contextmanager
def progress(what: str, *, quiet: bool, sizes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr while the block runs; yields what to tell it: done and in all.

    Args:
        sizes: show both as bytes.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1000, label=what, file=sys.stderr, item_show_func=lambda text: text) as bar:

        def tell(done: int, total: int) -> None:
            # Several jobs in a row begin anew: the bar goes back with them.
            text = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if sizes else None
            bar.update(round(1000 * done / max(total, 1)) - bar.pos, text)

        yield tell


def report(values: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """What a command has to say: the values as JSON, or the lines."""
    click.echo(json.dumps(values, indent=2) if as_json else "\n".join(lines))


def output_path(output: Path | None, source: Path, ending: str, *, several: bool) -> Path:
    """Where a result goes.

    Args:
        output: what the user said.
        source: the picture it was made from.
        ending: behind the source's stem where the user named a folder or nothing, such as `-depth.png`.
        several: whether there are several results, so that one file cannot hold them.

    Raises:
        OptionError: it is a file for several results, would overwrite the source, or lies in no folder.
    """
    path = Path(source.stem + ending) if output is None else output
    if output is not None and output.is_dir():
        path = output / (source.stem + ending)
    elif several and output is not None:
        raise OptionError("output", "Several pictures need a folder.", got=f"'{output}'", fix="Create it first.")
    if path.resolve() == source.resolve():
        raise OptionError("output", "The result would overwrite the picture.", fix="Choose another name.")
    if not path.parent.is_dir():
        raise OptionError("output", f"There is no folder {path.parent}.", fix="Create it first.")
    return path
