"""Command-line flags made from the option tables, and helpers that all commands share."""

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

from ..diffusion.settings import DEVICES, DTYPES, SETTINGS, Settings
from ..errors import OptionError
from ..io.pairing import composed
from ..options import OPTIONS, WEBUI_ONLY, DepthOptions, deciding_payloads
from ..table import Option

Command = TypeVar("Command", bound=Callable[..., Any])

PATH: Final = click.Path(path_type=Path)

INTERRUPTED: Final = 130
"""Exit code of a command that was ended by Ctrl+C or SIGTERM."""

NO_FLAG: Final = ("source", *WEBUI_ONLY)
"""Depth options without a flag: `source` follows from the files that are given."""

model_flag = click.option(
    "-m",
    "--model",
    default="tiny",
    show_default=True,
    help="'tiny' (bundled), a folder in diffusers' layout, a .safetensors or .ckpt file, or owner/name on the "
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
    help="Precision; auto is float32 on a CPU, otherwise float16. Depth is always estimated in float32.",
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
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, without progress.")
output_flag = click.option(
    "-o", "--output", type=PATH, help="File to write, or an existing folder.  [default: the current folder]"
)
pictures_argument = click.argument("pictures", nargs=-1, required=True, type=PATH)


def _from_picture(context: click.Context, _: click.Parameter, picture: Path | None) -> None:
    """Make the job in a picture's infotext the defaults of the other flags."""
    if picture is None:
        return
    from ..diffusion.repeat import read_job
    from ..io.saving import read_infotext

    job = read_job(read_infotext(picture))
    for note in job.notes:
        click.echo(f"{picture}: {note}", err=True)
    known = {name: value for name, value in job.values.items() if name not in NO_FLAG}
    context.default_map = {**(context.default_map or {}), **known}


from_flag = click.option(
    "--from",
    type=PATH,
    metavar="PICTURE",
    is_eager=True,
    expose_value=False,
    callback=_from_picture,
    help="Repeat the job in this picture's infotext, which the WebUI or this command wrote, with the WebUI's noise if "
    "it is the WebUI's; flags override it. The picture that it was made from is given as usual.",
)


def option_flag(option: Option) -> Callable[[Command], Command]:
    """Make the flag of one row of an option table; ranges are checked by the table's own class, in its words."""
    name = option.flag or "--" + option.name.replace("_", "-")
    arguments: dict[str, Any] = {"default": option.default, "show_default": option.default not in (None, "")}
    text = option.help
    if option.kind == "image":
        arguments["type"] = PATH
    elif option.kind == "switch":
        name = f"{name}/--no-{name[2:]}"
    elif option.kind == "text":
        arguments["type"] = str
    elif option.kind == "choice":
        arguments["type"] = click.Choice(list(option.choices))
    else:
        arguments["type"] = int if option.whole else float
        text = f"{text} {option.span}."
    if option.unset:
        text = f"{text}  [default: {option.unset}]"
    names = [option.short, name] if option.short else [name]
    return click.option(*names, option.name, help=text, **arguments)


def speed_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with --compile and --low-memory; it gets `speed`, the arguments for `Engine.open`."""

    @low_memory_flag
    @compile_flag
    @functools.wraps(command)
    def run(compile: bool, low_memory: bool, **given: Any) -> None:
        command(speed={"compiled": compile, "low_memory": low_memory}, **given)

    return run


def library_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with --lora-dir, --embeddings-dir and --webui; it gets `library: Library`."""

    @click.option("--lora-dir", type=PATH, help="Folder of LoRAs, for <lora:name:0.8> in a prompt.")
    @click.option("--embeddings-dir", type=PATH, help="Folder of learned words (textual inversion).")
    @click.option("--webui", type=PATH, help="A WebUI's folder: its LoRAs and learned words, unless others are given.")
    @functools.wraps(command)
    def run(lora_dir: Path | None, embeddings_dir: Path | None, webui: Path | None, **given: Any) -> None:
        from ..diffusion.library import Library

        own = Library() if webui is None else Library.of_webui(webui)
        command(library=Library(lora_dir or own.lora_dir, embeddings_dir or own.embeddings_dir), **given)

    return run


def depth_flags(*leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a flag for every depth option but those left out; it gets `depth: DepthOptions`."""
    chosen = [option for option in OPTIONS.values() if option.name not in (*NO_FLAG, *leave_out)]
    return _flags(chosen, "depth", depth_options)


def setting_flags(*leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a flag for every setting but those left out; it gets `settings: Settings`."""
    chosen = [setting for setting in SETTINGS.values() if setting.name not in leave_out]
    return _flags(chosen, "settings", lambda values: Settings(**values))


def _flags(
    options: Sequence[Option], argument: str, make: Callable[[dict[str, Any]], object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = make({option.name: given.pop(option.name) for option in options})
            command(**{argument: made}, **given)

        for option in reversed(options):
            run = option_flag(option)(run)
        return run

    return decorate


def depth_options(values: Mapping[str, Any]) -> DepthOptions:
    """Make the depth options from flags; a file that is given decides where depth comes from.

    Raises:
        OptionError: a value is out of range, or two files contradict each other.
    """
    given = {name: value for name, value in values.items() if value != OPTIONS[name].default}
    if len(deciding_payloads(given)) > 1:
        raise OptionError("depth_map", "Give either --depth or --depth-from, not both.")
    return DepthOptions.from_mapping(given)


@contextlib.contextmanager
def progress(what: str, *, quiet: bool, sizes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr while the block runs; yield the function to report done and total to.

    Args:
        what: label of the bar.
        quiet: show nothing.
        sizes: done and total are bytes.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1000, label=what, file=sys.stderr, item_show_func=lambda text: text) as bar:

        def tell(done: int, total: int) -> None:
            # Each of several jobs in a row counts from zero: the bar goes back with it.
            text = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if sizes else None
            bar.update(round(1000 * done / max(total, 1)) - bar.pos, text)

        yield tell


def check_targets(targets: Sequence[tuple[Path, Path]]) -> None:
    """Refuse results that would get in each other's way, before anything is made.

    Args:
        targets: source and result of each file that will be written.

    Raises:
        OptionError: two results have one name, or one would overwrite a source.
    """
    sources = {source.resolve() for source, _ in targets}
    owners: dict[str, Path] = {}
    for source, path in targets:
        if path.resolve() in sources:
            raise OptionError("output", f"The result of {source} would overwrite {path}.", fix="Choose another folder.")
        name = str(path.resolve())
        if sys.platform in ("win32", "darwin"):  # which compare names so
            name = composed(name).casefold()
        if name in owners:
            raise OptionError(
                "output",
                f"The results of {owners[name]} and {source} would both be {path.name}.",
                fix="Rename one of them, or run them one by one with another output.",
            )
        owners[name] = source


def tell_hints(found: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Say on stderr what is noteworthy about depth maps; see `hints.counted`."""
    from ..depth.hints import counted

    for sentence in counted(found):
        click.echo(sentence, err=True)


def tell_depth_inside(pictures: Sequence[Path]) -> None:
    """Offer on stderr the depth that phones have put into pictures, as a depth map.

    Args:
        pictures: files that can be read as pictures.
    """
    from ..depth.reading import has_depth_inside

    inside = [path for path in pictures if has_depth_inside(path)]
    if inside:
        more = f" So it is with {len(inside)} of {len(pictures)} pictures." if len(inside) > 1 else ""
        fix = f"--depth {inside[0]} uses it instead of an estimate."
        click.echo(f"{inside[0]} has a depth map inside: {fix}{more}", err=True)


def with_map_read(depth: DepthOptions) -> DepthOptions:
    """Read the depth map that the options name, once for all pictures, and say on stderr what is noteworthy about it.

    Raises:
        DepthMapError: it cannot be read.
    """
    if depth.depth_map is None:
        return depth
    from ..depth.hints import hints
    from ..depth.reading import MapReader

    found = MapReader.of(depth)(depth.depth_map)
    tell_hints([(str(depth.depth_map), hints(found, depth))])
    return dataclasses.replace(depth, depth_map=found)


def report(values: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print the outcome of a command: the values as JSON, or the lines."""
    click.echo(json.dumps(values, indent=2) if as_json else "\n".join(lines))


def output_path(output: Path | None, source: Path, ending: str, *, several: bool) -> Path:
    """Choose the path of a result.

    Args:
        output: the value of --output.
        source: the picture that the result was made from.
        ending: follows the source's stem if the user named a folder or nothing, such as `-depth.png`.
        several: whether there are several results, which do not fit into one file.

    Raises:
        OptionError: one file is named for several results, the source would be overwritten, or the folder is missing.
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
