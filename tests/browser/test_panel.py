"""The panel in a browser: preview, live adjustment, files, states, and what follows a job."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page
from stage import Panel

from depth2img import DepthMap, DepthOptions, adjust, read_depth_map


def saved(panel: Panel, button: str, folder: Path) -> Path:
    with panel.page.expect_download() as download:
        panel.stage.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_preview_shows_near_as_white_and_says_what_it_is(scene: Panel) -> None:
    shown = scene.pixels()
    assert shown.shape[:2] == (384, 384)
    box, sky = shown[230, 135], shown[38, 192]
    assert box.min() > sky.max() + 100
    assert "bundled network, 384 x 384" in scene.part("message").inner_text()


def test_adjustment_is_live_and_needs_no_server(panel: Panel) -> None:
    asked: list[str] = []
    panel.page.on("request", lambda request: asked.append(request.url))
    panel.page.on("websocket", lambda socket: asked.append(socket.url))
    assert panel.pixels()[256, 256].min() > 250
    panel.part("invert").locator("input").check()
    panel.page.wait_for_timeout(300)
    assert panel.pixels()[256, 256].max() < 5
    panel.number("gamma", 3)
    panel.page.wait_for_timeout(300)
    assert not asked


def drag(panel: Panel, name: str, place: float) -> None:
    """A mark of the histogram to a place 0..1."""
    panel.stage.locator(".depth2img-histogram").scroll_into_view_if_needed()
    mark = panel.stage.locator(f".depth2img-mark-{name}").bounding_box()
    ground = panel.stage.locator(".depth2img-histogram").bounding_box()
    assert mark is not None and ground is not None
    panel.page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    panel.page.mouse.down()
    panel.page.mouse.move(ground["x"] + place * ground["width"], mark["y"] + 5, steps=4)
    panel.page.mouse.up()


def results(panel: Panel) -> list[Image.Image]:
    """The pictures of a job of two steps."""
    page = panel.page
    page.locator("#app-steps input[type=number]").fill("2")
    with page.expect_websocket() as job:
        page.locator("#app-generate").click()
    if not job.value.is_closed():
        job.value.wait_for_event("close")
    page.wait_for_timeout(300)
    seen: list[str] = []
    for url in page.locator("#app-result img").evaluate_all("images => images.map((image) => image.src)"):
        if url not in seen:
            seen.append(url)
    return [Image.open(io.BytesIO(page.request.get(url).body())) for url in seen]


def test_dragging_near_and_far_changes_preview_and_job_alike(scene: Panel) -> None:
    """The next job is conditioned on the map that the browser shows."""
    scene.size(128, 128)
    scene.estimate()
    before = scene.pixels()
    drag(scene, "far", 0.2)
    drag(scene, "near", 0.7)
    assert (scene.value("far"), scene.value("near")) == (pytest.approx(0.2, abs=0.011), pytest.approx(0.7, abs=0.011))
    shown = scene.pixels()
    assert np.abs(shown - before).mean() > 5
    scene.part("append_map").locator("input").check()
    pictures = results(scene)
    assert len(pictures) == 2
    got = np.asarray(pictures[1].convert("L")).astype(int)
    wanted = np.asarray(DepthMap(shown[:, :, 0].astype(np.float32)).resized(128, 128).to_image().convert("L"))
    assert np.abs(got - wanted.astype(int)).max() <= 2  # 8 bits of the canvas, stretched once more


def test_marks_move_by_keys(panel: Panel) -> None:
    mark = panel.stage.locator(".depth2img-mark-far")
    mark.press("ArrowRight")
    assert panel.value("far") == pytest.approx(0.01)
    mark.press("PageUp")
    assert panel.value("far") == pytest.approx(0.11)
    assert mark.get_attribute("aria-valuenow") == "0.11"


def test_saved_map_is_the_adjusted_one_with_16_bits(panel: Panel, tmp_path: Path, files: Path) -> None:
    panel.number("near", 0.05)
    panel.number("gamma", 2)
    panel.page.wait_for_timeout(300)
    got = cv2.imread(str(saved(panel, "Save 16-bit", tmp_path)), cv2.IMREAD_UNCHANGED)
    assert got.dtype == np.uint16
    depth = read_depth_map(files / "planes-depth.png")
    wanted = adjust(depth, DepthOptions(near=0.05, gamma=2.0)).normalised() * 65535
    assert np.abs(got - wanted).max() < 65535 * 0.002
    assert len(np.unique(got)) > 256


def test_upload_keeps_16_bits_and_reuse_gives_a_file(panel: Panel, files: Path) -> None:
    panel.own(files / "ramp.png")
    panel.size(192, 128)
    panel.estimate()
    assert "16 bits" in panel.part("message").inner_text()
    row = panel.pixels()[60, :, 0]
    assert len(np.unique(row)) > 100  # 200 of 65,536 levels
    panel.part("reuse").click()
    panel.part("depth_map").get_by_text("depth.tiff").wait_for()
    panel.estimate()
    assert np.array_equal(panel.pixels()[60, :, 0], row)


def test_black_in_front_is_offered_to_be_inverted_and_never_done_unasked(panel: Panel, files: Path) -> None:
    panel.own(files / "black-in-front.png")
    panel.estimate()
    offer = panel.stage.get_by_text("looks as if black were near")
    assert offer.is_visible()
    assert not panel.part("invert").locator("input").is_checked()
    panel.stage.get_by_role("button", name="Invert").click()
    offer.wait_for(state="hidden")
    assert panel.part("invert").locator("input").is_checked()
    assert panel.pixels()[-5, 60, 0] > 200


def test_what_changes_the_map_makes_the_preview_stale(scene: Panel, files: Path) -> None:
    notice = scene.stage.get_by_text("Out of date")
    assert not notice.is_visible()
    scene.picture(files / "mirrored.png")
    notice.wait_for()
    before = scene.pixels()
    scene.estimate()
    notice.wait_for(state="hidden")
    assert np.abs(scene.pixels()[:, ::-1] - before).mean() < 12 < np.abs(scene.pixels() - before).mean()
    scene.size(512, 448)
    notice.wait_for()
    scene.size(512, 512)
    notice.wait_for(state="hidden")


def test_a_problem_is_a_sentence_and_leaves_the_map_stale(panel: Panel, page: Page) -> None:
    empty = Panel(page)
    empty.estimate()
    empty.part("message").get_by_text("There is no picture yet").wait_for()
    assert empty.stage.get_by_text("Press 'Estimate depth'").is_visible()
    before = panel.pixels()
    panel.no_map()
    panel.estimate()
    panel.part("message").get_by_text("'My own depth map' is selected, but no map was given").wait_for()
    assert np.array_equal(panel.pixels(), before)
    panel.stage.get_by_text("Out of date").wait_for()


def test_an_empty_page_offers_the_sample_scene(page: Page) -> None:
    empty = Panel(page)
    empty.stage.get_by_role("button", name="Try the sample scene").click()
    empty.wait("(stage) => stage.dataset.shown && stage.dataset.painted")
    shown = empty.pixels()
    assert shown[230, 135].min() > shown[38, 192].max() + 100  # the box is nearer than the sky
    assert not empty.stage.get_by_role("button", name="Try the sample scene").is_visible()
    page.locator("#app-picture canvas").first.wait_for()


def test_probe_tells_the_value(panel: Panel) -> None:
    panel.flat.hover()
    reading = panel.stage.locator(".depth2img-reading").inner_text()
    assert reading == "1.00 (65535)"


def test_interrupt_while_estimating(scene: Panel) -> None:
    before = scene.stage.get_attribute("data-shown")
    scene.page.evaluate("""async () => {
        document.querySelector('#app-depth-estimate').click();
        await new Promise((resolve) => setTimeout(resolve));
        document.querySelector('.depth2img-busy button').click();
    }""")
    scene.stage.locator(".depth2img-busy").wait_for(state="hidden")
    scene.page.wait_for_timeout(1000)
    assert scene.stage.get_attribute("data-shown") == before
    scene.estimate()


def test_after_a_job_its_map_and_a_comparison(panel: Panel) -> None:
    panel.size(96, 64)
    results(panel)
    before = panel.stage.get_attribute("data-shown")
    panel.part("recall").click()
    panel.wait("(stage, before) => stage.dataset.shown !== before", before)
    assert "Of the latest job" in panel.part("message").inner_text()
    panel.page.wait_for_timeout(600)
    assert not panel.stage.get_by_text("Out of date").is_visible()
    panel.mode("Compare")
    panel.stage.get_by_label("Left").select_option("depth")
    panel.stage.get_by_label("Right").select_option("result")
    panel.wait("(stage) => stage.querySelector('.depth2img-right').width === 96")
    panel.stage.get_by_label("Wipe").fill("25")
    panel.wait("(stage) => stage.querySelector('.depth2img-wipe').style.cssText.includes('25%')")


def test_size_hint(panel: Panel) -> None:
    panel.size(900, 600)
    panel.stage.get_by_role("button", name="192 x 128").click()
    assert panel.page.locator("#app-width input").input_value() == "192"
    panel.stage.get_by_text("Neither side").wait_for(state="hidden")
