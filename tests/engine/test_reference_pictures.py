"""Seeded jobs through the engine give the pictures that they gave before.

`REFERENCES=exact` asks for the same bits: for a refactoring, on the machine that wrote the files. Where results are
meant to change, write new files; see `make_references.py`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.engine.make_references import FOLDER, JOBS, arrays, path, run

EXACT = os.environ.get("REFERENCES") == "exact"

# Kernels of other processors and other numbers of threads sum in another order. Seen with SSE4.1, AVX2 and 4 threads
# against AVX-512 and one thread: one grey level, 3e-4 (a hires pass that estimates from such a picture; 5e-5 elsewhere)
# and 1e-6.
CLOSE = {"pictures": 2, "conditioning": 1e-3, "fidelity": 1e-4}


def test_every_job_has_its_file() -> None:
    assert sorted(file.stem for file in FOLDER.iterdir()) == sorted(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_as_before(name: str) -> None:
    found = arrays(run(name))
    with np.load(path(name), allow_pickle=False) as file:
        before = dict(file)
    assert found.keys() == before.keys()
    for key, value in found.items():
        assert value.dtype == before[key].dtype and value.shape == before[key].shape
        if EXACT:
            np.testing.assert_array_equal(value, before[key], err_msg=key)
        else:
            apart = np.abs(value.astype(np.float64) - before[key])
            assert np.array_equal(np.isnan(apart), np.isnan(before[key]))
            assert float(np.nan_to_num(apart).max()) <= CLOSE[key]
