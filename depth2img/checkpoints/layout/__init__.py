"""What a depth checkpoint consists of: names and shapes of its tensors, its configuration, its YAML."""
