"""What the extension does to one job of the host."""
