"""A node for tests: writes down what the UNet is really given, call by call."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
import numpy as np
from comfy.patcher_extension import WrappersMP


class ProbeUNet:
    CATEGORY = "tests"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "name": ("STRING", {"default": "probe"})}}

    def probe(self, model, name):
        folder = Path(folder_paths.get_output_directory()) / name
        folder.mkdir(parents=True, exist_ok=True)

        def write(executor, x, t, *more, **settings):
            options = more[3] if len(more) > 3 else settings["transformer_options"]
            call = len([*folder.glob("*.npz")])
            notes = {
                "sigma": float(options["sigmas"][0]),
                "sigmas": options["sample_sigmas"].tolist(),
                "order": options["cond_or_uncond"],
            }
            # First the array, since the notes say that it is whole.
            np.savez(folder / f"{call:03}.npz", x=x.float().cpu().numpy())
            (folder / f"{call:03}.json").write_text(json.dumps(notes))
            return executor(x, t, *more, **settings)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "probe", write)
        return (model,)


NODE_CLASS_MAPPINGS = {"ProbeUNet": ProbeUNet}
