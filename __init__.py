"""ComfyUI's way in: the repository, cloned or linked into `custom_nodes`, is a package of nodes."""

import sys as _sys
from pathlib import Path as _Path

# At the end: nothing of this folder may stand before ComfyUI's own modules, or before an installed depth2img.
_sys.path.append(str(_Path(__file__).parent))

from depth2img_comfy import NODE_CLASS_MAPPINGS as NODE_CLASS_MAPPINGS
from depth2img_comfy import NODE_DISPLAY_NAME_MAPPINGS as NODE_DISPLAY_NAME_MAPPINGS
