"""The small bundled model: its weights and the network they need beyond diffusers and transformers."""
