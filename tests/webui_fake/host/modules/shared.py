"""Settings and the loaded checkpoint."""

from types import SimpleNamespace

from modules import options, shared_options, util
from modules.options import OptionInfo  # noqa: F401 - the adapter takes it from here

cmd_opts = SimpleNamespace(ckpt_dir=None, hide_ui_dir_config=False)
opts = options.Options(dict(shared_options.options_templates), set())
state = SimpleNamespace(job="", job_timestamp="20260101000000")
walk_files = util.walk_files
weight_load_location = None


def __getattr__(name):
    if name == "sd_model":
        from modules import sd_models

        return sd_models.model_data.get_sd_model()
    raise AttributeError(name)
