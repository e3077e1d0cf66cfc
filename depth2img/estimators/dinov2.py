"""Depth Anything and DPT on DINOv2 as a network: DINOv2's blocks from timm, the DPT head our own.

Sources: L. Yang et al., "Depth Anything V2" (2024); R. Ranftl et al., "Vision Transformers for Dense Prediction"
(2021); M. Oquab et al., "DINOv2" (2023). The numbers are those of the published weights, the arithmetic transformers':

| model | width | blocks | heads | taken after block (V1) | taken after block (V2) | head's channels | fused |
| --- | --- | --- | --- | --- | --- | --- | --- |
| small | 384 | 12 | 6 | 9, 10, 11, 12 | 3, 6, 9, 12 | 48, 96, 192, 384 | 64 |
| base | 768 | 12 | 12 | 9, 10, 11, 12 | 3, 6, 9, 12 | 96, 192, 384, 768 | 128 |
| large | 1024 | 24 | 16 | 21, 22, 23, 24 | 5, 12, 18, 24 | 256, 512, 1024, 1024 | 256 |

All tensors have the names of the authors' own files, `pretrained.*` and `depth_head.*`. Only timm's `Block` is used,
whose names and arithmetic are the same in every version from 0.6 to 1.0; other sizes than the trained one are handled
here.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional

from .dinov2_layout import SCALES, Architecture


class Dinov2(nn.Module):
    """DINOv2 without registers: pixels -> the tokens after the blocks that the head takes."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + sizes.grid**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, sizes.patch, stride=sizes.patch)})
        self.blocks = nn.ModuleList(_block(sizes) for _ in range(sizes.blocks))
        self.norm = nn.LayerNorm(width, eps=sizes.epsilon)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return tokens (B, 1 + patches, width), the class token first, for each of `Architecture.taken`.

        Args:
            pixels: (B, 3, h, w); what is left beyond whole patches is not seen.
        """
        patches = self.patch_embed["proj"](pixels)
        rows, columns = patches.shape[-2:]
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self._positions(rows, columns)
        after = [tokens]
        for block in itertools.islice(self.blocks, max(self.sizes.taken)):
            after.append(block(after[-1]))
        return [self.norm(after[index]) if self.sizes.normed else after[index] for index in self.sizes.taken]

    def _positions(self, rows: int, columns: int) -> torch.Tensor:
        """Return the position embeddings (1, 1 + rows * columns, width), interpolated as transformers' Dinov2 does.

        Bicubic, in float32, straight to the size. The authors' code adds 0.1 to the grid before it takes the scale.
        """
        grid = self.sizes.grid
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        square = self.pos_embed[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(square.float(), (rows, columns), mode="bicubic", align_corners=False)
        found = resized.to(square.dtype).permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
        return torch.cat([self.pos_embed[:, :1], found], dim=1)


def _block(sizes: Architecture) -> nn.Module:
    """Make one of DINOv2's blocks, with its layer scale."""
    further: dict[str, Any] = {}
    if sizes.gated:
        from timm.layers import SwiGLUPacked

        further = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    made: nn.Module = Block(
        sizes.width,
        sizes.heads,
        mlp_ratio=(sizes.hidden + 0.5) / sizes.width,  # timm cuts off the product
        qkv_bias=sizes.qkv_bias,
        init_values=1.0,
        norm_layer=functools.partial(nn.LayerNorm, eps=sizes.epsilon),
        **further,
    )
    return made


class Residual(nn.Module):
    """DPT's residual unit: two convolutions of 3 x 3, each after a ReLU."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(sizes.fused, sizes.fused, 3, padding=1, bias=sizes.unit_bias)
        self.conv2 = nn.Conv2d(sizes.fused, sizes.fused, 3, padding=1, bias=sizes.unit_bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        inner: torch.Tensor = self.conv2(functional.relu(self.conv1(functional.relu(features))))
        return features + inner


class Fusion(nn.Module):
    """DPT's fusion of a level with the coarser ones.

    Args:
        coarsest: there is no coarser level; its first unit is in the published files and never run.
    """

    def __init__(self, sizes: Architecture, *, coarsest: bool) -> None:
        super().__init__()
        if not coarsest:
            self.resConfUnit1 = Residual(sizes)
        self.resConfUnit2 = Residual(sizes)
        self.out_conv = nn.Conv2d(sizes.fused, sizes.fused, 1)

    def forward(self, level: torch.Tensor, coarser: torch.Tensor | None, size: tuple[int, int] | None) -> torch.Tensor:
        """Add a level to the coarser ones, and resize the sum to a size (h, w), or to the double one."""
        if coarser is not None:
            if level.shape != coarser.shape:
                level = functional.interpolate(level, coarser.shape[-2:], mode="bilinear", align_corners=False)
            level = coarser + self.resConfUnit1(level)
        done: torch.Tensor = self.out_conv(_enlarged(self.resConfUnit2(level), size))
        return done


def _enlarged(features: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    factor = 2 if size is None else None
    return functional.interpolate(features, size, factor, mode="bilinear", align_corners=True)


class Head(nn.Module):
    """DPT's head: tokens of four blocks -> one map."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes = sizes
        width, channels, fused = sizes.width, sizes.channels, sizes.fused
        self.projects = nn.ModuleList(nn.Conv2d(width, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(itertools.starmap(_resizing, zip(SCALES, channels, strict=True)))
        if sizes.readout:
            mixing = (nn.Sequential(nn.Linear(2 * width, width), nn.GELU()) for _ in channels)
            self.readout_projects = nn.ModuleList(mixing)
        if sizes.projected:
            self.projection = nn.Conv2d(fused, fused, 3, padding=1)
        scratch: dict[str, nn.Module] = {
            f"layer{index}_rn": nn.Conv2d(count, fused, 3, padding=1, bias=False)
            for index, count in enumerate(channels, 1)
        }
        scratch |= {f"refinenet{index}": Fusion(sizes, coarsest=index == len(SCALES)) for index in range(1, 5)}
        scratch["output_conv1"] = nn.Conv2d(fused, fused // 2, 3, padding=1)
        scratch["output_conv2"] = nn.Sequential(
            nn.Conv2d(fused // 2, sizes.inner, 3, padding=1), nn.ReLU(), nn.Conv2d(sizes.inner, 1, 1)
        )
        self.scratch = nn.ModuleDict(scratch)

    def forward(self, taken: list[torch.Tensor], rows: int, columns: int) -> torch.Tensor:
        """Return a map (B, h, w).

        Args:
            taken: tokens of four blocks, finest level first.
            rows, columns: of the grid of patches.
        """
        levels = [self._level(index, tokens, rows, columns) for index, tokens in enumerate(taken)]
        fused: torch.Tensor | None = None
        for index in (3, 2, 1, 0):
            own = index == 0 or self.sizes.doubling
            size = None if own else (levels[index - 1].shape[-2], levels[index - 1].shape[-1])
            fused = self.scratch[f"refinenet{index + 1}"](levels[index], fused, size)
        if self.sizes.projected:
            fused = functional.relu(self.projection(fused))
        whole = None if self.sizes.doubling else (rows * self.sizes.patch, columns * self.sizes.patch)
        out = self.scratch["output_conv2"](_enlarged(self.scratch["output_conv1"](fused), whole))[:, 0]
        return (torch.sigmoid(out) if self.sizes.bounded else functional.relu(out)) * self.sizes.scale

    def _level(self, index: int, tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Reassemble tokens into the features of a level (DPT, section 3)."""
        patches = tokens[:, 1:]
        if self.sizes.readout:
            patches = self.readout_projects[index](torch.cat([patches, tokens[:, :1].expand_as(patches)], dim=-1))
        square = patches.transpose(1, 2).reshape(len(tokens), -1, rows, columns)
        features: torch.Tensor = self.scratch[f"layer{index + 1}_rn"](
            self.resize_layers[index](self.projects[index](square))
        )
        return features


def _resizing(scale: float, channels: int) -> nn.Module:
    if scale == 1:
        return nn.Identity()
    if scale < 1:
        return nn.Conv2d(channels, channels, 3, stride=round(1 / scale), padding=1)
    return nn.ConvTranspose2d(channels, channels, round(scale), stride=round(scale))


class DepthNetwork(nn.Module):
    """DINOv2 with DPT's head: pixels (B, 3, h, w), normalised -> a map (B, h', w').

    Relative models give inverse depth up to scale and shift, larger = nearer; metric ones metres.
    """

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.pretrained = Dinov2(sizes)
        self.depth_head = Head(sizes)
        self.patch = sizes.patch

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the maps; Depth Anything's have the size of the whole patches."""
        rows, columns = (side // self.patch for side in pixels.shape[-2:])
        found: torch.Tensor = self.depth_head(self.pretrained(pixels), rows, columns)
        return found
