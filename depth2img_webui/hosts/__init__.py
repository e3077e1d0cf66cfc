"""The host's own seams: what it has, how it loads a depth checkpoint."""
