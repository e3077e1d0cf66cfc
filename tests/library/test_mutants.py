"""Which mutants `make mutants` leaves out."""

from __future__ import annotations

import ast

import pytest

from tools.mutants import GUARDS, ROOT, behaviour

ORIGINAL = """
def f(a, b=1):
    'What it does.'
    x = list(zip(a, b.astype(np.float64), strict=True))
    return x or "no map"
"""


def of(code: str) -> str:
    [function] = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    return behaviour(function)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("def f", "def g"),
        ('"no map"', '"NO MAP"'),
        ("strict=True", "strict=False"),
        (", strict=True", ""),
        ("np.float64", "None"),
    ],
)
def test_what_is_no_behaviour(part: str, changed: str) -> None:
    assert of(ORIGINAL) == of(ORIGINAL.replace(part, changed))


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("b=1", "b=2"),
        ('"no map"', '"map"'),
        ('"no map"', "None"),
        ("x or", "x and"),
        ("list(zip", "set(zip"),
        ("np.float64", "np.float32"),
    ],
)
def test_everything_else_is(part: str, changed: str) -> None:
    assert of(ORIGINAL) != of(ORIGINAL.replace(part, changed))


def test_what_is_guarded_and_what_guards_are_there() -> None:
    for path, tests in GUARDS.items():
        assert all((ROOT / name).exists() for name in (path, *tests))
