"""The panel's looks: accessible, no sideways scrolling from 320 px to 4K, nothing jumps. DEPTH2IMG_SHOTS=folder also
writes screenshots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT, opened
from playwright.sync_api import Browser, Page
from stage import Panel

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
MODES = ("Depth", "Picture", "Hover view", "Compare")


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, browser: Browser, address: str, files: Path):
    context = browser.new_context(viewport={"width": 1400, "height": 1300}, reduced_motion="reduce")
    page = opened(context.new_page(), address, f"?__theme={request.param}")
    yield page, request.param
    context.close()


def shot(page: Page, name: str) -> None:
    if "DEPTH2IMG_SHOTS" in os.environ:
        page.screenshot(path=str(Path(os.environ["DEPTH2IMG_SHOTS"]) / f"{name}.png"), full_page=True)


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core (npm install)")
def test_axe_finds_nothing_serious(themed: tuple[Page, str], files: Path) -> None:
    page, theme = themed
    panel = Panel(page)
    page.add_script_tag(path=str(AXE))

    def check(what: str) -> None:
        found = page.evaluate("axe.run('.depth2img-panel', {resultTypes: ['violations']})")
        serious = [
            (what, violation["id"], [node["html"][:160] for node in violation["nodes"]][:3])
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        assert not serious, serious

    check("empty")
    panel.picture(files / "planes.png")
    panel.estimate()
    for mode in MODES:
        panel.mode(mode)
        check(mode)
    shot(page, f"app-{theme}")
    panel.part("source").get_by_text("My own depth map", exact=True).click()
    panel.part("depth_map").locator("input[type=file]").wait_for(state="attached")
    check("own map")
    panel.part("source").get_by_text("Another picture", exact=True).click()
    panel.part("reference").locator("input[type=file]").wait_for(state="attached")
    check("another picture")


@pytest.mark.parametrize("width", [320, 768, 1400, 3840])
def test_every_width(width: int, browser: Browser, address: str, files: Path) -> None:
    context = browser.new_context(viewport={"width": width, "height": 1300})
    panel = Panel(opened(context.new_page(), address))
    panel.picture(files / "planes.png")
    panel.estimate()
    for mode in MODES:
        panel.mode(mode)
    page = panel.page
    shot(page, f"app-{width}")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    inside = page.locator(".depth2img-panel").bounding_box()
    assert inside is not None
    for element in page.locator(".depth2img-panel :is(button, input, select, canvas):visible").all():
        box = element.bounding_box()
        if box is None or box["width"] == 0:
            continue
        where = element.evaluate("element => element.outerHTML")[:120]
        assert box["x"] >= inside["x"] - 1 and box["x"] + box["width"] <= inside["x"] + inside["width"] + 1, where
    context.close()


def test_nothing_jumps_while_loading_or_switching(page: Page, files: Path) -> None:
    panel = Panel(page)
    panel.picture(files / "planes.png")

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


def test_every_control_of_the_stage_is_reached_by_the_keyboard(page: Page, files: Path) -> None:
    panel = Panel(page)
    panel.picture(files / "planes.png")
    panel.estimate()
    panel.mode("Hover view")
    panel.stage.locator("input[type=radio]:checked").focus()
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        )
        seen.append(page.evaluate("document.activeElement.closest('label')?.textContent ?? ''"))
    for wanted in ("Save 16-bit", "Record loop", "Movement", "Picture to depth", "Far", "Near", "Estimate depth"):
        assert any(wanted in one for one in seen), (wanted, seen)


def test_interrupt_while_estimating(page: Page, files: Path) -> None:
    panel = Panel(page)
    panel.picture(files / "planes.png")
    page.evaluate("""async () => {
        document.querySelector('#app-depth-estimate').click();
        await new Promise((resolve) => setTimeout(resolve, 150));
        document.querySelector('.depth2img-busy button').click();
    }""")
    panel.stage.locator(".depth2img-busy").wait_for(state="hidden")
    page.wait_for_timeout(1500)
    assert panel.stage.get_attribute("data-painted") is None
    panel.estimate()


def test_controls_have_tooltips_and_can_be_translated(browser: Browser, address: str) -> None:
    context = browser.new_context()
    context.add_init_script("globalThis.localization = { 'Hover view': 'Schwebend', 'Record loop': 'Film' };")
    panel = Panel(opened(context.new_page(), address))
    assert "nearer than this" in (panel.part("near").get_attribute("title") or "")
    panel.stage.get_by_text("Schwebend").wait_for()
    panel.stage.get_by_role("button", name="Film").wait_for()
    context.close()
