"""diffusers and transformers: which versions fit, and what to say where one does not."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ..errors import LibraryError

FITTING: Final = {"diffusers": ">=0.30,<0.43", "transformers": ">=4.40,<6"}
"""Package -> the versions that are supported, as in `pyproject.toml`, which a test compares."""

TEXT_PREFIX: Final = "text_model."
"""Prefix of every tensor's name in a stored CLIP text encoder; transformers 5 no longer has that module."""


def unfit(package: str, what: str, got: str) -> LibraryError:
    """Make the error for a package that is too old or too new.

    Args:
        package: a key of `FITTING`.
        what: what about it does not fit, following its name and version.
        got: what was found.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "(unknown version)"
    wanted = package + FITTING[package]
    return LibraryError(f"{package} {found} {what}.", got=got, fix=f"Install another version: pip install '{wanted}'.")


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Turn a name that one of the packages does not have into an error about its version.

    Raises:
        LibraryError: an import in the block failed inside a package that is installed.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        if problem.name in FITTING:  # it is not installed, and the command line says how to install it
            raise
        raise _broken(problem) from problem
    except ImportError as problem:
        raise _broken(problem) from problem


def _broken(problem: ImportError) -> Exception:
    package = (problem.name or "").partition(".")[0]
    got = " ".join(str(problem).split())[:160]
    return unfit(package, "lacks something that is needed", got) if package in FITTING else problem


def check_names(network: Any, names: Collection[str]) -> None:
    """Check that a network of one of the packages names its tensors as a model does.

    Args:
        network: a network; those of other packages are left alone.
        names: of all tensors of the model's part, which were compared with its configuration when it was opened.

    Raises:
        LibraryError: it has other names; so the package is too old or too new.
    """
    kind = type(network)
    package = kind.__module__.partition(".")[0]
    odd = sorted(set(names) ^ set(network.state_dict()))
    if odd and package in FITTING:
        what = f"names the tensors of {kind.__name__} otherwise than is known here"
        raise unfit(package, what, f"{len(odd)} other names, such as '{odd[0][:100]}'")


def stored_name(name: str, known: Collection[str]) -> str:
    """Return the name that the installed transformers gives to a stored tensor of a text encoder.

    Args:
        name: as the folders on the hub have it.
        known: the names of the network.
    """
    short = name.removeprefix(TEXT_PREFIX)
    return short if short in known else name
