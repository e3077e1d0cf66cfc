"""Files that arrive through a page's upload components."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ..errors import DepthMapError


def uploaded(value: Any) -> Any:
    """Turn what an upload component hands over into a payload for the options.

    A file of `gr.File` becomes its path, but only if it lies in Gradio's own folder of uploads: the page names the
    file, and a page may lie. Everything else is passed on.

    Raises:
        DepthMapError: the page named a file that was not uploaded.
    """
    if not hasattr(value, "name"):
        return value
    # Gradio 4 and later hand over the path, a `str` with a name; Gradio 3 an open file that knows where it was.
    name: Any = str(value) if isinstance(value, str) else getattr(value, "orig_name", None)
    if name is None:
        return value
    # As Gradio chooses it (`Component.DEFAULT_TEMP_DIR`, 3.41; `get_upload_folder`, 4 and later), when it starts; the
    # host may set the variable later.
    folders = [str(Path(tempfile.gettempdir()) / "gradio"), os.environ.get("GRADIO_TEMP_DIR", "")]
    inside = any(folder and Path(name).resolve().is_relative_to(Path(folder).resolve()) for folder in folders)
    # A file sent inside the event has a bare name; Gradio 3 has written its content to a temporary folder itself. From
    # the current folder it would have copied what the page named.
    if not inside and (Path(name).name != name or Path(name).exists() or isinstance(value, str)):
        raise DepthMapError("The file was not uploaded through the page.", fix="Upload it again.")
    return Path(value.name)
