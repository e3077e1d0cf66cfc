"""A page of the real WebUI in headless Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

from depth2img import OPTIONS

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox",
    # Software rendering: a machine without a graphics card has WebGL too.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WAIT = 240_000
"""Milliseconds a job may take on a busy machine."""


@contextlib.contextmanager
def opened(url: str, *, width: int = 1400, height: int = 1200, query: str = "?__theme=light") -> Iterator[Page]:
    """The page, ready: the extension's header has got its state from the server."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(WAIT)
        # The WebUI's page asks for one script of another host; no test leaves the machine.
        page.route(lambda address: "127.0.0.1" not in address, lambda route: route.abort())
        page.goto(url + "/" + query)
        page.locator("#script_img2img_depth_to_image_status [data-state]").wait_for(state="attached")
        try:
            yield page
        finally:
            browser.close()


def shot(page: Page, name: str, part: Locator | None = None) -> None:
    """A screenshot for docs/ and for the eye, where DEPTH2IMG_SHOTS names a folder."""
    if "DEPTH2IMG_SHOTS" in os.environ:
        (part or page).screenshot(path=str(Path(os.environ["DEPTH2IMG_SHOTS"]) / f"{name}.png"))


class DepthPanel:
    """The panel of one tab."""

    def __init__(self, page: Page, tab: str) -> None:
        self.page, self.tab = page, tab

    def part(self, name: str) -> Locator:
        # Gradio gives an HTML component its id twice.
        return self.page.locator(f"#script_{self.tab}_depth_to_image_{name}").first

    def show_tab(self) -> None:
        self.page.locator("#tabs > .tab-nav button", has_text=self.tab).first.click()

    def open(self) -> None:
        """Open the panel, whatever state it is in, without touching the toggle."""
        if not self.is_open:
            self.header.click()
        self.part("estimate").wait_for(state="visible")

    @property
    def header(self) -> Locator:
        return self.part("enabled").locator(".label-wrap").first

    @property
    def is_open(self) -> bool:
        return "open" in (self.header.get_attribute("class") or "").split()

    @property
    def checkbox(self) -> Locator:
        return self.page.locator(f"#script_{self.tab}_depth_to_image_enabled-visible-checkbox")

    @property
    def toggle(self) -> Locator:
        """Return the switch of depth: 1.6 has no checkbox there, and an open panel is one that is on."""
        return self.checkbox if self.checkbox.count() else self.header

    @property
    def stage(self) -> Locator:
        return self.page.locator(f"#script_{self.tab}_depth_to_image_estimate").locator(
            "xpath=ancestor::*[contains(@class, 'depth2img-panel')]//*[contains(@class, 'depth2img-stage-inside')]"
        )

    def value(self, name: str) -> object | None:
        """Return the value of an option's control; None if the page does not show it now."""
        if name == "enabled":
            return self.checkbox.is_checked() if self.checkbox.count() else self.is_open
        kind, part = OPTIONS[name].kind, self.part(name)
        found = {
            "switch": "input[type=checkbox]",
            "number": "input[type=number]",
            "choice": "input[type=radio]:checked",
            "text": "textarea, input",
        }
        control = part.locator(found[kind])
        if not control.count():
            return None
        if kind == "switch":
            return control.first.is_checked()
        text = control.first.input_value()
        return float(text) if kind == "number" else text

    def estimate(self) -> Locator:
        """Press the button and wait for the map."""
        before = self.stage.get_attribute("data-shown") or ""
        self.part("estimate").click()
        self.page.wait_for_function(
            "([stage, before]) => stage.dataset.shown && stage.dataset.shown !== before && stage.dataset.painted",
            arg=[self.stage.element_handle(), before],
        )
        return self.stage.locator("canvas.depth2img-flat")

    def mode(self, name: str) -> None:
        """Choose what the stage shows."""
        self.stage.locator(".depth2img-modes").get_by_text(name, exact=True).click()

    def pixels(self) -> str:
        """Return the stage's content, as a data URL."""
        return str(self.stage.locator("canvas.depth2img-flat").evaluate("canvas => canvas.toDataURL()"))

    def generate(self) -> Locator:
        """Press Generate and wait for the first picture of the gallery."""
        self.page.locator(f"#{self.tab}_generate").click()
        picture = self.page.locator(f"#{self.tab}_gallery img").first
        picture.wait_for(state="visible")
        self.page.locator(f"#{self.tab}_interrupt").wait_for(state="hidden")
        return picture

    def upload(self, element: str, file: Path) -> None:
        """Put a file into one of the host's picture components, or into one of ours."""
        self.page.locator(f"#{element} input[type=file]").first.set_input_files(str(file))
        self.page.locator(f"#{element} :is(img, canvas):visible").first.wait_for()

    def number(self, element: str, value: float) -> None:
        """Type into a slider's number box."""
        box = self.page.locator(f"#{element} input[type=number]").first
        box.fill(str(value))
        box.blur()
