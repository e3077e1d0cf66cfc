"""The host's picture components: `gr.Image`, or Forge's canvas, which keeps picture and strokes apart.

A canvas is an HTML component that has the element id, and after it two hidden ones, told by their classes: the strokes
and the picture. What the host makes of them is in `img2img_function` (modules/img2img.py).
"""

from __future__ import annotations

from typing import Any, Final

from PIL import Image, ImageFilter

TABS: Final = ("img2img_image", "img2img_sketch", "img2maskimg", "inpaint_sketch", "img_inpaint_base")
"""The host's picture components, by the number of the tab (`get_tab_index('mode_img2img')`)."""

SKETCH, INPAINT, INPAINT_SKETCH, INPAINT_UPLOAD = range(1, len(TABS))

STROKES: Final = tuple(f"{name}_strokes" for name in TABS[:INPAINT_UPLOAD])
"""Our own names for the strokes of Forge's canvases, in the order of the tabs."""

SKETCH_ORIGINAL: Final = "inpaint_sketch_original"
"""Our own name for the state behind `gr.Image`'s `inpaint_sketch`, which has no id."""

THRESHOLD: Final = 128
"""Strokes above this opacity are the mask; masks of a host with canvases have no greys."""

DILATION: Final = 0.015
"""Share of the shorter side by which Forge widens the strokes of an inpaint sketch, to each side."""


class HostComponents(dict[str, Any]):
    """The host's components of a tab of its page, by element id or by our own names."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: str | None = None
        self._canvas = ""

    def note(self, component: Any) -> str | None:
        """Take note of a component that was just made, and return its name."""
        name: str | None = getattr(component, "elem_id", None)
        classes = getattr(component, "elem_classes", None) or []
        if "logical_image_background" in classes:
            name = self._canvas
        elif "logical_image_foreground" in classes:
            name = f"{self._canvas}_strokes"
        elif name is None and self._latest == TABS[INPAINT_SKETCH] and STROKES[INPAINT_SKETCH] not in self:
            name = SKETCH_ORIGINAL
        elif name in TABS:
            self._canvas = str(name)
        self._latest = name
        if name is not None:
            self[name] = component
        return name

    def named(self, *names: str) -> list[Any]:
        """Return those of the components that the host has, in this order."""
        return [self[name] for name in names if name in self]


def opened(tab: int, picture: Image.Image | None, strokes: Image.Image | None) -> tuple[Any, Any]:
    """Return picture and mask of a tab with a canvas, as Forge makes them; each None where there is none.

    Args:
        tab: its number.
        picture: RGBA.
        strokes: RGBA, of the same size; None where nothing was drawn.
    """
    if picture is None or strokes is None or tab not in (SKETCH, INPAINT, INPAINT_SKETCH):
        return picture, None
    drawn = strokes.convert("RGBA")
    if tab == INPAINT:
        return picture, drawn.getchannel("A")
    composite = Image.alpha_composite(picture.convert("RGBA"), drawn)
    if tab == SKETCH:
        return composite, None
    widened = drawn.getchannel("A").filter(ImageFilter.MaxFilter(int(DILATION * min(drawn.size)) * 2 + 1))
    return composite, widened


def without_greys(mask: Image.Image) -> Image.Image:
    """Return a mask as Forge takes it: white above the threshold, black elsewhere."""
    return mask.point(lambda value: 255 if value > THRESHOLD else 0)
