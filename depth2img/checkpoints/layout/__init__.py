"""The layouts of a depth checkpoint: names and shapes of its tensors, its configuration, its YAML."""
