"""Text for the UNet: prompts as states of the text encoder, for every step."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import torch

from ..checkpoints.layout.tokenizer import text_tokens
from ..prompts.chunks import END, Chunk
from ..prompts.language import read_prompt
from ..prompts.tokens import PromptTokens, Tokens, Words, tokenized
from .library import Library, LoraFile
from .networks import Networks
from .settings import Settings

MOST_TEXTS: Final = 64
"""Chunks whose states are cached; those of Stable Diffusion 2 in float16 take 160 kB each."""


class StepText(NamedTuple):
    """Text of B pictures at one step, each with K parts.

    Attributes:
        prompts: float (B * K, 77 * chunks, width), the parts of a picture one after the other.
        negative: float (B, 77 * chunks, width).
        weights: of the parts; B times K.
    """

    prompts: torch.Tensor
    negative: torch.Tensor
    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class States:
    """States of one prompt: those of each different text, float (texts, 77 * chunks, width)."""

    tokens: Tokens
    values: torch.Tensor

    def index(self, step: int) -> int:
        """Return which text a step has."""
        return self.tokens.order[self.tokens.texts.index(step)]


@dataclass(frozen=True, eq=False)
class Text:
    """Text of one picture: states of the prompt's parts, their weights, and states of the negative prompt."""

    parts: tuple[States, ...]
    weights: tuple[float, ...]
    negative: States


@dataclass(eq=False)
class Texts:
    """Text of B pictures of one shape (`PromptTokens.shape`)."""

    each: Sequence[Text]
    _last: tuple[Hashable, StepText] | None = field(default=None, init=False, repr=False)

    def at(self, step: int) -> StepText:
        """Return the text of one step; `step` counts the UNet's calls from 0."""
        rows = [(part, part.index(step)) for text in self.each for part in text.parts]
        negative = [(text.negative, text.negative.index(step)) for text in self.each]
        key = tuple(index for _, index in (*rows, *negative))
        if self._last is None or self._last[0] != key:
            prompts, other = (torch.cat([one.values[at, None] for one, at in some]) for some in (rows, negative))
            self._last = key, StepText(prompts, other, tuple(text.weights for text in self.each))
        return self._last[1]


@dataclass(frozen=True, eq=False)
class Encoder:
    """A model's text encoder.

    Attributes:
        networks: the model.
        library: where the vectors of learned words are.
        loras: those that its weights have now; states are cached for each.
    """

    networks: Networks
    library: Library = field(default_factory=Library)
    loras: tuple[LoraFile, ...] = ()


def read_passes(settings: Settings, words: Words) -> tuple[PromptTokens, ...]:
    """Read the prompts of settings, for the first pass and for the hires pass if there is one.

    Raises:
        OptionError: a prompt cannot be read.
    """
    steps = settings.steps * settings.calls_per_step
    passes = [None, settings.hires_steps.run * settings.calls_per_step] if settings.hr_scale > 1 else [None]
    return tuple(
        tokenized(read_prompt(settings.prompt, settings.negative_prompt, steps, more), text_tokens, words)
        for more in passes
    )


def encode_text(encoder: Encoder, tokens: PromptTokens) -> Text:
    """Encode the prompts of one picture; chunks that were encoded before are taken from the cache."""
    parts = [_encoded(encoder, part) for part in tokens.parts]
    longest = max(part.values.shape[1] for part in parts)
    # Parts of different lengths: the shorter ones repeat their last state, as in the WebUI.
    filled = [States(part.tokens, _lengthened(part.values, longest)) for part in parts]
    return Text(tuple(filled), tokens.weights, _encoded(encoder, tokens.negative))


def _lengthened(values: torch.Tensor, length: int) -> torch.Tensor:
    more = length - values.shape[1]
    return values if more == 0 else torch.cat([values, values[:, -1:].expand(-1, more, -1)], dim=1)


def _encoded(encoder: Encoder, tokens: Tokens) -> States:
    """Encode all texts of a prompt, and emphasise their states.

    The WebUI encodes the texts of a prompt together, one for each entry of its schedule, and restores the mean of all
    of them (emphasis "Original").
    """
    states = _states(encoder, [chunk for text in tokens.chunks for chunk in text])
    order = torch.tensor(tokens.order)
    uses = torch.bincount(order, minlength=len(tokens.chunks)).to(encoder.networks.device)
    columns = []
    for position in range(tokens.length):
        column = [text[position] for text in tokens.chunks]
        values = torch.cat([states[chunk.tokens, chunk.words] for chunk in column])
        weights = [chunk.weights for chunk in column]
        columns.append(_emphasised(values, weights, uses) if any(set(one) != {1.0} for one in weights) else values)
    return States(tokens, torch.cat(columns, dim=1))


def _emphasised(values: torch.Tensor, weights: Sequence[Sequence[float]], uses: torch.Tensor) -> torch.Tensor:
    """Multiply states by the weights of their tokens, and restore the mean that they had.

    Args:
        values: float (texts, 77, width).
        weights: 77 for each text.
        uses: how often each text counts in the mean.
    """
    plain = values.float()
    scaled = plain * torch.tensor(weights, dtype=torch.float32, device=values.device)[..., None]

    def mean(some: torch.Tensor) -> torch.Tensor:
        return (some.mean(dim=(1, 2)) * uses).sum() / uses.sum()

    return (scaled * (mean(plain) / mean(scaled))).to(values.dtype)


def _states(encoder: Encoder, wanted: Sequence[Chunk]) -> dict[Hashable, torch.Tensor]:
    """Encode chunks, each once and alone, so that its states do not depend on the others: (1, 77, width) each."""
    cache, states = encoder.networks.texts, dict[Hashable, torch.Tensor]()
    for chunk in wanted:
        key = chunk.tokens, chunk.words
        if key not in states:
            found = cache.pop((key, encoder.loras), None)
            states[key] = _encode(encoder, chunk) if found is None else found
    # At the end: the first ones are those that were not used for longest.
    cache.update({(key, encoder.loras): value for key, value in states.items()})
    for old in list(cache)[:-MOST_TEXTS]:
        cache.pop(old, None)
    return states


def _encode(encoder: Encoder, chunk: Chunk) -> torch.Tensor:
    networks = encoder.networks
    # Stable Diffusion 2 was trained with zeros after the first end.
    end = chunk.tokens.index(END) + 1
    ids = torch.tensor([[*chunk.tokens[:end], *(0,) * (len(chunk.tokens) - end)]], device=networks.device)
    with _learned(encoder, chunk):
        states: torch.Tensor = networks.text_encoder(ids).last_hidden_state.to(networks.dtype)
    return states


@contextlib.contextmanager
def _learned(encoder: Encoder, chunk: Chunk) -> Iterator[None]:
    """Put the vectors of a chunk's learned words in the place of its tokens' embeddings."""
    if not chunk.words:
        yield
        return
    vectors = [(position, encoder.library.vectors(word)) for position, word in chunk.words]

    def replace(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        changed = embedded.clone()
        for position, vector in vectors:
            room = changed[0, position : position + len(vector)]
            room.copy_(vector[: len(room)])
        return changed

    hook = encoder.networks.text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
