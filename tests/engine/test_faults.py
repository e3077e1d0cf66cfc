"""Check what faults leave behind: a small share of benchmarks/faults_convert.py, which does each a hundred times."""

from __future__ import annotations

import pytest

from benchmarks.faults_convert import TASKS, Bench

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"), tries=2)


@pytest.mark.parametrize("fault", ["kills", "damage", "full_disk", "no_permission"])
def test_either_the_old_file_or_the_whole_new_one(bench: Bench, fault: str) -> None:
    bench.counts.clear()
    getattr(bench, fault)()
    assert not bench.bad(), bench.table()
    if fault == "no_permission" and not bench.counts:
        pytest.skip("only root can become somebody else")
    assert all(any(task in name for name in bench.counts) for task in TASKS), bench.table()
    refused = sum(counts["refused in a sentence"] for counts in bench.counts.values())
    assert refused >= len(TASKS) or fault in ("kills", "full_disk"), bench.table()
