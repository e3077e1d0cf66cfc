"""The real WebUI's code for prompts, run as it stands in its source; around it stand-ins for what it imports.

Needs WEBUI_DIR, and of packages lark, torch and open_clip.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

WEBUI = os.environ.get("WEBUI_DIR")


class NoWords:
    """Its database of embeddings, empty."""

    def find_embedding_at_position(self, tokens: Any, position: int) -> tuple[None, None]:
        return None, None


@contextlib.contextmanager
def imported_as(fakes: Mapping[str, Any]) -> Iterator[None]:
    """Let imports in the block find these; what else they bring in stays, unlike with `mock.patch.dict`."""
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def load(name: str) -> Any:
    """One of its files as a module."""
    spec = importlib.util.spec_from_file_location(f"webui_{name}", Path(str(WEBUI), "modules", f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the host's source
        spec.loader.exec_module(module)
    return module


def load_encoder(encode: Callable[[torch.Tensor], torch.Tensor], words: Any = None) -> Any:
    """Its `FrozenOpenCLIPEmbedderWithCustomWords` around a text encoder: ids (B, 77) -> states (B, 77, width).

    Args:
        encode: the text encoder.
        words: its database of embeddings; by default there are none.
    """
    opts = SimpleNamespace(
        emphasis="Original",
        comma_padding_backtrack=20,
        use_old_emphasis_implementation=False,
        textual_inversion_add_hashes_to_infotext=False,
    )
    hijack = SimpleNamespace(embedding_db=words or NoWords(), extra_generation_params={}, fixes=None)
    host = types.ModuleType("modules")
    parts = {
        "prompt_parser": load("prompt_parser"),
        "sd_emphasis": load("sd_emphasis"),
        "devices": SimpleNamespace(device=torch.device("cpu"), torch_npu_set_device=lambda: None),
        "sd_hijack": SimpleNamespace(model_hijack=hijack),
        "shared": SimpleNamespace(opts=opts),
    }
    for name, part in parts.items():
        setattr(host, name, part)
    with imported_as({"modules": host, **{f"modules.{name}": part for name, part in parts.items()}}):
        clip = host.sd_hijack_clip = load("sd_hijack_clip")  # type: ignore[attr-defined]
        with imported_as({"modules.sd_hijack_clip": clip}):
            module = load("sd_hijack_open_clip")
    wrapped = SimpleNamespace(encode_with_transformer=encode)
    return module.FrozenOpenCLIPEmbedderWithCustomWords(wrapped, hijack)


class Reader:
    """Return what the WebUI makes of a prompt: tokens, weights and states.

    Args:
        encode: see `load_encoder`.
        words: see `load_encoder`.
    """

    def __init__(self, encode: Callable[[torch.Tensor], torch.Tensor] = lambda ids: ids, words: Any = None) -> None:
        self.parser = load("prompt_parser")
        self.encoder = load_encoder(encode, words)

    def parts(self, prompt: str, steps: int, hires_steps: int | None) -> list[Any]:
        """Weight, ends and chunks of each part: `prompt_cases.Case.parts`."""
        [indices], flat, _ = self.parser.get_multicond_prompt_list([prompt])
        return [[weight, *self.texts(flat[at], steps, hires_steps)] for at, weight in indices]

    def texts(self, text: str, steps: int, hires_steps: int | None) -> list[Any]:
        """Ends and chunks of a text, all filled up to the longest."""
        [schedules] = self.parser.get_learned_conditioning_prompt_schedules([text], steps, hires_steps)
        chunks = [self.encoder.tokenize_line(one)[0] for _, one in schedules]
        most = max(map(len, chunks))
        filled = [one + [self.encoder.empty_chunk()] * (most - len(one)) for one in chunks]
        return [
            [end for end, _ in schedules],
            [[[list(chunk.tokens), list(chunk.multipliers)] for chunk in text] for text in filled],
        ]

    def states(self, text: str, steps: int, hires_steps: int | None) -> list[torch.Tensor]:
        """States of a text, one for each of its ends."""
        model = SimpleNamespace(get_learned_conditioning=self.encoder)
        [made] = self.parser.get_learned_conditioning(model, [text], steps, hires_steps)
        return [one.cond for one in made]
