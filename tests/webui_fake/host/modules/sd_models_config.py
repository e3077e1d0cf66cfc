"""Which YAML describes a checkpoint."""

import os

fake_folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "configs")
config_default = os.path.join(fake_folder, "plain.yaml")
config_depth_model = os.path.join(fake_folder, "depth.yaml")


def guess_model_config_from_state_dict(sd, filename):
    """By the weights of MiDaS alone, as the host does."""
    is_depth = "depth_model.model.pretrained.act_postprocess3.0.project.0.bias" in sd
    return config_depth_model if is_depth else config_default


def find_checkpoint_config_near_filename(info):
    beside = None if info is None else f"{os.path.splitext(info.filename)[0]}.yaml"
    return beside if beside is not None and os.path.exists(beside) else None


def find_checkpoint_config(state_dict, info):
    near = find_checkpoint_config_near_filename(info)
    return near or guess_model_config_from_state_dict(state_dict, "" if info is None else info.filename)
