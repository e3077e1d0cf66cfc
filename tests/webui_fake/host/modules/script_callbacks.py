"""Callbacks of extensions; what they raise is reported and swallowed."""

from modules import errors

fake_callbacks = []
"""(category, function), in order of registration."""


class CFGDenoiserParams:
    def __init__(
        self, x, image_cond, sigma, sampling_step, total_sampling_steps, text_cond, text_uncond, denoiser=None
    ):
        self.x, self.image_cond, self.sigma = x, image_cond, sigma
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps
        self.text_cond, self.text_uncond, self.denoiser = text_cond, text_uncond, denoiser


def fake_of(category):
    return [callback for kind, callback in fake_callbacks if kind == category]


def fake_call(category, *args):
    for callback in fake_of(category):
        try:
            callback(*args)
        except Exception as error:
            errors.report(f"Error executing callback {category}: {error!r}")


def clear_callbacks():
    fake_callbacks.clear()


def cfg_denoiser_callback(params):
    fake_call("cfg_denoiser", params)


def script_unloaded_callback():
    fake_call("script_unloaded")


def on_script_unloaded(callback, *, name=None):
    fake_callbacks.append(("script_unloaded", callback))


def on_ui_settings(callback, *, name=None):
    fake_callbacks.append(("ui_settings", callback))


def on_before_ui(callback, *, name=None):
    fake_callbacks.append(("before_ui", callback))


def on_app_started(callback, *, name=None):
    fake_callbacks.append(("app_started", callback))


def on_cfg_denoiser(callback, *, name=None):
    fake_callbacks.append(("cfg_denoiser", callback))


def on_model_loaded(callback, *, name=None):
    fake_callbacks.append(("model_loaded", callback))
