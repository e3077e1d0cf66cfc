"""The colour maps in which depth is shown: their names, without OpenCV, which takes a moment to import."""

from __future__ import annotations

from typing import Final

from ..errors import DepthMapError

COLOUR_MAPS: Final = {"grey": None, "inferno": 14, "magma": 13, "viridis": 16, "turbo": 20}
"""Name -> OpenCV's number of the map (`cv2.COLORMAP_INFERNO` and so on); near is the bright end."""


def check_colour_map(name: str) -> None:
    """Refuse a name that is not in `COLOUR_MAPS`.

    Raises:
        DepthMapError: it is unknown.
    """
    if name not in COLOUR_MAPS:
        raise DepthMapError(f"There is no colour map '{name[:40]}'.", fix=f"Use {', '.join(COLOUR_MAPS)}.")
