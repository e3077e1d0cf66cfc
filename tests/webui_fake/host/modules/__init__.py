"""A stand-in for what the adapter touches of the WebUI 1.10.1; names that only tests use begin with `fake_`."""
