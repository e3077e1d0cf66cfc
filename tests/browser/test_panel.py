"""The panel in a browser: preview, live adjustment, hover view, files, states."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import opened
from PIL import Image
from playwright.sync_api import Browser, Page
from stage import COUNT_DRAWS, TURN_AROUND, Panel

from depth2img import DepthOptions, adjust, read_depth_map


@pytest.fixture
def panel(page: Page, files: Path) -> Panel:
    ready = Panel(page)
    ready.picture(files / "planes.png")
    ready.estimate()
    return ready


@pytest.fixture
def hovering(browser: Browser, address: str, files: Path):
    """A panel in the hover view, without the sway at the start."""
    context = browser.new_context(viewport={"width": 1400, "height": 1300}, reduced_motion="reduce")
    context.add_init_script(COUNT_DRAWS)
    panel = Panel(opened(context.new_page(), address))
    panel.picture(files / "planes.png")
    panel.estimate()
    panel.mode("Hover view")
    panel.still()
    yield panel
    context.close()


def saved(panel: Panel, button: str, folder: Path) -> Path:
    with panel.page.expect_download() as download:
        panel.stage.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_preview_shows_near_as_white_and_says_what_it_is(panel: Panel) -> None:
    shown = panel.pixels()
    assert shown.shape[:2] == (256, 256)
    assert shown[128, 128].min() > 230 and shown[10, 10].max() < 25
    assert "Red, 256 x 256" in panel.part("message").inner_text()


def test_adjustment_is_live_and_needs_no_server(panel: Panel) -> None:
    asked: list[str] = []
    panel.page.on("request", lambda request: asked.append(request.url))
    panel.page.on("websocket", lambda socket: asked.append(socket.url))
    panel.part("invert").locator("input").check()
    panel.page.wait_for_timeout(300)
    assert panel.pixels()[128, 128].max() < 25
    panel.number("gamma", 3)
    panel.page.wait_for_timeout(300)
    assert not asked


def test_dragging_a_mark_changes_the_option_and_the_preview(panel: Panel) -> None:
    before = panel.pixels()
    mark, ground = panel.stage.locator(".depth2img-mark-far"), panel.stage.locator(".depth2img-histogram")
    box, wide = mark.bounding_box(), ground.bounding_box()
    assert box is not None and wide is not None
    panel.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    panel.page.mouse.down()
    panel.page.mouse.move(wide["x"] + 0.05 * wide["width"], box["y"] + 5, steps=4)
    panel.page.mouse.up()
    assert panel.value("far") == pytest.approx(0.05, abs=0.011)
    assert (panel.pixels() <= before).all() and (panel.pixels() < before).any()
    mark.press("ArrowRight")
    assert panel.value("far") == pytest.approx(0.06, abs=0.011)


def test_saved_map_is_the_adjusted_one_with_16_bits(panel: Panel, tmp_path: Path, files: Path) -> None:
    panel.number("near", 0.5)
    panel.number("gamma", 2)
    panel.page.wait_for_timeout(300)
    got = cv2.imread(str(saved(panel, "Save 16-bit", tmp_path)), cv2.IMREAD_UNCHANGED)
    assert got.dtype == np.uint16
    picture = np.asarray(Image.open(files / "planes.png"))
    rows = np.linspace(0, 0.08, 512)[:, None]
    depth = read_depth_map((picture[:, :, 0] / 255 + rows)[::2, ::2])
    wanted = adjust(depth, DepthOptions(near=0.5, gamma=2.0)).normalised() * 65535
    assert np.abs(got - wanted).max() < 65535 * 0.002


def test_upload_keeps_16_bits_and_reuse_gives_a_file(page: Page, files: Path) -> None:
    panel = Panel(page)
    panel.picture(files / "planes.png")
    panel.part("source").get_by_text("My own depth map", exact=True).click()
    panel.part("depth_map").locator("input[type=file]").set_input_files(str(files / "ramp.png"))
    panel.part("depth_map").get_by_text("ramp.png").wait_for()
    panel.estimate()
    assert "16 bits" in panel.part("message").inner_text()
    row = panel.pixels()[60, :, 0]
    assert len(np.unique(row)) > 100  # 200 of 65,536 levels
    panel.part("reuse").click()
    panel.part("depth_map").get_by_text("depth.tiff").wait_for()
    panel.estimate()
    assert np.array_equal(panel.pixels()[60, :, 0], row)


def test_black_in_front_is_offered_to_be_inverted_and_never_done_unasked(page: Page, files: Path) -> None:
    panel = Panel(page)
    panel.picture(files / "planes.png")
    panel.part("source").get_by_text("My own depth map", exact=True).click()
    panel.part("depth_map").locator("input[type=file]").set_input_files(str(files / "black-in-front.png"))
    panel.part("depth_map").get_by_text("black-in-front.png").wait_for()
    panel.estimate()
    offer = panel.stage.get_by_text("looks as if black were near")
    assert offer.is_visible()
    assert not panel.part("invert").locator("input").is_checked()
    panel.stage.get_by_role("button", name="Invert").click()
    offer.wait_for(state="hidden")
    assert panel.part("invert").locator("input").is_checked()
    assert panel.pixels()[-5, 60, 0] > 200


def test_a_changed_picture_makes_the_preview_stale(panel: Panel, files: Path) -> None:
    notice = panel.stage.get_by_text("has changed since")
    assert not notice.is_visible()
    panel.page.locator("#app-picture button[aria-label=Clear]").click()
    panel.picture(files / "mirrored.png")
    notice.wait_for()
    panel.estimate()
    notice.wait_for(state="hidden")


def test_problems_are_sentences(page: Page) -> None:
    panel = Panel(page)
    panel.estimate()
    panel.part("message").get_by_text("There is no picture yet").wait_for()


def test_colour_maps(panel: Panel) -> None:
    panel.stage.get_by_label("Colours").select_option("inferno")
    assert np.ptp(panel.pixels()[128, 128]) > 50


def test_probe_tells_the_value(panel: Panel) -> None:
    panel.flat.hover()
    reading = panel.stage.locator(".depth2img-reading").inner_text()
    assert float(reading.split()[0]) > 0.9


def test_hover_moves_with_the_pointer_and_comes_back(hovering: Panel) -> None:
    middle = hovering.pixels(hovering.hover)
    right = hovering.look(0.95, 0.5)
    left = hovering.look(0.05, 0.5)
    assert np.abs(right - middle).mean() > 2 and np.abs(left - right).mean() > 2
    hovering.page.mouse.move(5, 5)
    hovering.still()
    assert np.array_equal(hovering.pixels(hovering.hover), middle)
    drawn = hovering.draws()
    hovering.page.wait_for_timeout(700)
    assert hovering.draws() == drawn  # no frame while still


def edges(picture: np.ndarray) -> tuple[int, int]:
    """First and last column of the near red square in the middle row."""
    row = picture[picture.shape[0] // 2]
    red = np.flatnonzero((row[:, 0] > 200) & (row[:, 2] < 80))
    return int(red[0]), int(red[-1])


def test_near_covers_far_and_keeps_its_shape(hovering: Panel) -> None:
    """The square moves as a whole over the background, which is neither seen through it nor smeared with red."""
    hovering.flat.evaluate("() => 0")
    still, moved = edges(hovering.pixels(hovering.hover)), None
    hovering.stage.get_by_label("Movement").fill("2")
    seen = hovering.look(0.98, 0.5)
    moved = edges(seen)
    shift = moved[0] - still[0], moved[1] - still[1]
    assert abs(shift[0]) >= 4 and abs(shift[0] - shift[1]) <= 3
    row = seen[seen.shape[0] // 2]
    inside = row[moved[0] + 4 : moved[1] - 4]
    assert (inside[:, 0] > 200).all() and (inside[:, 1] < 60).all()
    outside = np.concatenate([row[: moved[0] - 5], row[moved[1] + 6 :]])
    assert (outside[:, 0] < 90).all()


def test_focus_plane_stays_where_it_is(hovering: Panel) -> None:
    hovering.stage.get_by_label("Movement").fill("2")
    still = edges(hovering.pixels(hovering.hover))
    hovering.hover.click()  # in the middle: on the square
    hovering.wait("(stage) => Number(stage.dataset.focus) > 0.9")
    moved = edges(hovering.look(0.98, 0.5))
    assert abs(moved[0] - still[0]) <= 2 and abs(moved[1] - still[1]) <= 2


def test_keys_and_the_slider_to_depth(hovering: Panel) -> None:
    before = hovering.pixels(hovering.hover)
    hovering.hover.focus()
    for _ in range(4):
        hovering.hover.press("ArrowLeft")
    hovering.still()
    assert np.abs(hovering.pixels(hovering.hover) - before).mean() > 2
    hovering.hover.press("Home")
    hovering.still()
    hovering.stage.get_by_label("Picture to depth").fill("1")
    hovering.still()
    seen = hovering.pixels(hovering.hover)
    assert np.ptp(seen, axis=2).max() <= 1  # grey


def test_lost_context_falls_back_and_comes_back(hovering: Panel) -> None:
    before = hovering.pixels(hovering.hover)
    hovering.hover.evaluate("c => (c.ext = c.depth2imgContext.getExtension('WEBGL_lose_context')).loseContext()")
    hovering.flat.wait_for()  # the flat map stands in
    hovering.hover.evaluate("canvas => canvas.ext.restoreContext()")
    hovering.hover.wait_for()
    hovering.still()
    assert np.array_equal(hovering.pixels(hovering.hover), before)


def test_ten_pictures_use_one_context(hovering: Panel) -> None:
    for _ in range(10):
        hovering.estimate()
        hovering.wait("(stage) => stage.dataset.painted === 'hover'")
    assert hovering.page.evaluate("globalThis.contexts") == 1


def test_a_replaced_node_gets_the_stage_back(hovering: Panel) -> None:
    before = hovering.pixels(hovering.hover)
    hovering.page.evaluate("""() => {
        const old = document.querySelector('.depth2img-stage');
        const copy = old.cloneNode(false);
        old.replaceWith(copy);
    }""")
    hovering.page.locator(".depth2img-stage canvas.depth2img-hover").wait_for()
    hovering.still()
    assert np.array_equal(hovering.pixels(hovering.hover), before)
    assert hovering.page.evaluate("globalThis.contexts") == 1


def test_hidden_draws_nothing(hovering: Panel) -> None:
    hovering.page.evaluate("document.querySelector('.depth2img-panel').style.display = 'none'")
    hovering.page.wait_for_timeout(300)
    drawn = hovering.draws()
    hovering.hover.dispatch_event("pointermove", {"clientX": 10, "clientY": 10})
    hovering.page.wait_for_timeout(300)
    assert hovering.draws() == drawn


def test_it_sways_once_unless_motion_is_unwelcome(browser: Browser, address: str, files: Path) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1300})
    context.add_init_script(COUNT_DRAWS)
    panel = Panel(opened(context.new_page(), address))
    panel.picture(files / "planes.png")
    panel.estimate()
    panel.mode("Hover view")
    panel.page.wait_for_timeout(TURN_AROUND)
    panel.still()
    assert panel.draws() > 10
    context.close()


def test_recorded_loop_is_a_video(hovering: Panel, tmp_path: Path) -> None:
    film = cv2.VideoCapture(str(saved(hovering, "Record loop", tmp_path)))
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1].astype(int))
    assert len(frames) >= 10
    assert max(np.abs(frame - frames[0]).mean() for frame in frames) > 1


def test_after_a_job_its_map_and_a_comparison(panel: Panel) -> None:
    page = panel.page
    page.get_by_text("Frame", exact=True).click()
    page.locator("#app-width input").fill("96")
    page.locator("#app-height input").fill("64")
    page.locator("#app-steps input[type=number]").fill("2")
    page.locator("#app-generate").click()
    page.locator("#app-result img").first.wait_for()
    before = panel.stage.get_attribute("data-shown")
    panel.part("recall").click()
    panel.wait("(stage, before) => stage.dataset.shown !== before", before)
    assert "Of the latest job" in panel.part("message").inner_text()
    panel.mode("Compare")
    panel.stage.get_by_label("Left").select_option("depth")
    panel.stage.get_by_label("Right").select_option("result")
    panel.wait("(stage) => stage.querySelector('.depth2img-right').width === 96")
    panel.stage.get_by_label("Wipe").fill("25")
    panel.wait("(stage) => stage.querySelector('.depth2img-wipe').style.cssText.includes('25%')")


def test_size_hint(panel: Panel) -> None:
    page = panel.page
    page.get_by_text("Frame", exact=True).click()
    page.locator("#app-width input").fill("900")
    page.locator("#app-height input").fill("600")
    panel.stage.get_by_role("button", name="768 x 512").click()
    assert page.locator("#app-width input").input_value() == "768"
    panel.stage.get_by_text("Neither side").wait_for(state="hidden")
