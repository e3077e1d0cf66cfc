"""The exception tree and its messages."""

from __future__ import annotations

import copy
import pickle

import pytest

import depth2img
from depth2img import errors
from depth2img.errors import (
    Cancelled,
    CheckpointError,
    Depth2ImgError,
    DepthMapError,
    EstimatorError,
    LibraryError,
    NoDepthError,
    NoDepthModelError,
    OptionError,
    PictureError,
)

PLAIN = [
    CheckpointError,
    DepthMapError,
    EstimatorError,
    LibraryError,
    NoDepthError,
    NoDepthModelError,
    PictureError,
]


@pytest.mark.parametrize(
    ("got", "fix", "message"),
    [
        ("", "", "The map is flat."),
        ("3 x 5", "", "The map is flat. Got 3 x 5."),
        ("", "Use another.", "The map is flat. Use another."),
        ("3 x 5", "Use another.", "The map is flat. Got 3 x 5. Use another."),
    ],
)
def test_message_says_what_was_wrong_what_arrived_and_what_to_do(got, fix, message):
    error = Depth2ImgError("The map is flat.", got=got, fix=fix)
    assert str(error) == message
    assert (error.what, error.got, error.fix) == ("The map is flat.", got, fix)


@pytest.mark.parametrize("kind", [*PLAIN, OptionError])
def test_one_tree(kind):
    assert issubclass(kind, Depth2ImgError)
    assert getattr(depth2img, kind.__name__) is kind


def test_every_exception_of_the_module_is_in_the_tree():
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == {Depth2ImgError, OptionError, Cancelled, *PLAIN}
    assert not issubclass(Cancelled, Depth2ImgError)  # stopping on purpose is no failure, and catching one keeps it


@pytest.mark.parametrize("kind", [OptionError, PictureError, DepthMapError])
def test_what_a_caller_gave_wrong_is_a_value_error(kind):
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "error",
    [OptionError("near", "Bad.", got="7", fix="Use 1."), *(kind("Bad.", got="7", fix="Use 1.") for kind in PLAIN)],
    ids=lambda error: type(error).__name__,
)
def test_survives_the_way_between_processes(error, clone):
    """Ray and multiprocessing send a worker's exception as a pickle."""
    other = clone(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
