"""What the extension shows on the host's page."""
