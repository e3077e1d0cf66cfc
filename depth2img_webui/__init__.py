"""The one place that imports the WebUI's `modules`."""
