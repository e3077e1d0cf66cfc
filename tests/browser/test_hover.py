"""The hover view: occlusion, pointer, fingers, keys, tilt, its graphics context, and the recorded loop."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from conftest import opened
from playwright.sync_api import Browser
from stage import TURN_AROUND, Panel
from test_panel import saved


def test_it_moves_with_the_pointer_and_comes_back(hovering: Panel) -> None:
    middle = hovering.pixels(hovering.hover)
    right = hovering.look(0.95, 0.5)
    left = hovering.look(0.05, 0.5)
    assert np.abs(right - middle).mean() > 2 and np.abs(left - right).mean() > 2
    hovering.page.mouse.move(1, 1)
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
    still = edges(hovering.pixels(hovering.hover))
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
    assert float(hovering.stage.get_by_label("Focus plane").input_value()) > 0.9
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


def test_a_finger_looks_around_and_lets_go(hovering: Panel) -> None:
    middle = hovering.pixels(hovering.hover)
    hovering.hover.scroll_into_view_if_needed()
    box = hovering.hover.bounding_box()
    assert box is not None
    devtools = hovering.page.context.new_cdp_session(hovering.page)

    def touch(kind: str, *places: float) -> None:
        points = [{"x": box["x"] + place * box["width"], "y": box["y"] + box["height"] / 2} for place in places]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.5)
    for place in (0.6, 0.8, 0.95):
        touch("touchMove", place)
    hovering.still()
    finger = hovering.pixels(hovering.hover)
    touch("touchEnd")
    hovering.still()
    assert np.array_equal(hovering.pixels(hovering.hover), middle)
    assert np.array_equal(hovering.look(0.95, 0.5), finger)  # as the pointer does there


TILT = "tilt => window.dispatchEvent(new DeviceOrientationEvent('deviceorientation', { alpha: 0, ...tilt }))"


def test_tilting_the_device_looks_around(hovering: Panel) -> None:
    page = hovering.page
    middle = hovering.pixels(hovering.hover)
    page.evaluate(TILT, {"beta": 40, "gamma": -3})
    page.evaluate(TILT, {"beta": 40, "gamma": 17})
    page.wait_for_timeout(300)
    assert np.array_equal(hovering.pixels(hovering.hover), middle)  # motion is unwelcome
    page.emulate_media(reduced_motion="no-preference")
    try:
        page.evaluate(TILT, {"beta": 40, "gamma": -3})  # as it is held at first: straight ahead
        page.wait_for_timeout(200)
        assert np.array_equal(hovering.pixels(hovering.hover), middle)
        page.evaluate(TILT, {"beta": 40, "gamma": 17})
        hovering.still()
        tilted = hovering.pixels(hovering.hover)
        drawn = hovering.draws()
        page.evaluate(TILT, {"beta": 40.05, "gamma": 17.05})  # a hand is never quite still
        page.wait_for_timeout(300)
        assert hovering.draws() == drawn
    finally:
        page.emulate_media(reduced_motion="reduce")
    assert np.array_equal(hovering.look(0.95, 0.5), tilted)


def test_ios_is_asked_for_tilt_by_a_tap(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.add_init_script("""
        globalThis.answers = ['denied', 'granted'];
        DeviceOrientationEvent.requestPermission = async () => answers.shift();
    """)
    panel = Panel(opened(context.new_page(), address))
    panel.mode("Hover view")
    button = panel.stage.get_by_role("button", name="Tilt")
    button.tap()
    panel.page.wait_for_function("answers.length === 1")
    assert button.is_visible()  # refused: it can be asked again
    button.tap()
    button.wait_for(state="hidden")
    context.close()


def test_it_sways_once_unless_motion_is_unwelcome(hovering: Panel) -> None:
    page = hovering.page
    hovering.mode("Depth")
    drawn = hovering.draws()
    hovering.mode("Hover view")
    page.wait_for_timeout(500)
    assert hovering.draws() <= drawn + 2
    hovering.mode("Depth")
    page.emulate_media(reduced_motion="no-preference")
    try:
        hovering.mode("Hover view")
        page.wait_for_timeout(TURN_AROUND)
        hovering.still()
    finally:
        page.emulate_media(reduced_motion="reduce")
    assert hovering.draws() > drawn + 10


def test_lost_context_falls_back_and_comes_back(hovering: Panel) -> None:
    before = hovering.pixels(hovering.hover)
    hovering.hover.evaluate("c => (c.ext = c.depth2imgContext.getExtension('WEBGL_lose_context')).loseContext()")
    hovering.flat.wait_for()  # the flat map stands in
    hovering.stage.get_by_text("no WebGL at the moment").wait_for()
    hovering.hover.evaluate("canvas => canvas.ext.restoreContext()")
    hovering.hover.wait_for()
    hovering.still()
    assert np.array_equal(hovering.pixels(hovering.hover), before)
    hovering.stage.get_by_text("no WebGL at the moment").wait_for(state="hidden")


def test_ten_pictures_use_one_context(hovering: Panel, files: Path) -> None:
    for number in range(10):
        hovering.picture(files / ("scene.png" if number % 2 else "planes.png"))
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
    show = "display => { document.querySelector('.depth2img-panel').style.display = display; }"
    hovering.page.evaluate(show, "none")
    hovering.page.wait_for_timeout(300)
    drawn = hovering.draws()
    hovering.hover.dispatch_event("pointermove", {"clientX": 10, "clientY": 10})
    hovering.page.wait_for_timeout(300)
    assert hovering.draws() == drawn
    hovering.page.evaluate(show, "")
    hovering.hover.scroll_into_view_if_needed()
    hovering.hover.dispatch_event("pointerleave")
    hovering.still()


def test_recorded_loop_is_a_video(hovering: Panel, tmp_path: Path) -> None:
    film = cv2.VideoCapture(str(saved(hovering, "Record loop", tmp_path)))
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1].astype(int))
    assert len(frames) >= 10
    assert max(np.abs(frame - frames[0]).mean() for frame in frames) > 1
