"""Loading of pickled weights; None where they cannot be loaded, as the host does after a report."""

import torch

from modules import errors


def load(filename, *args, **kwargs):
    try:
        return torch.load(filename, *args, weights_only=True, **kwargs)
    except Exception:
        errors.report(f"Error verifying pickled file from {filename}")
        return None
