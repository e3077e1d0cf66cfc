"""Run the command line: `python -m depth2img`."""

from __future__ import annotations

from .cli import main

main()
