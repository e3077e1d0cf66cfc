"""The DepthMap value and the pure mathematics from a map to conditioning."""
