"""Tensors in files: reading, writing and hashing them."""
