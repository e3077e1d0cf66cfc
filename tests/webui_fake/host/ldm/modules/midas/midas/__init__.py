"""A stand-in for what the adapter touches of Stability's `ldm`."""
