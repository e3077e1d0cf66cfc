"""The host's own settings that the adapter reads, with their defaults."""

from modules.options import OptionInfo

options_templates = {
    "sd_model_checkpoint": OptionInfo(None),
    "img2img_background_color": OptionInfo("#ffffff"),
    "overlay_inpaint": OptionInfo(True),
    "return_mask": OptionInfo(False),
    "return_mask_composite": OptionInfo(False),
    "s_min_uncond_all": OptionInfo(False),
    "skip_early_cond": OptionInfo(0.0),
}
