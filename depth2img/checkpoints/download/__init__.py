"""Getting published checkpoints: the mirror table, the transfer, partial downloads."""
