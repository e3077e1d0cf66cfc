"""Lists for drop-downs."""


def refresh_checkpoints():
    from modules import sd_models

    return sd_models.list_models()
