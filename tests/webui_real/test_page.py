"""The page of the real WebUI, as an artist uses it. DEPTH2IMG_SHOTS=folder also writes the screenshots of docs/."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import photograph
from host import Host, Refused, running
from page import CHROMIUM, DepthPanel, opened, shot
from PIL import Image
from playwright.sync_api import Page

from depth2img import DepthMap, conditioning

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("served") / "data"
    with running(folder, checkpoints=models, checkpoint="small-depth.safetensors", interface=True) as started:
        yield started


@pytest.fixture
def page(served: Host) -> Iterator[Page]:
    with opened(served.url) as ready:
        yield ready


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name in ("astronaut", "coffee", "chelsea", "rocket", "coins"):
        photograph(name).save(folder / f"{name}.png")
    ramp = np.repeat(np.linspace(30_000, 30_200, 192).round().astype(np.uint16)[None], 128, axis=0)
    Image.fromarray(ramp).save(folder / "ramp.png")
    return folder


def img2img(page: Page) -> DepthPanel:
    """The img2img tab with small sizes and two steps."""
    panel = DepthPanel(page, "img2img")
    panel.show_tab()
    panel.number("img2img_width", 192)
    panel.number("img2img_height", 128)
    panel.number("img2img_steps", 2)
    return panel


def test_preview_then_generate_in_img2img(page: Page, served: Host, files: Path) -> None:
    panel = img2img(page)
    assert panel.value("enabled")
    assert not panel.part("estimate").is_visible()  # closed at first, though switched on
    panel.upload("img2img_image", files / "astronaut.png")
    panel.open()
    assert panel.value("enabled")
    panel.estimate()
    message = panel.part("message").inner_text()
    assert "MiDaS" in message and "384 x 256" in message
    served.run("probe.clear()")
    panel.generate()
    shot(page, "img2img")
    assert served.conditionings()[0][0] == [2, 1, 16, 24]


def test_each_tab_gives_its_own_picture(page: Page, served: Host, files: Path) -> None:
    panel = img2img(page)
    panel.open()
    seen = []
    places = [
        ("img2img_img2img_tab", "img2img", "img2img_image", "astronaut.png"),
        ("img2img_img2img_sketch_tab", "Sketch", "img2img_sketch", "coffee.png"),
        ("img2img_inpaint_tab", "Inpaint", "img2maskimg", "chelsea.png"),
        ("img2img_inpaint_sketch_tab", "Inpaint sketch", "inpaint_sketch", "rocket.png"),
        ("img2img_inpaint_upload_tab", "Inpaint upload", "img_inpaint_base", "coins.png"),
    ]
    for _, title, element, file in places:
        page.locator("#mode_img2img > .tab-nav button").filter(has_text=re.compile(rf"^\s*{title}\s*$")).click()
        panel.upload(element, files / file)
        panel.estimate()
        seen.append(panel.pixels())
    assert len(set(seen)) == len(places)


def test_dragging_near_and_far_changes_preview_and_job_alike(page: Page, served: Host, files: Path) -> None:
    """The next job is conditioned on the map that the browser shows."""
    panel = img2img(page)
    panel.upload("img2img_image", files / "astronaut.png")
    panel.open()
    panel.estimate()
    before = panel.pixels()
    ground = panel.stage.locator(".depth2img-histogram").bounding_box()
    assert ground is not None
    for name, place in (("far", 0.3), ("near", 0.7)):
        box = panel.stage.locator(f".depth2img-mark-{name}").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(ground["x"] + place * ground["width"], box["y"] + 10, steps=5)
        page.mouse.up()
    far, near = (float(panel.part(name).locator("input[type=number]").input_value()) for name in ("far", "near"))
    assert (far, near) == (pytest.approx(0.3, abs=0.02), pytest.approx(0.7, abs=0.02))
    assert panel.pixels() != before
    shown = Image.open(io.BytesIO(base64.b64decode(panel.pixels().partition(",")[2]))).convert("L")
    served.run("probe.clear()")
    panel.generate()
    got = np.array(served.conditionings()[0][1]).reshape(2, 16, 24)[0]
    wanted = conditioning([DepthMap(np.asarray(shown, np.float32))], height=16, width=24)[0, 0].numpy()
    assert np.abs(got - wanted).max() < 0.03  # 8 bits of the canvas, stretched once more
    assert f"Depth near: {near:g}" in page.locator("#html_info_img2img").first.inner_text()
    panel.part("recall").click()
    panel.part("message").get_by_text("Of the latest job").wait_for()
    panel.mode("Compare")
    panel.stage.get_by_label("Right").select_option("result")
    shot(page, "compare")


def test_a_job_obeys_a_painted_region(page: Page, served: Host, files: Path) -> None:
    """Painted over the upper half: below it the job is told the neutral depth."""
    panel = img2img(page)
    panel.upload("img2img_image", files / "astronaut.png")
    panel.open()
    panel.estimate()
    panel.mode("Region")
    canvas = panel.stage.locator("canvas.depth2img-paint")
    panel.stage.get_by_label("Brush").fill("0.5")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 1, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 0.2 * box["height"], steps=8)
    page.mouse.up()
    panel.part("region").locator("a[href]").first.wait_for(state="attached")
    page.wait_for_timeout(1000)
    served.run("probe.clear()")
    panel.generate()
    got = np.array(served.conditionings()[0][1]).reshape(2, 16, 24)[0]
    assert np.abs(got[9:]).max() == 0 and np.abs(got[:5]).max() > 0.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_looks(served: Host, files: Path, theme: str) -> None:
    """Every state in both themes, wide and narrow; axe finds nothing serious."""
    axe = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
    for width in (1400, 420):
        with opened(served.url, width=width, query=f"?__theme={theme}") as page:
            panel = img2img(page)
            panel.upload("img2img_image", files / "astronaut.png")
            panel.open()
            inside = page.locator(".depth2img-panel:visible")
            shot(page, f"panel-{theme}-{width}-empty", inside)
            panel.estimate()
            for mode in ("Depth", "Hover view", "Compare"):
                panel.mode(mode)
                shot(page, f"panel-{theme}-{width}-{mode.split()[0].lower()}", inside)
            box = inside.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
            if axe.is_file():
                page.add_script_tag(path=str(axe))
                found = page.evaluate("axe.run('#img2img_script_container .depth2img-panel')")["violations"]
                assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]


def test_hover_view(page: Page, files: Path) -> None:
    panel = img2img(page)
    panel.upload("img2img_image", files / "astronaut.png")
    panel.open()
    panel.estimate()
    panel.mode("Hover view")
    canvas = panel.stage.locator("canvas.depth2img-hover")
    looks = "canvas => canvas.toDataURL()"
    still = "canvas => canvas.dataset.still === 'yes'"
    page.wait_for_function(still, arg=canvas.element_handle())
    middle = canvas.evaluate(looks)
    canvas.hover(position={"x": 5, "y": 5})
    page.wait_for_function(still, arg=canvas.element_handle())
    assert canvas.evaluate(looks) != middle
    page.mouse.move(2, 2)
    page.wait_for_function(still, arg=canvas.element_handle())
    assert canvas.evaluate(looks) == middle


def test_empty_tab_says_so(page: Page, served: Host) -> None:
    panel = img2img(page)
    panel.open()
    panel.part("estimate").click()
    panel.part("message").get_by_text("There is no picture in the open tab").wait_for()


def test_inpaint(page: Page, served: Host, files: Path) -> None:
    panel = img2img(page)
    page.locator("#mode_img2img > .tab-nav button", has_text="Inpaint").first.click()
    panel.upload("img2maskimg", files / "astronaut.png")
    canvas = page.locator("#img2maskimg canvas").last
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    panel.open()
    panel.estimate()
    served.run("probe.clear()")
    panel.generate()
    shot(page, "inpaint")
    assert served.conditionings()[0][0] == [2, 1, 16, 24]


def test_toggle_off_is_neutral(page: Page, served: Host, files: Path) -> None:
    panel = img2img(page)
    panel.upload("img2img_image", files / "astronaut.png")
    panel.toggle.click()
    served.run("probe.clear()")
    panel.generate()
    assert set(served.conditionings()[0][1]) == {0.0}


def test_txt2img_says_what_to_do_then_takes_a_map(page: Page, served: Host, files: Path) -> None:
    panel = DepthPanel(page, "txt2img")
    panel.show_tab()
    panel.number("txt2img_width", 192)
    panel.number("txt2img_height", 128)
    panel.number("txt2img_steps", 2)
    page.locator("#txt2img_generate").click()
    page.locator("#html_log_txt2img .error").get_by_text("txt2img has no picture to take it from").wait_for()
    shot(page, "txt2img-sentence")
    panel.open()
    panel.part("source").get_by_text("My own depth map", exact=True).click()
    upload = panel.part("depth_map").locator("input[type=file]")
    upload.wait_for(state="attached")
    upload.set_input_files(str(files / "ramp.png"))
    panel.part("depth_map").get_by_text("ramp.png").wait_for()
    panel.estimate()
    assert "16 bits" in panel.part("message").inner_text()
    served.run("probe.clear()")
    panel.generate()
    shot(page, "txt2img-map")
    row = np.array(served.conditionings()[0][1]).reshape(2, 16, 24)[0, 8]
    assert (np.diff(row) > 0).all()  # 200 of 65,536 levels: no bit was lost on the way


def test_reference_in_txt2img(page: Page, served: Host, files: Path) -> None:
    panel = DepthPanel(page, "txt2img")
    panel.show_tab()
    panel.number("txt2img_width", 192)
    panel.number("txt2img_height", 128)
    panel.number("txt2img_steps", 2)
    panel.open()
    panel.part("source").get_by_text("Another picture", exact=True).click()
    panel.upload("script_txt2img_depth_to_image_reference", files / "coffee.png")
    panel.estimate()
    served.run("probe.clear()")
    panel.generate()
    shot(page, "txt2img-reference")
    assert max(served.conditionings()[0][1]) == 1


def test_paste_restores_and_resets(page: Page, served: Host) -> None:
    panel = img2img(page)
    panel.open()
    text = "a vase\nSteps: 2, Sampler: Euler, CFG scale: 5, Seed: 1, Depth near: 0.8, Depth invert: True"
    for pasted, near, invert in ((text, "0.8", True), (text.partition(", Depth")[0], "1", False)):
        page.locator("#img2img_prompt textarea").fill(pasted)
        page.locator("#img2img_tools #paste").click()
        box = panel.part("near").locator("input[type=number]")
        page.wait_for_function("([box, value]) => box.value === value", arg=[box.element_handle(), near])
        assert panel.part("invert").locator("input").is_checked() == invert


def test_header_names_the_state_of_the_checkpoint(page: Page, served: Host) -> None:
    badge = page.locator("#script_img2img_depth_to_image_enabled .depth2img-badge")
    img2img(page)
    assert not badge.is_visible()
    dropdown = page.locator("#setting_sd_model_checkpoint input").first
    dropdown.click()
    page.locator("#setting_sd_model_checkpoint ul li", has_text="small-plain").click()
    badge.get_by_text("needs a depth checkpoint").wait_for()
    shot(page, "wrong-checkpoint")
    dropdown.click()
    page.locator("#setting_sd_model_checkpoint ul li", has_text="small-depth").click()
    badge.wait_for(state="hidden")


def test_reload_ui_twice(served: Host, files: Path) -> None:
    """One set of callbacks, one script per tab, and it still works."""
    count = (
        "import modules.script_callbacks as c\n"
        "ours = lambda entries: sum('depth2img' in str(entry.callback.__module__) for entry in entries)\n"
        "result = sorted((name, ours(entries)) for name, entries in c.callback_map.items())"
    )
    before = served.run(count)
    assert sum(number for _, number in before) >= 3
    for _ in range(2):
        with opened(served.url) as page:
            page.locator("#tabs > .tab-nav button", has_text="Settings").first.click()
            page.locator("#settings_restart_gradio").click()
            page.wait_for_timeout(2000)
        _answers(served)
        assert served.run(count) == before
    with opened(served.url) as page:
        panel = img2img(page)
        panel.upload("img2img_image", files / "astronaut.png")
        panel.open()
        panel.estimate()
        panel.generate()


def _answers(host: Host) -> None:
    import time

    import requests

    for _ in range(240):
        try:
            host.run("result = 1")
            return
        except (requests.RequestException, Refused):  # the route is missing while the page is rebuilt
            time.sleep(0.5)
    raise AssertionError("the WebUI did not come back")
