"""A diffusers or transformers that does not fit is named; the checkpoint is not blamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from depth2img import LibraryError
from depth2img.diffusion import libraries


def test_the_versions_are_those_of_the_installation():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for package, fitting in libraries.FITTING.items():
        assert f'"{package}{fitting}"' in project


class Renamed(nn.Module):
    """A network of a library that names its tensors as no version does that is known."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.quite_another_name = nn.Linear(2, 2)


def test_unknown_names_are_the_librarys_fault(monkeypatch: pytest.MonkeyPatch):
    libraries.check_names(Renamed(), ["another"])  # not of a library
    monkeypatch.setattr(Renamed, "__module__", "transformers.models.clip.modeling_clip")
    libraries.check_names(Renamed(), ["quite_another_name.weight", "quite_another_name.bias"])
    with pytest.raises(LibraryError, match=r"transformers [\d.]+ names the tensors of Renamed otherwise") as error:
        libraries.check_names(Renamed(), ["quite_another_name.weight"])
    assert "pip install 'transformers>=" in str(error.value) and "heckpoint" not in str(error.value)


def test_a_class_that_is_not_there_is_the_librarys_fault():
    with pytest.raises(LibraryError, match=r"diffusers [\d.]+ lacks something"), libraries.needed():
        from diffusers import NoSuchNetwork  # noqa: F401
    with pytest.raises(ModuleNotFoundError), libraries.needed():
        import no_such_package_at_all  # noqa: F401


@pytest.mark.parametrize("known", [["text_model.a"], ["a"]])
def test_a_text_encoders_names_fit_either_layout(known: list[str]):
    assert [libraries.stored_name("text_model.a", known)] == known
    assert libraries.stored_name("b", known) == "b"
