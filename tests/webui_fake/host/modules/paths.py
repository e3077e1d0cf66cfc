"""Paths of the host."""

models_path = "models"
