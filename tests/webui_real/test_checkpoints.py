"""The section "Depth checkpoint" on the page of the real WebUI: from a bare file to a picture."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import Host, running
from page import CHROMIUM, DepthPanel, opened
from PIL import Image
from playwright.sync_api import Page

from depth2img.checkpoints import convert

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")

SHOTS = os.environ.get("DEPTH2IMG_SHOTS")


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints: one with its YAML, one bare, one with that of a plain model."""
    folder = tmp_path_factory.mktemp("checkpoints") / "ckpt"
    folder.mkdir()
    source = models / "small-depth.safetensors"
    for name in ("small-depth", "bare", "mixed-up"):
        (folder / f"{name}.safetensors").symlink_to(source)
    shutil.copy(source.with_suffix(".yaml"), folder)
    shutil.copy(models / "small-plain.yaml", folder / "mixed-up.yaml")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    data = tmp_path_factory.mktemp("served") / "data"
    with running(data, checkpoints=folder, checkpoint="small-depth.safetensors", interface=True) as started:
        yield started


class Section:
    """The section in the img2img tab."""

    def __init__(self, page: Page) -> None:
        self.page, self.panel = page, DepthPanel(page, "img2img")
        self.panel.show_tab()
        self.panel.open()
        self.panel.part("checkpoint").locator(".label-wrap").click()

    def look(self, name: str) -> str:
        box = self.panel.part("checkpoint_file").locator("input")
        box.fill(name)
        box.press("Enter")
        self.panel.part("inspect").click()
        report = self.panel.part("report")
        report.locator(".depth2img-note").first.wait_for()
        return report.inner_text()

    @property
    def plan(self) -> str:
        return self.panel.part("plan").inner_text()

    def set_up(self) -> str:
        self.panel.part("setup").click()
        self.panel.part("plan").get_by_text(re.compile("Done|cannot|There is")).wait_for()
        return self.plan


def shot(page: Page, name: str) -> None:
    if SHOTS:
        inside = page.locator("#script_img2img_depth_to_image_checkpoint").first
        inside.scroll_into_view_if_needed()
        inside.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def choose(page: Page, name: str) -> None:
    """Choose from the page's own list of checkpoints, which must have been brought up to date."""
    option = page.locator("#setting_sd_model_checkpoint ul li", has_text=name)
    field = page.locator("#setting_sd_model_checkpoint input").first
    for _ in range(60):  # the host's refresh button, which the section presses, answers in its own time
        field.click()
        page.locator("#setting_sd_model_checkpoint ul").wait_for()
        if option.count():
            break
        field.blur()  # only coming back to the field opens its list again, with the new choices
        page.wait_for_timeout(500)
    option.click(timeout=20_000)


def check_depth(host: Host, picture: Image.Image, name: str) -> None:
    """A job runs on that checkpoint, and on depth."""
    host.run("probe.clear()")
    result = host.img2img(picture)
    shape, values, _ = host.conditionings()[-1]
    assert result.info["sd_model_name"] == name
    assert shape[1] == 1
    assert (min(values), max(values)) == (-1, 1)


def test_a_bare_file_is_set_up_chosen_and_used(served: Host, folder: Path, astronaut: Image.Image) -> None:
    """It came after the start: the host does not know it, and cannot load it without a YAML."""
    new = folder / "new" / "found.safetensors"
    new.parent.mkdir()
    new.symlink_to((folder / "bare.safetensors").resolve())
    with opened(served.url) as page:
        section = Section(page)
        report = section.look("new/found.safetensors")
        assert "needs a YAML of its own" in report and "does not work as it is" in report
        assert "found.yaml will be written" in section.plan
        shot(page, "checkpoint-bare")
        assert "Done: choose found.safetensors" in section.set_up()
        assert "works" in section.panel.part("report").inner_text()
        assert "found" in str(served.get("/sdapi/v1/sd-models"))
        choose(page, "new/found.safetensors")
        page.wait_for_function(
            "async () => (await (await fetch('/sdapi/v1/options')).json()).sd_model_checkpoint.includes('found')"
        )
    check_depth(served, astronaut, "found")
    served.use("small-depth")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_yaml_of_another_model_is_corrected(
    served: Host, folder: Path, models: Path, astronaut: Image.Image, theme: str
) -> None:
    wrong = (models / "small-plain.yaml").read_text()
    (folder / "mixed-up.yaml").write_text(wrong)
    if theme == "light":
        served.use("mixed-up")
        state, sentence = served.run("result = sys.modules['depth2img_webui.page.status'].status()")
        assert state == "failed" and "under 'Depth checkpoint' in the panel" in sentence
    before = {path.name for path in folder.iterdir()}
    with opened(served.url, query=f"?__theme={theme}") as page:
        section = Section(page)
        assert "as v2-inference.yaml does" in section.look("mixed-up.safetensors")
        assert "will be replaced" in section.plan
        assert section.panel.part("setup").inner_text() == "Correct YAML"
        shot(page, f"checkpoint-wrong-{theme}")
        assert "The old YAML is kept" in section.set_up()
        shot(page, f"checkpoint-done-{theme}")
    (kept,) = {path.name for path in folder.iterdir()} - before
    assert kept.startswith("mixed-up.yaml.bak") and (folder / kept).read_text() == wrong
    if theme == "light":
        served.use("mixed-up")
        check_depth(served, astronaut, "mixed-up")
        served.use("small-depth")


def test_nothing_half_written_is_in_the_list(served: Host, folder: Path, models: Path) -> None:
    listed: list[set[str]] = []

    def look(done: int, total: int) -> None:
        if done > total * len(listed) / 4:
            served.post("/sdapi/v1/refresh-checkpoints")
            listed.append({one["filename"] for one in served.get("/sdapi/v1/sd-models")})

    def check(target: Path, new: set[str]) -> None:
        listed.clear()
        served.post("/sdapi/v1/refresh-checkpoints")
        before = {one["filename"] for one in served.get("/sdapi/v1/sd-models")}
        convert(models / "small-depth.safetensors", target, look)
        assert len(listed) >= 4 and all(names == before for names in listed)
        served.post("/sdapi/v1/refresh-checkpoints")
        after = {one["filename"] for one in served.get("/sdapi/v1/sd-models")}
        assert before < after and {Path(name).name for name in after - before} == new

    check(folder / "converted.safetensors", {"converted.safetensors"})
    check(folder / "converted", {"diffusion_pytorch_model.safetensors", "model.safetensors", "ldm_only.safetensors"})


def test_other_files_of_the_machine_cannot_be_named(served: Host, models: Path) -> None:
    with opened(served.url) as page:
        section = Section(page)
        for name in ("/etc/passwd", str(models / "small-depth.safetensors"), "../../secret.ckpt"):
            assert "Only checkpoints in the WebUI's folders" in section.look(name)
