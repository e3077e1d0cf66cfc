"""The extension's part of the host's page."""
