"""What the tests do with a panel of the app."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page

TURN_AROUND = 3400
"""Milliseconds until the sway at the start of the hover view is over."""


class Panel:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.stage = page.locator(".depth2img-stage-inside")
        self.flat = page.locator("canvas.depth2img-flat")
        self.hover = page.locator("canvas.depth2img-hover")

    def part(self, name: str) -> Locator:
        return self.page.locator(f"#app-depth-{name}").first

    def picture(self, file: Path) -> None:
        self.page.locator("#app-picture input[type=file]").first.set_input_files(str(file))
        self.page.locator("#app-picture canvas").first.wait_for()

    def estimate(self) -> None:
        before = self.stage.get_attribute("data-shown")
        self.part("estimate").click()
        self.wait("(stage, before) => stage.dataset.shown && stage.dataset.shown !== before", before)

    def wait(self, code: str, arg: Any = None) -> None:
        self.page.wait_for_function(
            f"([stage, arg]) => ({code})(stage, arg)", arg=[self.stage.element_handle(), arg], polling=50
        )

    def mode(self, name: str) -> None:
        self.stage.get_by_text(name, exact=True).first.click()
        self.wait("(stage, mode) => stage.dataset.painted === mode", self.stage.get_attribute("data-mode"))

    def number(self, name: str, value: float) -> None:
        box = self.part(name).locator("input[type=number]")
        box.fill(str(value))
        box.blur()

    def value(self, name: str) -> float:
        return float(self.part(name).locator("input[type=number]").input_value())

    def pixels(self, canvas: Locator | None = None) -> np.ndarray[Any, Any]:
        url = (canvas or self.flat).evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(int)

    def look(self, x: float, y: float) -> np.ndarray[Any, Any]:
        """Hover at a place (parts of the canvas), wait until nothing moves, and return what is seen."""
        box = self.hover.bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        self.still()
        return self.pixels(self.hover)

    def still(self) -> None:
        """Wait until the view has come to rest."""
        self.page.wait_for_function("canvas => canvas.dataset.still === 'yes'", arg=self.hover.element_handle())

    def draws(self) -> int:
        return int(self.hover.evaluate("canvas => canvas.depth2imgDraws ?? 0"))


COUNT_DRAWS = """
globalThis.contexts = 0;
const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    const known = this.depth2imgContext;
    const context = get.call(this, kind, ...rest);
    if (kind === "webgl" && !known && context) {
        this.depth2imgContext = context;
        globalThis.contexts += 1;
        this.depth2imgDraws = 0;
        const draw = context.drawArrays;
        context.drawArrays = (...given) => { this.depth2imgDraws += 1; return draw.apply(context, given); };
    }
    return context;
};
"""
"""Counts the graphics contexts of a page and the frames drawn in each."""
