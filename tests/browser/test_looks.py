"""The panel's looks: accessible, no sideways scrolling from 320 px to 4K, nothing jumps. DEPTH2IMG_SHOTS=folder also
writes screenshots."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from conftest import ROOT, VIEWPORT, opened
from PIL import Image
from playwright.sync_api import Browser, Page
from stage import Panel

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
MODES = ("Depth", "Picture", "Hover view", "Compare", "Region")


def shot(page: Page, name: str) -> None:
    if "DEPTH2IMG_SHOTS" in os.environ:
        page.screenshot(path=str(Path(os.environ["DEPTH2IMG_SHOTS"]) / f"{name}.png"), full_page=True)


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core (npm install)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(panel: Panel, theme: str) -> None:
    page = panel.page
    page.add_script_tag(path=str(AXE))
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")

    def check(what: str) -> None:
        found = page.evaluate("axe.run('.depth2img-panel', {resultTypes: ['violations']})")
        serious = [
            (what, violation["id"], [node["html"][:160] for node in violation["nodes"]][:3])
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        assert not serious, serious

    try:
        for mode in MODES:
            panel.mode(mode)
            check(mode)
        shot(page, f"app-{theme}")
        panel.source("Another picture")
        panel.part("reference").locator("input[type=file]").wait_for(state="attached")
        check("another picture")
    finally:
        page.evaluate("document.body.classList.remove('dark')")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_download_has_the_themes_colours(panel: Panel, theme: str) -> None:
    """The app fetches nothing, so the bar is put onto its page."""
    page = panel.page
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
    try:
        colours = page.evaluate(
            """html => {
                const holder = document.createElement('div');
                holder.id = 'bar-holder';
                holder.innerHTML = html;
                document.querySelector('.depth2img-panel').prepend(holder);
                return ['--color-accent', '--border-color-primary'].map((name) => {
                    holder.style.color = `var(${name})`;
                    return getComputedStyle(holder).color.match(/\\d+/g).map(Number);
                });
            }""",
            '<progress class="depth2img-progress" max="2" value="1"></progress>',
        )
        bar = Image.open(io.BytesIO(page.locator(".depth2img-progress").screenshot())).convert("RGB")
        across = [bar.getpixel((bar.width * part // 4, bar.height // 2)) for part in (1, 3)]
        assert [list(colour) for colour in across] == colours
    finally:
        page.evaluate("document.body.classList.remove('dark'); document.getElementById('bar-holder')?.remove()")


@pytest.mark.parametrize("width", [320, 768, 3840])
def test_every_width(width: int, panel: Panel) -> None:
    page = panel.page
    page.set_viewport_size({"width": width, "height": 1300})
    try:
        for mode in MODES:
            panel.mode(mode)
            shot(page, f"app-{width}-{mode.split()[0].lower()}")
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            outside = page.evaluate("""() => {
                const inside = document.querySelector('.depth2img-panel').getBoundingClientRect();
                return Array.from(document.querySelectorAll('.depth2img-panel :is(button, input, select, canvas)'))
                    .map((element) => [element, element.getBoundingClientRect()])
                    .filter(([element, box]) => box.width && element.offsetParent)
                    .filter(([, box]) => box.left < inside.left - 1 || box.right > inside.right + 1)
                    .map(([element]) => element.outerHTML.slice(0, 120));
            }""")
            assert not outside
    finally:
        page.set_viewport_size(VIEWPORT)


def test_nothing_jumps_while_loading_or_switching(page: Page, files: Path) -> None:
    panel = Panel(page)
    panel.picture(files / "scene.png")

    def places() -> list[float]:
        names = (".depth2img-panel", "#app-depth-estimate", "#app-depth-near", "#app-depth-append_map")
        found = [page.locator(name).first.bounding_box() for name in names]
        tops = [box["y"] for box in found if box is not None]
        return [top - tops[0] for top in tops]

    before = []
    while before != places():  # until the page has arrived
        before = places()
        page.wait_for_timeout(500)
    panel.part("estimate").click()
    panel.stage.locator(".depth2img-busy").wait_for()
    assert places() == before
    panel.wait("(stage) => stage.dataset.painted")
    assert places() == before
    for mode in MODES:
        panel.mode(mode)
        assert places() == before


def test_every_control_of_the_stage_is_reached_by_the_keyboard(panel: Panel) -> None:
    page = panel.page
    panel.mode("Hover view")
    panel.stage.locator("input[type=radio]:checked").focus()
    seen = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        )
        seen.append(page.evaluate("document.activeElement.closest('label')?.textContent ?? ''"))
    for wanted in (
        "Save 16-bit",
        "Record loop",
        "Movement",
        "Picture to depth",
        "Focus plane",
        "Far",
        "Near",
        "Estimate depth",
    ):
        assert any(wanted in one for one in seen), (wanted, seen)


def test_controls_have_tooltips_and_can_be_translated(browser: Browser, address: str) -> None:
    context = browser.new_context()
    context.add_init_script("globalThis.localization = { 'Hover view': 'Schwebend', 'Record loop': 'Film' };")
    panel = Panel(opened(context.new_page(), address))
    assert "nearer than this" in (panel.part("near").get_attribute("title") or "")
    panel.stage.get_by_text("Schwebend").wait_for()
    panel.stage.get_by_role("button", name="Film").wait_for()
    context.close()
