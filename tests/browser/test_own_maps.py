"""Depth maps as people bring them, uploaded in the panel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stage import Panel

CASES = Path(__file__).parents[1] / "library" / "cases"
TRUTH = np.load(CASES / "hw.npy")


@pytest.mark.parametrize(
    ("name", "holds", "least"),
    [
        ("rs_mm.png", "Distance", 0.97),
        ("rgbaz.exr", "Distance", 0.99),
        ("half65504.exr", "Distance", 0.99),
        ("mm_sky65535.png", "Distance", 0.99),
        ("bl_V.exr", "Distance", 0.99),
        ("zinv.npy", "Distance", 0.99),
        ("zneg.tif", "Distance", 0.99),
        ("f16.tif", "Nearness", 0.99),
        ("f64.tif", "Nearness", 0.99),
        ("midas.pfm", "Nearness", 0.99),
        ("x.npz", "Nearness", 0.99),
        ("da_1hw.npy", "Nearness", 0.99),
        ("inferno.png", "Nearness", 0.99),
    ],
)
def test_a_map_of_any_kind(panel: Panel, name: str, holds: str, least: float) -> None:
    panel.own(CASES / name)
    panel.size(128, 128)
    panel.part("holds").get_by_text(holds).first.click()
    panel.estimate()
    shown = panel.pixels()[:, :, 0]
    rows, columns = (np.arange(128) * side // 128 for side in shown.shape)
    seen = shown[np.ix_(rows, columns)]
    # Grey levels of 8 bits, on a canvas that the browser has scaled.
    assert np.corrcoef(seen.ravel(), TRUTH.ravel())[0, 1] >= least - 0.01
    message = panel.part("message").inner_text()
    assert ("held no measurement" in message) is (name in ("rs_mm.png", "zneg.tif"))
    assert "seem" not in message


def test_a_message_says_what_is_noteworthy(panel: Panel) -> None:
    panel.own(CASES / "rgbaz.exr")
    panel.part("holds").get_by_text("Nearness").first.click()
    panel.estimate()
    message = panel.part("message").inner_text()
    assert "seems to hold distances: the channel is called Z" in message and "lies within" in message


def test_the_remedy_is_a_click(panel: Panel) -> None:
    """It chooses "Map holds": Distance, and estimates again."""
    panel.own(CASES / "bl_Z.exr")
    panel.size(128, 128)
    panel.part("holds").get_by_text("Nearness").first.click()
    panel.estimate()
    before = panel.stage.get_attribute("data-shown")
    panel.part("message").get_by_role("button", name="Use as distances").click()
    panel.wait("(stage, before) => stage.dataset.shown && stage.dataset.shown !== before", before)
    assert panel.part("holds").locator("input[type=radio]:checked").count() == 1
    assert panel.part("message").get_by_role("button").count() == 0
    assert "seems to hold distances" not in panel.part("message").inner_text()
    shown = panel.pixels()[:, :, 0]
    rows, columns = (np.arange(128) * side // 128 for side in shown.shape)
    # Grey levels of 8 bits, on a canvas that the browser has scaled.
    assert np.corrcoef(shown[np.ix_(rows, columns)].ravel(), TRUTH.ravel())[0, 1] >= 0.98
