"""Mutation tests: `make mutants [SAMPLE=150] [SEED=0] [PATHS="depth2img/depth ..."]`.

mutmut changes the code in one place at a time, each change a mutant, and runs the tests that reach it; a mutant that
every test lets pass survives. Each survivor is either a missing test or a change that makes no difference.

Left out are mutants that change only what is not behaviour: the wording of sentences, the `strict` of `zip`, which
checks what the code around it has made sure of, and `astype(None)`, which is numpy's float64. mutmut itself leaves out
decorated functions (properties among them) and what stands outside of functions, so that constants need tests of their
own.
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

GUARDS: Final[Mapping[str, Sequence[str]]] = {
    "depth2img/depth": (
        "tests/library/test_adjust.py",
        "tests/library/test_conditioning.py",
        "tests/library/test_depth_map.py",
        "tests/library/test_masks.py",
        "tests/library/test_placement.py",
        "tests/library/test_reading.py",
        "tests/library/test_resolve.py",
        "tests/library/test_schedule.py",
        "tests/library/test_scores.py",
        "tests/library/test_sources.py",
    ),
    "depth2img/diffusion/frames.py": ("tests/engine/test_frames.py",),
    "depth2img_webui/jobs": (
        "tests/webui_fake/test_batch_tab.py",
        "tests/webui_fake/test_control.py",
        "tests/webui_fake/test_denoise.py",
        "tests/webui_fake/test_estimators.py",
        "tests/webui_fake/test_geometry.py",
        "tests/webui_fake/test_hook.py",
        "tests/webui_fake/test_infotext.py",
        "tests/webui_fake/test_jobs.py",
        "tests/webui_fake/test_tiles.py",
        "tests/webui_fake/test_xyz.py",
    ),
}
"""Path of mutated code -> the tests that guard it."""

KILLED: Final = ("killed", "timeout", "segfault", "suspicious")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("paths", nargs="*", default=[*GUARDS], help=f"of: {', '.join(GUARDS)}")
    arguments.add_argument("--sample", type=int, default=0, help="mutants per path, drawn at random; 0 for all")
    arguments.add_argument("--seed", type=int, default=0, help="of the sample")
    arguments.add_argument("--only", default="", help="names that contain this")
    given = arguments.parse_args()
    if unknown := [path for path in given.paths if path not in GUARDS]:
        arguments.error(f"no tests are named for {', '.join(unknown)}")
    if len(given.paths) == 1:
        return test(given.paths[0], given.sample, given.seed, given.only)
    # Each in a process of its own: mutmut has imported what it mutates.
    options = ["--sample", str(given.sample), "--seed", str(given.seed), "--only", given.only]
    return max(subprocess.call([sys.executable, "-m", "tools.mutants", path, *options]) for path in given.paths)


def test(path: str, sample: int, seed: int, only: str) -> int:
    """Test the mutants of one path, and print the score and the survivors.

    Args:
        path: a key of `GUARDS`.
        sample: how many; 0 for all.
        seed: of the sample.
        only: part of the names of those that are drawn from.
    """
    from mutmut import __main__ as mutmut
    from mutmut.configuration import config
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.stats import status_by_exit_code

    files = [Path(path)] if path.endswith(".py") else sorted(Path(path).rglob("*.py"))
    settings = config()
    # Always the same: what was copied once without its mutants would stay so.
    settings.only_mutate = [guarded if guarded.endswith(".py") else f"{guarded}/*" for guarded in GUARDS]
    settings.pytest_add_cli_args_test_selection = list(GUARDS[path])
    names = [name for file in files for name in mutants(file) if only in name]
    if sample and sample < len(names):
        names = random.Random(seed).sample(names, sample)
    mutmut._run(names, 1)

    outcomes: dict[str, str] = {}
    for file in files:
        data = SourceFileMutationData(path=file)
        data.load()
        outcomes |= {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items() if name in names}
    counts = Counter(outcomes.values())
    survivors = sorted(name for name, outcome in outcomes.items() if outcome not in KILLED)
    for name in survivors:
        print(f"\n{name}: {outcomes[name]}")
        print(mutmut.get_diff_for_mutant(name))
    print(f"\n{path}: {len(outcomes) - len(survivors)} of {len(outcomes)} mutants noticed", end=" ")
    print(f"({1 - len(survivors) / len(outcomes):.1%}); {dict(counts)}")
    return 0


def mutants(file: Path) -> Iterator[str]:
    """Return mutmut's names of a file's mutants that change behaviour."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    mutated = mutate_file_contents(str(file), file.read_text(encoding="utf-8"))
    functions = {
        node.name: behaviour(node) for node in ast.walk(ast.parse(mutated.code)) if isinstance(node, ast.FunctionDef)
    }
    for name in mutated.mutant_names:
        original = name.rpartition("__mutmut_")[0] + "__mutmut_orig"
        if functions[name] != functions[original]:
            yield get_mutant_name(file, name)


class _Behaviour(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) and " " in node.value else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node).endswith(".astype(np.float64)"):
            node.args = [ast.Constant(None)]
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg == "strict" else self.generic_visit(node)


def behaviour(function: ast.FunctionDef) -> str:
    """Dump a function without its name, the wording of its sentences and so on; see the module's docstring."""
    return "\n".join(ast.dump(_Behaviour().visit(part)) for part in [function.args, *function.body])


if __name__ == "__main__":
    sys.exit(main())
