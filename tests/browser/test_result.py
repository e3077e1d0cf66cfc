"""After a job: the hover view shows the result with the depth that made it; the view is shared as a page."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from stage import COUNT_DRAWS, Panel
from test_panel import results, saved
from test_shared_page import seen

PROMPTS = itertools.cycle(
    ["a red box, night", "a blue sphere, day", "a white cone on a green floor", "a yellow box, red sky"]
)


@pytest.fixture
def done(panel: Panel) -> Panel:
    """A job of two steps on the two planes."""
    panel.size(128, 128)
    panel.page.locator("#app-prompt textarea").fill(next(PROMPTS))  # another result than the one before
    before = panel.stage.get_attribute("data-shown")
    [panel.result] = results(panel)
    panel.wait("(stage, before) => stage.dataset.shown && stage.dataset.shown !== before", before)
    return panel


def relief(panel: Panel) -> np.ndarray:
    """The hover view at rest, as large as the result."""
    panel.page.mouse.move(1, 1)
    panel.still()
    return panel.pixels(panel.hover)


def test_the_map_of_a_job_is_shown_without_asking(done: Panel) -> None:
    assert "Of the latest job" in done.part("message").inner_text()
    done.page.wait_for_timeout(600)
    assert not done.stage.get_by_text("Out of date").is_visible()


def test_the_hover_view_shows_the_result_or_the_input(done: Panel) -> None:
    done.mode("Hover view")
    over = done.stage.get_by_label("Result", exact=True)
    assert over.is_checked() and over.is_enabled()
    shown = relief(done)
    result = np.asarray(done.result.convert("RGB")).astype(int)
    middle = np.s_[48:80, 48:80]  # the view enlarges by 6 %: there pixels lie within two of each other
    assert np.abs(shown[middle].mean((0, 1)) - result[middle].mean((0, 1))).max() < 12
    over.uncheck()
    entered = relief(done)
    assert np.abs(entered[middle].mean((0, 1)) - (255, 0, 0)).max() < 12  # the red square
    assert np.abs(entered - shown).mean() > 5
    moved = done.look(0.95, 0.5)
    assert np.abs(moved - entered).mean() > 2
    over.check()


def test_an_estimate_after_it_is_not_of_the_result(done: Panel) -> None:
    done.estimate()
    done.mode("Hover view")
    assert not done.stage.get_by_label("Result", exact=True).is_enabled()
    assert np.abs(relief(done)[48:80, 48:80].mean((0, 1)) - (255, 0, 0)).max() < 12


def test_shared_from_the_panel_it_is_the_same_view(done: Panel, tmp_path: Path) -> None:
    done.mode("Hover view")
    done.stage.get_by_label("Movement").fill("2")
    here = done.look(0.95, 0.5)
    file = saved(done, "Share", tmp_path)
    assert file.suffix == ".html" and file.stat().st_size < 200_000
    assert 'data-movement="2"' in file.read_text(encoding="utf8")
    context = done.page.context.browser.new_context(viewport={"width": 600, "height": 400}, reduced_motion="reduce")
    context.add_init_script(COUNT_DRAWS)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.goto(file.as_uri())
    page.locator("canvas").wait_for()
    there = seen(page, 0.95, 0.5)
    context.close()
    assert not complaints
    rows, columns = (np.arange(128) * side // 128 for side in here.shape[:2])
    assert there.shape == (128, 128, 3)
    assert np.median(np.abs(there - here[np.ix_(rows, columns)])) <= 6  # once more through JPEG
