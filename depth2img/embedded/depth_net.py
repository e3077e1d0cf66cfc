"""The embedded model's depth estimator: a small convolutional U-Net.

It replaces MiDaS in Stability's code (`depth_stage_config.target`): its input is RGB in -1..1, its output inverse depth
of the input's size, larger = nearer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

COARSEST_SIDE = 4
"""Cells of the shorter side at the coarsest level. It sets the size to which larger inputs are shrunk: 128 pixels with
five levels, 256 with six."""


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class TinyDepthNet(nn.Module):
    """RGB -> inverse depth, and a logit "belongs to a solid" that only the evaluation reads.

    `channels` are those of each level; the first works at half the input's resolution and each further one at half of
    the previous one's. The working sides must be multiples of 2 ** len(channels); `forward` ensures it.
    """

    def __init__(self, channels: tuple[int, ...] = (24, 32, 48, 64, 64)) -> None:
        super().__init__()
        self.channels = tuple(channels)
        ends = (3, *self.channels)
        self.down = nn.ModuleList(_block(ends[level], ends[level + 1], stride=2) for level in range(len(self.channels)))
        self.up = nn.ModuleList(
            _block(self.channels[level] + self.channels[level - 1], self.channels[level - 1])
            for level in range(len(self.channels) - 1, 0, -1)
        )
        self.head = nn.Conv2d(self.channels[0], 2, 1)

    def both(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Map RGB (B, 3, H, W), -1..1, to inverse depth and mask logit, (B, 1, H, W) each; sides fit the levels."""
        skips: list[Tensor] = []
        state = picture
        for block in self.down:
            state = block(state)
            skips.append(state)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            state = functional.interpolate(state, size=skip.shape[-2:], mode="nearest")
            state = block(torch.cat([state, skip], dim=1))
        out = functional.interpolate(self.head(state), size=picture.shape[-2:], mode="bilinear", align_corners=False)
        return out[:, :1], out[:, 1:]

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        step: int = 2 ** len(self.channels)
        scale = min(1.0, COARSEST_SIDE * step / min(height, width))
        return max(1, round(height * scale / step)) * step, max(1, round(width * scale / step)) * step

    def forward(self, picture: Tensor) -> Tensor:
        """Map RGB (B, 3, H, W), -1..1, any sides, to inverse depth (B, 1, H, W) >= 0, larger = nearer."""
        size = (int(picture.shape[-2]), int(picture.shape[-1]))
        working = self._working_size(*size)
        if working != size:
            picture = functional.interpolate(
                picture, size=working, mode="bilinear", align_corners=False, antialias=True
            )
        depth = self.both(picture)[0].relu()
        if working != size:
            depth = functional.interpolate(depth, size=size, mode="bilinear", align_corners=False)
        return depth
