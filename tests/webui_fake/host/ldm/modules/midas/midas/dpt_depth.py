"""A depth network that is one convolution."""

import torch


class DPTDepthModel(torch.nn.Module):
    def __init__(self, path=None, non_negative=True, **kwargs):
        super().__init__()
        self.fake_path, self.fake_kwargs = path, kwargs
        self.pretrained = torch.nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return self.pretrained(x).squeeze(1)
