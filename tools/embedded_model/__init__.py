"""Training, evaluation and export of the small model that ships with the package."""
