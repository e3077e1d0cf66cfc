"""The command line, one module per command or group of commands."""

from __future__ import annotations

from .root import app as app
from .root import main as main
