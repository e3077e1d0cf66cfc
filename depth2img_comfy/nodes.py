"""The nodes by the names that workflows store, and the names that people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .apply_node import ApplyDepth
from .depth_nodes import (
    AdjustDepth,
    DepthFidelity,
    DepthFromImage,
    DepthUnderMask,
    EstimateDepth,
    PreviewDepth,
    SaveDepthMap,
)
from .load_nodes import LoadDepthCheckpoint, LoadDepthEstimator, LoadDepthMap

TITLES: Final[Mapping[type, str]] = {
    LoadDepthCheckpoint: "Load depth checkpoint",
    LoadDepthEstimator: "Load depth estimator",
    LoadDepthMap: "Load depth map",
    EstimateDepth: "Estimate depth",
    DepthFromImage: "Depth from image",
    AdjustDepth: "Adjust depth",
    DepthUnderMask: "Depth under mask",
    ApplyDepth: "Apply depth",
    PreviewDepth: "Preview depth",
    SaveDepthMap: "Save depth map",
    DepthFidelity: "Depth fidelity",
}

NODE_CLASS_MAPPINGS: Final = {f"Depth2Img{node.__name__}": node for node in TITLES}
"""Never change a name: workflows and pictures carry it."""

NODE_DISPLAY_NAME_MAPPINGS: Final = {f"Depth2Img{node.__name__}": title for node, title in TITLES.items()}
