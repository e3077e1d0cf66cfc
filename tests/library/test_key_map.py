"""The key map: names of both layouts and shapes, for every size of a model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth2img.checkpoints.layout.key_map import (
    DPT_HYBRID,
    Entry,
    dpt_entries,
    text_entries,
    unet_entries,
    vae_entries,
)
from depth2img.checkpoints.layout.ldm_yaml import SD2
from depth2img.checkpoints.model import FromLdm, ToLdm
from depth2img.checkpoints.storage.tensors import InMemory

widths = st.lists(st.sampled_from([4, 8, 12]), min_size=1, max_size=4)


@st.composite
def unets(draw: st.DrawFn) -> dict[str, Any]:
    wide = draw(widths)
    kinds = st.lists(st.sampled_from(["CrossAttnDownBlock2D", "DownBlock2D"]), min_size=len(wide), max_size=len(wide))
    return {
        "in_channels": 5,
        "out_channels": 4,
        "block_out_channels": wide,
        "down_block_types": draw(kinds),
        "layers_per_block": draw(st.integers(1, 3)),
        "cross_attention_dim": draw(st.sampled_from([6, 10])),
    }


@st.composite
def vaes(draw: st.DrawFn) -> dict[str, Any]:
    shared = {"layers_per_block": draw(st.integers(1, 3)), "latent_channels": 4, "in_channels": 3, "out_channels": 3}
    return {"block_out_channels": draw(widths), **shared}


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    sizes = {"hidden_size": 6, "intermediate_size": draw(st.sampled_from([8, 10])), "vocab_size": 11}
    return {**sizes, "num_hidden_layers": draw(st.integers(1, 4))}


@st.composite
def depths(draw: st.DrawFn) -> dict[str, Any]:
    stages = draw(st.lists(st.tuples(st.sampled_from([8, 12]), st.integers(1, 3)), min_size=1, max_size=3))
    backbone = {
        "embedding_size": 4,
        "hidden_sizes": [size for size, _ in stages],
        "depths": [blocks for _, blocks in stages],
    }
    sizes = {"hidden_size": 6, "intermediate_size": 10, "image_size": 32, "patch_size": 16, "fusion_hidden_size": 4}
    more = {"neck_hidden_sizes": [4, 5, 6, 7], "num_hidden_layers": draw(st.integers(1, 3))}
    return {**sizes, **more, "backbone_config": backbone}


entry_lists = st.one_of(
    unets().map(unet_entries), vaes().map(vae_entries), texts().map(text_entries), depths().map(dpt_entries)
).map(list)


@settings(max_examples=40, deadline=None)
@given(entry_lists, st.integers(0, 2**31))
def test_both_directions_are_one_bijection(entries: list[Entry], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = {e.ldm: torch.randint(256, e.shape or (), dtype=torch.uint8, generator=generator) for e in entries}
    names = [name for entry in entries for name in entry.names]
    assert len(state) == len(entries) and len(set(names)) == len(names)
    component = entries[0].component
    part = FromLdm(InMemory(state), entries)
    again = ToLdm({component: InMemory({name: part.get(name) for name in part.keys()})}, entries)
    assert sorted(part.keys()) == sorted(names)
    for name in names:
        assert part.shape(name) == tuple(part.get(name).shape)
    for entry in entries:
        assert again.shape(entry.ldm) == entry.shape
        assert torch.equal(again.get(entry.ldm), state[entry.ldm])


def test_the_table_of_stable_diffusion_2_is_what_it_was() -> None:
    """A digest of names, shapes and forms, taken when two tables stated them; other tests compare with `ldm` itself."""
    entries = dataclasses.replace(SD2, depth_estimator=dict(DPT_HYBRID)).key_map()
    rows = sorted((e.ldm, e.component, e.names, e.shape, e.form) for e in entries)
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert len(rows) == 1580 and digest == "f00a8d6ab940a22918cd2e9db3d03c6c4747c39aedb263f94969162d70928a24"


def test_what_a_configuration_of_midas_leaves_out_is_as_published() -> None:
    """transformers writes `hidden_sizes` of four stages beside `depths` of three, and other versions leave both out."""
    whole = list(dpt_entries(DPT_HYBRID))
    backbone = {"hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 9]}
    assert list(dpt_entries({"is_hybrid": True, "backbone_config": backbone})) == whole
    assert list(dpt_entries({"is_hybrid": True})) == list(dpt_entries({"backbone_config": None})) == whole
