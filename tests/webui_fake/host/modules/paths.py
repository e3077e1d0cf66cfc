"""Where things lie."""

models_path = "models"
