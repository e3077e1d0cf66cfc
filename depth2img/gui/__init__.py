"""Gradio: the panel, the checkpoint section, the viewer's data and the app."""
