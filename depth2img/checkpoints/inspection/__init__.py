"""What a checkpoint file is, and what is wrong with it."""
