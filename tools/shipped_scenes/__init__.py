"""The scenes that the shipped model was trained on: one or two large solids on a floor under a sky, 128 x 128."""
