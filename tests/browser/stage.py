"""Drive the app's panel in tests."""

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


NUMBERS: dict[str, float] = {"near": 1, "far": 0, "gamma": 1, "blur": 0, "strength": 1}
"""The adjustments of a new page."""


class Panel:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.stage = page.locator(".depth2img-stage-inside")
        self.flat = page.locator("canvas.depth2img-flat")
        self.hover = page.locator("canvas.depth2img-hover")

    def part(self, name: str) -> Locator:
        return self.page.locator(f"#app-depth-{name}").first

    def reset(self) -> None:
        """All controls as on a new page."""
        page = self.page
        page.mouse.move(1, 1)
        for name, value in NUMBERS.items():
            if self.value(name) != value:
                self.number(name, value)
        self.part("invert").locator("input").uncheck()
        self.part("append_map").locator("input").uncheck()
        # Nearness; the choice is hidden where depth does not come from a map.
        self.part("holds").locator("input[type=radio]").first.evaluate("(radio) => radio.click()")
        self.size(512, 512)
        for name, value in {"Movement": "1", "Picture to depth": "0", "Focus plane": "0.5"}.items():
            self.stage.get_by_label(name).evaluate(
                "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
            )
        self.mode("Depth")

    def picture(self, file: Path) -> None:
        self.page.locator("#app-picture input[type=file]").first.set_input_files(str(file))
        self.page.locator("#app-picture canvas").first.wait_for()

    def size(self, width: int, height: int) -> None:
        """The frame's; its section must be open."""
        for name, value in (("width", width), ("height", height)):
            self.page.locator(f"#app-{name} input").fill(str(value))

    def choose(self, name: str, value: str) -> None:
        """An entry of a drop-down list."""
        self.page.locator(f"#app-{name} input").click()
        self.page.locator(f"#app-{name} li", has_text=value).first.click()

    def source(self, label: str) -> None:
        self.part("source").get_by_text(label, exact=True).click()

    def own(self, file: Path) -> None:
        """A depth map of the user's."""
        self.source("My own depth map")
        component = self.no_map()
        component.locator("input[type=file]").set_input_files(str(file))
        component.get_by_text(file.name).wait_for()

    def estimate(self) -> None:
        before = self.stage.get_attribute("data-shown")
        self.part("estimate").click()
        self.wait("(stage, before) => stage.dataset.shown && stage.dataset.shown !== before", before)

    def wait(self, code: str, arg: Any = None) -> None:
        self.page.wait_for_function(
            f"([stage, arg]) => ({code})(stage, arg)", arg=[self.stage.element_handle(), arg], polling=50
        )

    def no_map(self) -> Locator:
        """Take the user's map away again."""
        component = self.part("depth_map")
        component.wait_for()
        if component.locator("a[href]").count():
            component.locator("button[aria-label=Clear]").click()
        return component

    def mode(self, name: str) -> None:
        self.stage.locator(".depth2img-modes").get_by_label(name, exact=True).check()
        if self.stage.get_attribute("data-painted"):
            self.wait("(stage) => stage.dataset.painted === stage.dataset.mode")

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
        self.hover.scroll_into_view_if_needed()
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
