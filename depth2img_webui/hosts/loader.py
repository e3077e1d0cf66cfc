"""Load depth checkpoints without the extra MiDaS download, and say in plain sentences why one cannot be loaded.

The host builds MiDaS from `models/midas/dpt_hybrid-midas-501f0c75.pt`, downloads that file where it is missing, and
then overwrites every weight with the checkpoint's own `depth_model.*`. Here the file is neither needed nor read when
the checkpoint has those weights; when it has not, the file's weights are put into the state dict, since the host's
meta-device loading would replace them by zeros.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from modules import devices, patches, sd_hijack, sd_models, sd_models_config, shared

from depth2img import CheckpointError

from . import compat
from .compat import last_error
from .headers import DEPTH_CHANNELS, INPUT_CONVOLUTION

if TYPE_CHECKING:
    from depth2img.checkpoints.storage.tensors import Tensors

KEY: Final = __name__
DEPTH_PREFIX: Final = "depth_model."

OWN_ARCH_PREFIX: Final = "depth2img-"
"""Text encoders whose names begin so are described by `depth2img.checkpoints.open_clip_config`."""

_loading = {"inside": 0, "depth": False}
"""Number of calls of the host's `load_model` under way; whether the checkpoint examined last holds MiDaS weights."""

_is_depth: dict[str, bool] = {}
"""File name of each checkpoint that was examined -> whether it is a depth checkpoint."""


def apply(configuring: Any = sd_models_config, *, builds_midas: bool = True) -> None:
    """Patch the host. Safe to call twice.

    Args:
        configuring: the module whose `find_checkpoint_config` the host calls.
        builds_midas: whether the host puts the checkpoint's weights into MiDaS; where not, none is built.
    """
    replacements = (_load_model, _read_state_dict, _find_checkpoint_config, _load_midas if builds_midas else _no_midas)
    for (target, field), replacement in zip(_targets(configuring), replacements, strict=True):
        if patches.original(KEY, target, field) is None:
            patches.patch(KEY, target, field, replacement)


def undo(configuring: Any = sd_models_config) -> None:
    """Take the patches off again. Safe to call twice."""
    for target, field in reversed(_targets(configuring)):
        if patches.original(KEY, target, field) is not None:
            patches.undo(KEY, target, field)


def _targets(configuring: Any) -> list[tuple[Any, str]]:
    """List what is patched: (module, function)."""
    import ldm.modules.midas.api as midas

    return [
        (sd_models, "load_model"),
        (sd_models, "read_state_dict"),
        (configuring, "find_checkpoint_config"),
        (midas, "load_model"),
    ]


def selected_is_depth() -> bool:
    """Tell whether the checkpoint of the drop-down is a depth checkpoint.

    What is in memory may be another one: the refiner or the `override_settings` of the job before.

    The host loads it if it was not loaded since the start, as it would a moment later.
    """
    filename = sd_models.select_checkpoint().filename
    if filename not in _is_depth:
        sd_models.reload_model_weights()
        loaded = compat.depth_network(compat.loaded_model()) is not None
        return _is_depth.setdefault(filename, loaded)
    return _is_depth[filename]


def check(state_dict: dict[str, Any], config: str | None, name: str) -> str | None:
    """Choose the configuration for a checkpoint that is about to be loaded, if the host's own choice is wrong.

    Args:
        state_dict: the checkpoint; missing MiDaS weights are added if the host has them in a file.
        config: the YAML that lies beside the checkpoint, None if there is none.
        name: file name, for messages.

    Returns:
        A configuration file, or None to let the host choose.

    Raises:
        CheckpointError: a depth checkpoint that cannot work, with the reason and the remedy.
    """
    convolution = state_dict.get(INPUT_CONVOLUTION)
    if convolution is None or convolution.shape[1] != DEPTH_CHANNELS:
        return None
    if config is not None and not _describes_depth(config):
        raise CheckpointError(
            f"The YAML beside the depth checkpoint {name} is not the one for depth.",
            got=os.path.basename(config),
            fix="Correct it under 'Depth checkpoint' in the panel, or delete it: none is needed when the checkpoint "
            "holds its MiDaS weights.",
        )
    if not any(key.startswith(DEPTH_PREFIX) for key in state_dict):
        if config is None or _wants_midas(config):
            _add_midas(state_dict, name)
        return config or sd_models_config.config_depth_model
    return None


def _describes_depth(config: str) -> bool:
    return _from_yaml(config, "model.params.unet_config.params.in_channels") == DEPTH_CHANNELS


def _wants_midas(config: str) -> bool:
    return _from_yaml(config, "model.params.depth_stage_config.target") == "ldm.modules.midas.api.MiDaSInference"


def _from_yaml(config: str, key: str) -> Any:
    """Read one value of a YAML; None where it is missing or the file cannot be read, which the host reports itself."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.select(OmegaConf.load(config), key)
    except Exception as error:
        compat.log.debug("%s: %s", config, error)
        return None


def _add_midas(state_dict: dict[str, Any], name: str) -> None:
    import ldm.modules.midas.api as midas

    from depth2img.checkpoints import open_checkpoint

    path = Path(midas.ISL_PATHS["dpt_hybrid"])
    try:
        weights = open_checkpoint(path)
    except CheckpointError as problem:
        raise CheckpointError(
            f"The depth checkpoint {name} holds no depth_model weights (MiDaS), and there is no whole "
            f"{path.name} in models/midas either.",
            fix="Use the original checkpoint, which holds them, or put that file there; 'Inspect' under 'Depth "
            "checkpoint' in the panel names the command that puts them in.",
        ) from problem
    state_dict.update({f"{DEPTH_PREFIX}model.{key}": weights.get(key) for key in weights.keys()})


def _read_state_dict(checkpoint_file: str, print_global_state: bool = False, map_location: Any = None) -> Any:
    """Read a checkpoint that the host would not find its weights in; leave all others to the host.

    The former are named like another kind of file, or are depth checkpoints as training programs leave them: with
    their names behind others, with objects besides, or with averaged weights alone.
    """
    from depth2img.checkpoints import open_checkpoint

    path = Path(checkpoint_file)
    original = patches.original(KEY, sd_models, "read_state_dict")
    try:
        opened = open_checkpoint(path)
    except CheckpointError:
        return original(checkpoint_file, print_global_state, map_location)  # it says what is wrong with it
    if not (opened.misnamed or (not opened.is_plain and _takes_depth(opened))):
        return original(checkpoint_file, print_global_state, map_location)
    if opened.misnamed:
        compat.log.warning("%s", opened.misnamed)
    device = map_location or shared.weight_load_location or "cpu"
    return sd_models.get_state_dict_from_checkpoint({key: opened.get(key).to(device) for key in opened.keys()})


def _takes_depth(checkpoint: Tensors) -> bool:
    return INPUT_CONVOLUTION in checkpoint.keys() and checkpoint.shape(INPUT_CONVOLUTION)[1] == DEPTH_CHANNELS


def _load_model(*args: Any, **kwargs: Any) -> Any:
    _loading["inside"] += 1
    try:
        return patches.original(KEY, sd_models, "load_model")(*args, **kwargs)
    finally:
        _loading["inside"] -= 1


def _find_checkpoint_config(state_dict: dict[str, Any], info: Any) -> str:
    beside = sd_models_config.find_checkpoint_config_near_filename(info)
    name = os.path.basename(info.filename) if info is not None else "in memory"
    last_error.clear()
    try:
        chosen = check(state_dict, beside, name)
    except CheckpointError as error:
        last_error["message"] = str(error)
        if not _loading["inside"]:
            _restore_previous()
        raise
    if info is not None:
        convolution = state_dict.get(INPUT_CONVOLUTION)
        _is_depth[info.filename] = convolution is not None and convolution.shape[1] == DEPTH_CHANNELS
    _loading["depth"] = any(key.startswith(DEPTH_PREFIX) for key in state_dict)
    if beside is not None:
        _register_text_encoder(beside)
    return chosen or _chosen_by_the_host(state_dict, info)


def _chosen_by_the_host(state_dict: dict[str, Any], info: Any) -> str:
    patched = patches.original(KEY, sd_models_config, "find_checkpoint_config")
    return str((patched or sd_models_config.find_checkpoint_config)(state_dict, info))


def _restore_previous() -> None:
    """Make the checkpoint usable that is still loaded.

    `reload_model_weights` has taken it apart before it looked at the new file, and puts it together again only after
    errors of its own (modules/sd_models.py).
    """
    model = sd_models.model_data.sd_model
    if model is None:
        return
    sd_hijack.model_hijack.hijack(model)
    if not model.lowvram:
        model.to(devices.device)
    sd_models.model_data.set_sd_model(model)


def _register_text_encoder(config: str) -> None:
    """Tell OpenCLIP about a text encoder that only our own small checkpoints have, if a YAML names one."""
    arch = _from_yaml(config, "model.params.cond_stage_config.params.arch")
    if not isinstance(arch, str) or not arch.startswith(OWN_ARCH_PREFIX):
        return
    import open_clip

    from depth2img.checkpoints import open_clip_config

    description = open_clip_config(arch)
    if description is not None and arch not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{arch}.json"
            path.write_text(json.dumps(description), encoding="utf8")
            open_clip.add_model_config(path)


def _load_midas(model_type: str) -> tuple[torch.nn.Module, Any]:
    import ldm.modules.midas.api as midas

    if not (_loading["inside"] and _loading["depth"] and model_type == "dpt_hybrid"):
        return patches.original(KEY, midas, "load_model")(model_type)
    from ldm.modules.midas.midas.dpt_depth import DPTDepthModel

    compat.log.debug("MiDaS weights come from the checkpoint; no file is read.")
    network = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True).eval()
    return network, midas.load_midas_transform(model_type)


def _no_midas(model_type: str) -> tuple[torch.nn.Module, Any]:
    import ldm.modules.midas.api as midas

    if _loading["inside"]:
        return torch.nn.Identity(), None
    return patches.original(KEY, midas, "load_model")(model_type)
