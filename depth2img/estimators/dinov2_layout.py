"""Contents of a Depth Anything or DINOv2 DPT file: the names of its tensors, and the sizes of its network.

Two layouts are published: the hub's, with transformers' names and a configuration, and the authors' own, with
`pretrained.*` and `depth_head.*` and without one. Sizes come from the tensors' shapes; what shapes do not tell comes
from the configuration, or from the file's published name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import EstimatorError

SCALES: Final = (4.0, 2.0, 1.0, 0.5)
"""Factors from DINOv2's grid to the head's four levels, finest first (DPT, section 3)."""

Shapes = Mapping[str, tuple[int, ...]]

HEAD_WIDTH: Final = 64
"""Channels of an attention head in every DINOv2."""

_BLOCK: Final = r"backbone\.encoder\.layer\.(\d+)\."
_OUR_BLOCK: Final = r"pretrained.blocks.\1."
_SCRATCH: Final = "depth_head.scratch."

HUB_NAMES: Final[Sequence[tuple[re.Pattern[str], str]]] = [
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"backbone\.embeddings\.cls_token", "pretrained.cls_token"),
        (r"backbone\.embeddings\.position_embeddings", "pretrained.pos_embed"),
        (r"backbone\.embeddings\.register_tokens", "pretrained.register_tokens"),
        (r"backbone\.embeddings\.patch_embeddings\.projection\.(\w+)", r"pretrained.patch_embed.proj.\1"),
        (r"backbone\.layernorm\.(\w+)", r"pretrained.norm.\1"),
        (_BLOCK + r"attention\.attention\.(?:query|key|value)\.(\w+)", _OUR_BLOCK + r"attn.qkv.\2"),
        (_BLOCK + r"attention\.output\.dense\.(\w+)", _OUR_BLOCK + r"attn.proj.\2"),
        (_BLOCK + r"(norm[12])\.(\w+)", _OUR_BLOCK + r"\2.\3"),
        (_BLOCK + r"layer_scale([12])\.lambda1", _OUR_BLOCK + r"ls\2.gamma"),
        (_BLOCK + r"mlp\.(?:fc1|weights_in)\.(\w+)", _OUR_BLOCK + r"mlp.fc1.\2"),
        (_BLOCK + r"mlp\.(?:fc2|weights_out)\.(\w+)", _OUR_BLOCK + r"mlp.fc2.\2"),
        (r"neck\.reassemble_stage\.layers\.(\d)\.projection\.(\w+)", r"depth_head.projects.\1.\2"),
        (r"neck\.reassemble_stage\.layers\.(\d)\.resize\.(\w+)", r"depth_head.resize_layers.\1.\2"),
        (r"neck\.reassemble_stage\.readout_projects\.(\d)\.0\.(\w+)", r"depth_head.readout_projects.\1.0.\2"),
        *((rf"neck\.convs\.{index}\.(\w+)", rf"{_SCRATCH}layer{index + 1}_rn.\1") for index in range(4)),
        *(
            # the hub counts its fusions from the coarse end
            (rf"neck\.fusion_stage\.layers\.{3 - index}\.{theirs}", rf"{_SCRATCH}refinenet{index + 1}.{ours}")
            for index in range(4)
            for theirs, ours in (
                (r"projection\.(\w+)", r"out_conv.\1"),
                (r"residual_layer([12])\.convolution([12])\.(\w+)", r"resConfUnit\1.conv\2.\3"),
            )
        ),
        (r"head\.projection\.(\w+)", r"depth_head.projection.\1"),
        (r"head\.(?:conv1|head\.0)\.(\w+)", rf"{_SCRATCH}output_conv1.\1"),
        (r"head\.(?:conv2|head\.2)\.(\w+)", rf"{_SCRATCH}output_conv2.0.\1"),
        (r"head\.(?:conv3|head\.4)\.(\w+)", rf"{_SCRATCH}output_conv2.2.\1"),
    )
]
"""The hub's names -> the authors'. Queries, keys and values are one tensor there, in this order."""

PARTS: Final = ("query", "key", "value")

TAKEN: Final[Mapping[tuple[int, int], tuple[int, ...]]] = {
    (1, 12): (9, 10, 11, 12),
    (1, 24): (21, 22, 23, 24),
    (2, 12): (3, 6, 9, 12),
    (2, 24): (5, 12, 18, 24),
    (2, 40): (10, 20, 30, 40),
}
"""(version of Depth Anything, blocks) -> blocks whose outputs the head takes, counted from 1; see `dinov2`."""

FARTHEST: Final[Mapping[str, float]] = {"indoor": 20.0, "hypersim": 20.0, "outdoor": 80.0, "vkitti": 80.0}
"""Word in the name of a metric model -> metres of its largest output: those of its training set."""

NAME: Final = re.compile(r"depthanything(?:v?([0-9]))?")
"""A published name, in lower case and without anything but letters and digits."""

AS_PUBLISHED: Final = (
    "Name the file as published, such as depth_anything_v2_vits.safetensors, or put it as model.safetensors into a "
    "folder with its config.json."
)


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network.

    Attributes:
        width, heads, hidden: DINOv2's channels, attention heads, and rows of the first layer of its MLP.
        patch: side of a patch in pixels.
        grid: side of the trained grid of patches.
        blocks: their number.
        taken: blocks whose outputs the head takes, counted from 1, finest level first; 0 is the input of the first.
        qkv_bias: whether queries, keys and values have a bias.
        gated: whether the MLP is a SwiGLU, as in the giant model.
        normed: whether the final layer norm is applied to what the head takes.
        epsilon: of the layer norms.
        channels: of the head's four levels.
        fused: channels after fusion.
        inner: channels before the last convolution.
        readout: whether the class token is mixed into the patches (DPT's "project").
        projected: whether a further convolution stands before the output.
        unit_bias: whether the residual units have a bias.
        doubling: whether each fusion and the output double the size, as in DPT; else a fusion takes the next level's
            size, and the output the picture's.
        bounded: whether the output ends in a sigmoid, as in metric Depth Anything; else in a ReLU.
        scale: factor of the output: metres of a bounded network's largest output.
    """

    width: int
    heads: int
    hidden: int
    patch: int
    grid: int
    blocks: int
    taken: tuple[int, ...]
    qkv_bias: bool
    gated: bool
    normed: bool
    epsilon: float
    channels: tuple[int, ...]
    fused: int
    inner: int
    readout: bool
    projected: bool
    unit_bias: bool
    doubling: bool
    bounded: bool
    scale: float


def stored_names(keys: Iterable[str]) -> dict[str, list[str]]:
    """Map our names to those in a file of either layout, several where they are to be concatenated."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(_our_name(key), []).append(key)
    for several in found.values():
        several.sort(key=lambda key: next((PARTS.index(part) for part in PARTS if f".{part}." in key), 0))
    return found


def _our_name(key: str) -> str:
    for pattern, ours in HUB_NAMES:
        if match := pattern.fullmatch(key):
            return match.expand(ours)
    return key


def version_of(name: str) -> int | None:
    """Return the version of Depth Anything that a file's name tells, 1 or 2; None if it tells none."""
    match = NAME.search(_letters(name))
    version = 0 if match is None else int(match[1] or 1)
    return version if version in (1, 2) else None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def config_by_name(name: str, shapes: Shapes) -> dict[str, Any]:
    """Make the hub's configuration of a file that comes without one, as far as `sizes_of` reads it.

    Versions 1 and 2, and relative and metric models, have tensors of the same names and shapes.

    Args:
        name: of the file, without its ending.
        shapes: of its tensors, under our names.

    Raises:
        EstimatorError: the name does not tell which model it is.
    """
    version, blocks, letters = version_of(name), _blocks(shapes), _letters(name)
    metric = "metric" in letters
    farthest = next((metres for word, metres in FARTHEST.items() if word in letters), None)
    if version is None or (version, blocks) not in TAKEN or (metric and (farthest is None or version == 1)):
        raise EstimatorError(
            f"It cannot be told which Depth Anything {name[:60]} is.", got=f"{blocks} blocks", fix=AS_PUBLISHED
        )
    heads = shapes["pretrained.cls_token"][-1] // HEAD_WIDTH
    return {
        "model_type": "depth_anything",
        "backbone_config": {
            "model_type": "dinov2",
            "num_attention_heads": heads,
            "out_indices": [*TAKEN[version, blocks]],
        },
        **({"depth_estimation_type": "metric", "max_depth": farthest} if metric else {}),
    }


def sizes_of(shapes: Shapes, config: Mapping[str, Any], name: str) -> Architecture:
    """Find the sizes of a network.

    Args:
        shapes: of its tensors, under our names.
        config: the hub's configuration.
        name: of the estimator, for messages.

    Raises:
        EstimatorError: it is of a kind that is not built here, or the configuration belongs to other weights.
        LookupError, ValueError, TypeError: tensors are missing, or a value is not what its name says.
    """
    backbone = config["backbone_config"]
    _check_kind(shapes, config, backbone, name)
    blocks, width = _blocks(shapes), shapes["pretrained.cls_token"][-1]
    patch = shapes["pretrained.patch_embed.proj.weight"][-1]
    for key, actual in (("hidden_size", width), ("num_hidden_layers", blocks), ("patch_size", patch)):
        if backbone.get(key, actual) != actual:
            raise EstimatorError(
                f"The weights of the depth estimator {name} do not fit its configuration.",
                got=f"{key} {str(backbone[key])[:20]} instead of {actual}",
                fix="Get its files again.",
            )
    channels = tuple(shapes[f"depth_head.projects.{index}.weight"][0] for index in range(len(SCALES)))
    hidden = shapes["pretrained.blocks.0.mlp.fc1.weight"][0]
    heads = int(backbone.get("num_attention_heads", 12))
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} attention heads for {width} channels")
    scale = float(config.get("max_depth") or 1) if config["model_type"] == "depth_anything" else 1.0
    return Architecture(
        width=width,
        heads=heads,
        hidden=hidden,
        patch=patch,
        grid=math.isqrt(shapes["pretrained.pos_embed"][1] - 1),
        blocks=blocks,
        taken=_taken(backbone, blocks),
        qkv_bias="pretrained.blocks.0.attn.qkv.bias" in shapes,
        gated=shapes["pretrained.blocks.0.mlp.fc2.weight"][1] != hidden,
        normed=backbone.get("apply_layernorm", True) is not False,
        epsilon=float(backbone.get("layer_norm_eps", 1e-6)),
        channels=channels,
        fused=shapes[f"{_SCRATCH}layer1_rn.weight"][0],
        inner=shapes[f"{_SCRATCH}output_conv2.0.weight"][0],
        readout="depth_head.readout_projects.0.0.weight" in shapes,
        projected="depth_head.projection.weight" in shapes,
        unit_bias=f"{_SCRATCH}refinenet1.resConfUnit1.conv1.bias" in shapes,
        doubling=config["model_type"] == "dpt",
        bounded=config.get("depth_estimation_type") == "metric",
        scale=scale,
    )


def _blocks(shapes: Shapes) -> int:
    numbers = [int(key.split(".")[2]) for key in shapes if re.fullmatch(r"pretrained\.blocks\.\d{1,4}\..*", key)]
    return 1 + max(numbers, default=-1)


def _taken(backbone: Mapping[str, Any], blocks: int) -> tuple[int, ...]:
    indices = backbone.get("out_indices")
    if indices is None:
        indices = [0 if stage == "stem" else int(stage.removeprefix("stage")) for stage in backbone["out_features"]]
    taken = sorted(int(index) + (blocks + 1 if index < 0 else 0) for index in indices)
    if len(set(taken)) != len(SCALES) or not 0 <= taken[0] <= taken[-1] <= blocks:
        raise ValueError(f"outputs of blocks {indices!r:.60} of {blocks}")
    return tuple(taken)


def _check_kind(shapes: Shapes, config: Mapping[str, Any], backbone: Any, name: str) -> None:
    """Refuse what no published model has and the network here does not do."""
    facts = {
        "backbone": (backbone.get("model_type", "dinov2"), ("dinov2",)),
        "activation": (backbone.get("hidden_act", "gelu"), ("gelu",)),
        "readout activation": (config.get("hidden_act", "gelu"), ("gelu",)),
        "readout": (config.get("readout_type", "project"), ("project", "ignore")),
        "scales": (tuple(config.get("reassemble_factors", SCALES)), (SCALES,)),
        "head's input": (config.get("head_in_index", -1), (-1, 3)),
        "batch norm": (bool(config.get("use_batch_norm_in_fusion_residual", False)), (False,)),
        "kind of depth": (config.get("depth_estimation_type", "relative"), ("relative", "metric")),
        "registers": ("pretrained.register_tokens" in shapes, (False,)),
    }
    for fact, (value, known) in facts.items():
        if value not in known:
            raise EstimatorError(
                f"The depth estimator {name} is of a kind that is not known here.",
                got=f"{fact} {str(value)[:40]}",
                fix="Use one of the published Depth Anything or DPT models.",
            )
