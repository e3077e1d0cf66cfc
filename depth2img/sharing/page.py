"""The hover view as one HTML file that needs nothing else: picture, depth and the panel's own viewer.

The file loads nothing: its Content-Security-Policy allows its own script and style, by their hashes, and pictures that
are in it, and nothing else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image

from ..depth.depth_map import DepthMap
from ..io.images import Picture

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
ASSETS: Final = next((folder for folder in (ROOT, ROOT / "depth2img_page") if (folder / "style.css").is_file()), ROOT)
"""Folder of `javascript/` and `style.css`: the top of a checkout, or a folder of their own in an installation."""

MODULES: Final = ("viewer", "adjust")
"""The panel's modules that the page holds; none of them imports another."""

LONGEST_PICTURE: Final = 2048
LONGEST_DEPTH: Final = 1024
"""Longest sides in the file, in pixels; what is larger is shrunk."""

LONGEST_TITLE: Final = 200
QUALITY: Final = 90
"""Of the JPEG."""

HOLE: Final = re.compile(r"@([A-Z]+)@")


@functools.cache
def template() -> str:
    """Return the page with `@TITLE@`, `@PICTURE@`, `@DEPTH@`, `@MOVEMENT@` and `@FOCUS@` left open.

    Whoever fills them in escapes what is not a number or a data URL, and does it in one go, as `fill` does.
    """
    script = "\n".join(
        [
            *((ASSETS / "javascript" / f"depth2img-{name}.mjs").read_text(encoding="utf8") for name in MODULES),
            (HERE / "page.mjs").read_text(encoding="utf8"),
        ]
    )
    style = (HERE / "page.css").read_text(encoding="utf8")
    policy = f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
    page = (HERE / "page.html").read_text(encoding="utf8")
    return fill(page, {"CSP": policy, "STYLE": style, "SCRIPT": script})


def fill(page: str, values: Mapping[str, str]) -> str:
    """Fill holes in; what is filled in is not looked through again, and unknown holes stay."""
    return HOLE.sub(lambda hole: values.get(hole[1], hole[0]), page)


def page(picture: Picture, depth: DepthMap, *, title: str = "", movement: float = 1.0, focus: float = 0.5) -> str:
    """Make the page.

    Args:
        picture: uint8 (H, W, 3).
        depth: the map of the whole picture, larger = nearer, stretched to its own range.
        title: plain text; it is escaped, and cut after 200 characters.
        movement: how far things move at first, 0..2.
        focus: the depth that stays where it is, 0 (farthest) .. 1 (nearest).
    """
    values = {
        "TITLE": html.escape(title[:LONGEST_TITLE] or "Hover view"),
        "PICTURE": _url("jpeg", _jpeg(picture)),
        "DEPTH": _url("png", encode_depth(depth)),
        "MOVEMENT": f"{movement:g}",
        "FOCUS": f"{focus:g}",
    }
    return fill(template(), values)


def encode_depth(depth: DepthMap) -> bytes:
    """Encode a map at 16 bits as an RGB PNG, as `decode` of the page reads it.

    Browsers reduce 16-bit PNGs to 8 bits, but keep three channels of 8 bits: red is the high byte, green the low one,
    and blue repeats the high one, so that the three are the same part of full scale.
    """
    scale = min(1.0, LONGEST_DEPTH / max(depth.width, depth.height))
    small = depth.resized(max(1, round(depth.width * scale)), max(1, round(depth.height * scale)))
    codes = np.round(small.normalised().astype(np.float64) * 65535).astype(np.uint16)
    high, low = codes >> 8, codes & 255
    done, content = cv2.imencode(".png", np.stack([high, low, high], axis=2).astype(np.uint8))
    assert done
    return bytes(content.tobytes())


def _jpeg(picture: Picture) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_PICTURE, LONGEST_PICTURE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, subsampling=0)
    return content.getvalue()


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
