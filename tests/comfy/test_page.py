"""ComfyUI's page in Chromium: a template is opened, run and looked at; a tooltip explains a widget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from depth2img import OPTIONS
from tests.comfy.server import ROOT, Server
from tests.webui_real.page import CHROMIUM, FLAGS, shot

pytestmark = [
    pytest.mark.real_host,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)"),
]

JOB_MS = 300_000


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    # Else the page opens the templates by itself, and a map of the graph over its corner.
    server.post("/settings", **{"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(60_000)
        page.route(lambda address: "127.0.0.1" not in address, lambda route: route.abort())
        page.goto(server.url)
        page.wait_for_function("window.app && window.app.graph && window.app.extensionManager", timeout=120_000)
        page.locator("#graph-canvas").wait_for()
        yield page
        browser.close()


FIT = """() => {
    const canvas = window.app.canvas, nodes = window.app.graph._nodes;
    const left = Math.min(...nodes.map(n => n.pos[0])), top = Math.min(...nodes.map(n => n.pos[1] - 40));
    const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
    const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]));
    const {clientWidth, clientHeight} = canvas.canvas;
    canvas.ds.scale = Math.min((clientWidth - 80) / (right - left), (clientHeight - 90) / (bottom - top));
    canvas.ds.offset[0] = 70 / canvas.ds.scale - left;
    canvas.ds.offset[1] = 60 / canvas.ds.scale - top;
    canvas.draw(true, true);
}"""
"""Shows the whole graph, beside the page's own bars."""


def opened(page: Page, name: str) -> None:
    """Load a template as the page does, and show all of it."""
    flow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate("flow => window.app.loadGraphData(flow)", flow)
    page.wait_for_function("count => window.app.graph._nodes.length === count", arg=len(flow["nodes"]))
    page.evaluate(FIT)


def run(page: Page) -> None:
    """Queue what is on the page, and wait until its pictures are shown in their nodes."""
    page.evaluate("() => window.app.queuePrompt(0)")
    page.wait_for_function(
        "() => window.app.graph._nodes.filter(n => ['SaveImage', 'Depth2ImgPreviewDepth'].includes(n.type))"
        ".every(n => n.imgs?.length && n.imgs.every(i => i.complete && i.naturalWidth))",
        timeout=JOB_MS,
    )


def node(page: Page, kind: str, expression: str) -> Any:
    return page.evaluate(
        f"kind => {{ const n = window.app.graph._nodes.find(n => n.type === kind); {expression} }}", kind
    )


def test_the_templates_are_offered(server: Server) -> None:
    offered = server.get("/workflow_templates")["sd-webui-depth2img"]
    assert sorted(offered) == sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
    flow = server.get("/api/workflow_templates/sd-webui-depth2img/img2img.json")
    assert {one["type"] for one in flow["nodes"]} >= {"Depth2ImgLoadDepthCheckpoint", "Depth2ImgApplyDepth"}


def test_a_template_runs_on_the_page(page: Page) -> None:
    opened(page, "img2img")
    assert node(page, "Depth2ImgApplyDepth", "return n.title") == "Apply depth"
    run(page)
    sizes = node(page, "Depth2ImgPreviewDepth", "return n.imgs.map(i => [i.naturalWidth, i.naturalHeight])")
    assert len(sizes) == 1 and min(sizes[0]) > 100
    assert node(page, "SaveImage", "return n.imgs.map(i => [i.naturalWidth, i.naturalHeight])") == [[128, 128]]
    # The bundled network's fidelity on its own kind of scene; the page shows the text in its node.
    text = node(page, "PreviewAny", "return n.widgets.map(w => w.value).join(' ')")
    assert "Depth fidelity: 0.9" in text
    page.wait_for_timeout(500)  # the canvas draws what has come
    shot(page, "comfyui-img2img")


def test_a_widget_explains_itself(page: Page) -> None:
    opened(page, "img2img")
    page.wait_for_timeout(1000)  # the canvas draws, and knows where its widgets are
    x, y = node(
        page,
        "Depth2ImgApplyDepth",
        "const c = window.app.canvas, r = c.canvas.getBoundingClientRect();"
        "const y = n.widgets.find(w => w.name === 'guidance').y + 10;"
        "return [r.left + (n.pos[0] + n.size[0] / 2 + c.ds.offset[0]) * c.ds.scale,"
        " r.top + (n.pos[1] + y + c.ds.offset[1]) * c.ds.scale]",
    )
    page.mouse.move(x - 30, y)
    page.mouse.move(x, y, steps=6)
    page.get_by_text(OPTIONS["guidance"].help).wait_for()
    shot(page, "comfyui-tooltip")


def test_values_out_of_range_cannot_be_typed(page: Page) -> None:
    opened(page, "img2img")
    limits = node(page, "Depth2ImgApplyDepth", "return n.widgets.map(w => [w.name, w.options.min, w.options.max])")
    for name, low, high in limits:
        if OPTIONS[name].kind == "number":
            assert (low, high) == (OPTIONS[name].minimum, OPTIONS[name].maximum)
