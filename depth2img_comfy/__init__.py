"""ComfyUI nodes for depth-to-image, on the library alone; the host is imported when a node runs."""

from __future__ import annotations

from .nodes import NODE_CLASS_MAPPINGS as NODE_CLASS_MAPPINGS
from .nodes import NODE_DISPLAY_NAME_MAPPINGS as NODE_DISPLAY_NAME_MAPPINGS
