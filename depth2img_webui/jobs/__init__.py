"""Depth conditioning for the host's jobs."""
