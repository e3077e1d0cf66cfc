"""The stage large: over the page with its controls, by button and key, and back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import VIEWPORT
from stage import Panel
from test_looks import AXE, MODES, shot

DIALOG = ".depth2img-row[role=dialog]"


@pytest.fixture
def large(panel: Panel) -> Iterator[Panel]:
    panel.page.set_viewport_size({"width": 1440, "height": 900})
    panel.stage.get_by_role("button", name="Large").click()
    panel.page.locator(DIALOG).wait_for()
    panel.wait("(stage) => stage.querySelector('.depth2img-flat').getBoundingClientRect().height > 500")
    yield panel
    if panel.page.locator(DIALOG).count():
        panel.page.keyboard.press("Escape")
    panel.page.set_viewport_size(VIEWPORT)


def test_it_lies_over_the_page_with_its_controls(large: Panel) -> None:
    box = large.page.locator(DIALOG).bounding_box()
    assert box == {"x": 0, "y": 0, "width": 1440, "height": 900}
    shown = large.flat.bounding_box()
    assert shown is not None
    assert large.page.evaluate("""() => {
        const [x, y] = [innerWidth / 2, 20];
        return Boolean(document.elementFromPoint(x, y).closest('[role=dialog]'));
    }""")
    for name in ("near", "far", "gamma", "blur", "invert", "source"):
        control = large.part(name).bounding_box()
        assert control is not None and control["x"] > shown["x"] + shown["width"]  # beside it
    before = large.pixels()
    large.part("invert").locator("input").check()
    large.page.wait_for_timeout(300)
    assert np.abs(large.pixels() - before).mean() > 50


def test_escape_brings_it_back_and_nothing_has_moved(panel: Panel) -> None:
    page = panel.page
    panel.stage.scroll_into_view_if_needed()
    page.evaluate("""() => {
        globalThis.shifts = 0;
        new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.shifts += entry.value;
        }).observe({ type: 'layout-shift', buffered: false });
    }""")

    def places() -> list[float]:
        return page.evaluate(
            "() => ['.depth2img-panel', '#app-depth-append_map', '#app-picture'].map((name) => "
            "document.querySelector(name).getBoundingClientRect().top)"
        )

    before = places()
    button = panel.stage.get_by_role("button", name="Large")
    button.focus()
    page.keyboard.press("Enter")
    page.locator(DIALOG).wait_for()
    assert [place for place in places()[1:]] == before[1:]
    page.wait_for_timeout(700)  # shifts soon after a key are not counted
    page.keyboard.press("Escape")
    page.locator(DIALOG).wait_for(state="detached")
    assert places() == before
    assert page.evaluate("document.activeElement.textContent") == "Large"
    page.wait_for_timeout(700)
    assert page.evaluate("globalThis.shifts") == 0


def test_the_key_f(panel: Panel) -> None:
    page = panel.page
    panel.mode("Hover view")
    panel.hover.focus()
    page.keyboard.press("f")
    page.locator(DIALOG).wait_for()
    assert page.evaluate("document.activeElement.className") == "depth2img-hover"
    page.keyboard.press("f")
    page.locator(DIALOG).wait_for(state="detached")
    page.locator("#app-prompt textarea").click()
    page.keyboard.type("fff")
    assert not page.locator(DIALOG).count()
    assert page.locator("#app-prompt textarea").input_value().endswith("fff")
    page.locator("#app-prompt textarea").fill("")
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("f")  # neither focus nor pointer are at the stage
    assert not page.locator(DIALOG).count()


def test_the_keyboard_stays_inside(large: Panel) -> None:
    page = large.page
    for _ in range(40):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || Boolean(document.activeElement.closest('[role=dialog]'))"
        )


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core (npm install)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(large: Panel, theme: str) -> None:
    page = large.page
    page.add_script_tag(path=str(AXE))
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
    try:
        for mode in MODES:
            large.mode(mode)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
            assert not [(mode, one["id"], [node["html"][:160] for node in one["nodes"]][:3]) for one in serious]
            shot(page, f"large-{theme}-{mode.split()[0].lower()}")
    finally:
        page.evaluate("document.body.classList.remove('dark')")


def test_narrow_it_stands_above_its_controls(large: Panel) -> None:
    large.page.set_viewport_size({"width": 390, "height": 844})
    large.page.wait_for_timeout(200)
    assert large.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    shown, near = large.stage.bounding_box(), large.part("near").bounding_box()
    assert shown is not None and near is not None
    assert near["y"] >= shown["y"] + shown["height"] and near["width"] <= 390
