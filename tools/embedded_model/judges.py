"""Small networks that judge pictures: which style and light, and where the joints are. Not part of the model.

Both are trained on renders alone, worn as generated pictures may be (see `stage_depth.worn`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.embedded_model.figures import JOINT_KINDS, JOINTS
from tools.embedded_model.looks import STYLES
from tools.embedded_model.palette import LIGHT_NAMES

KIND_OF_JOINT: Final = tuple(JOINT_KINDS.index(name) for name in JOINTS)
HEAT_SIDE: Final = 64
SPREAD: Final = 1.3
"""Standard deviation of a joint's spot, in cells of the heat map."""
NEAR: Final = 0.1
"""Share of a figure's size within which a joint counts as found."""


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class StyleNet(nn.Module):
    """RGB (B, 3, H, W) in -1..1 -> logits of styles (B, 5) and of lights (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 32, 48, 64, 96)
        self.body = nn.Sequential(*(_block(a, b, 2) for a, b in pairwise(widths)))
        self.head = nn.Linear(2 * widths[-1], len(STYLES) + len(LIGHT_NAMES))

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Both logits."""
        state = self.body(picture)
        both = self.head(torch.cat([state.mean(dim=(2, 3)), state.amax(dim=(2, 3))], dim=1)).float()
        return both[:, : len(STYLES)], both[:, len(STYLES) :]


class JointNet(nn.Module):
    """RGB (B, 3, H, W) in -1..1 -> logits of heat maps (B, joint kinds, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 64, 96, 128, 128)
        self.stem = _block(3, widths[0], 2)
        self.down = nn.ModuleList(nn.Sequential(_block(a, b, 2), _block(b, b)) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_block(widths[n] + widths[n - 1], widths[n - 1]) for n in range(len(widths) - 1, 1, -1))
        self.head = nn.Conv2d(widths[1], len(JOINT_KINDS), 1)
        nn.init.constant_(self.head.bias, -4.0)  # type: ignore[arg-type]

    def forward(self, picture: Tensor) -> Tensor:
        """Logits of the heat maps."""
        state, skips = self.stem(picture), []
        for block in self.down:
            state = block(state)
            skips.append(state)
        skips.pop()
        for block in self.up:
            state = block(torch.cat([functional.interpolate(state, scale_factor=2.0), skips.pop()], dim=1))
        out: Tensor = self.head(state).float()
        return out


def heat_maps(joints: Tensor, visible: Tensor, side: int = HEAT_SIDE) -> Tensor:
    """Target (B, joint kinds, side, side), a spot for each visible joint, of `joints` (B, F, 14, 3)."""
    grid = torch.arange(side, device=joints.device) + 0.5
    x, y = (joints[..., axis, None] * side for axis in (0, 1))
    across = torch.exp(-((grid - x) ** 2) / (2 * SPREAD**2))
    down = torch.exp(-((grid - y) ** 2) / (2 * SPREAD**2)) * visible[..., None]
    out = torch.zeros(len(joints), len(JOINT_KINDS), side, side, device=joints.device)
    for joint, kind in enumerate(KIND_OF_JOINT):
        spots = down[:, :, joint, :, None] * across[:, :, joint, None, :]
        out[:, kind] = torch.maximum(out[:, kind], spots.amax(dim=1))
    return out


def _peaks(heat: Tensor, count: int) -> Tensor:
    """Strongest local maxima of heat maps (K, S, S), the strongest first: (K, count, 2), left and top, 0..1."""
    top = functional.max_pool2d(heat[None], 5, stride=1, padding=2)[0]
    side = heat.shape[-1]
    place = torch.where(heat >= top, heat, -1e9).flatten(1).topk(count, dim=1).indices
    return torch.stack([(place % side + 0.5) / side, (place // side + 0.5) / side], dim=-1)


def found_joints(heat: Tensor, joints: Tensor, visible: Tensor) -> tuple[int, int]:
    """Joints of one picture that are found, and how many there are (PCK).

    Each kind's map may show as many peaks as there are joints of that kind; a joint counts if one of them is within
    NEAR of its figure's size.

    Args:
        heat: logits (joint kinds, S, S).
        joints: (F, 14, 3).
        visible: bool (F, 14).
    """
    peaks = _peaks(heat, 2 * len(joints))
    size = torch.stack([(figure.amax(dim=0) - figure.amin(dim=0)).max() for figure in joints[..., :2]])
    found = 0
    for kind in range(len(JOINT_KINDS)):
        which = [joint for joint, its in enumerate(KIND_OF_JOINT) if its == kind]
        seen = visible[:, which]
        count = int(seen.sum())
        if count:
            away = (joints[:, which, None, :2] - peaks[kind, :count]).norm(dim=-1).amin(dim=-1)
            found += int((away <= NEAR * size[:, None])[seen].sum())
    return found, int(visible.sum())
