"""Which checkpoint is in use, in words."""

from __future__ import annotations

from depth2img import panel

from . import compat, loader


def status() -> tuple[str, str]:
    """(state, sentence); state is `ready`, `wrong`, `failed` or `host`. Loads nothing."""
    if not compat.has_depth_models():
        return "host", compat.FORGE_SENTENCE
    if loader.last_error:
        return "failed", loader.last_error["message"]
    model = compat.loaded_model()
    if model is None:
        return "wrong", "No checkpoint is loaded yet."
    if compat.depth_network(model) is None:
        return "wrong", f"Needs a depth checkpoint; {compat.checkpoint_name(model)} is none."
    return "ready", f"Ready: {compat.checkpoint_name(model)}."


def status_html() -> str:
    """The same as a line for the panel."""
    state, sentence = status()
    return panel.note(sentence, "good" if state == "ready" else "bad", state=state)
