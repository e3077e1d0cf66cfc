"""Serves the app with a small random model whose depth estimator is a rule: the red channel, a little nearer below."""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
warnings.simplefilter("ignore")

from depth2img import DepthMap, app  # noqa: E402
from depth2img.diffusion import Engine  # noqa: E402
from depth2img.diffusion.networks import build  # noqa: E402
from tests.engine import small  # noqa: E402


class RedIsNear:
    key = "red"

    def estimate(self, picture: Any) -> DepthMap:
        time.sleep(0.3)
        rows = np.linspace(0, 0.08, picture.shape[0])[:, None]
        return DepthMap((picture[:, :, 0] + rows)[::2, ::2], origin="Red")


if __name__ == "__main__":
    networks = build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32)
    networks = dataclasses.replace(networks, estimator=RedIsNear(), side=512, name="red is near")
    app.serve(Engine(networks), port=int(sys.argv[1]), folder=None, open_browser=False)
