"""MiDaS as Stability's `ldm` offers it, with the host's wrapper: no file, no network."""

from urllib.error import URLError

import torch

from ldm.modules.midas.midas.dpt_depth import DPTDepthModel

ISL_PATHS = {"dpt_hybrid": "", "dpt_large": ""}


def load_midas_transform(model_type):
    return f"transform of {model_type}"


def load_model(model_type):
    if not ISL_PATHS[model_type]:
        raise URLError("no network")
    return DPTDepthModel(path=ISL_PATHS[model_type], backbone="vitb_rn50_384"), load_midas_transform(model_type)


class MiDaSInference(torch.nn.Module):
    def __init__(self, model_type):
        super().__init__()
        self.model, _ = load_model(model_type)

    def forward(self, x):
        return self.model(x).unsqueeze(1)
