"""Inspection of checkpoint files: their kind, their faults and the remedies."""
