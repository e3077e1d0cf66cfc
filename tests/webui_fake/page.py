"""A tab of the host's page with the extension in it, made with the real Gradio."""

from __future__ import annotations

from typing import Any

import gradio as gr

from depth2img import OPTIONS
from tests.webui_fake.standin import Host


def is_click(dependency: dict[str, Any]) -> bool:
    return dependency["trigger"] == "click"


class Page:
    """A tab of the host with the extension in it: its own picture components first, its output panel last."""

    def __init__(self, host: Host, tab: str) -> None:
        self.script = host.ours("script").DepthToImage()
        self.script.is_img2img, self.script.is_txt2img = tab == "img2img", tab == "txt2img"
        self.components: dict[str, Any] = {}
        with gr.Blocks() as self.blocks:
            for elem_id in host.ours("page.wiring").HOST_IDS[tab]:
                self._add(gr.Number(elem_id=elem_id))
            self.controls = self.script.ui(tab == "img2img")
            self.count = len(self.blocks.dependencies)
            self._add(gr.Textbox(elem_id="another"))
            self._add(gr.HTML())
            self._add(gr.Textbox(elem_id=f"generation_info_{tab}"))

    def _add(self, component: Any) -> None:
        self.components[component.elem_id] = component
        self.script.after_component(component)

    @property
    def defaults(self) -> list[Any]:
        return [option.default for option in OPTIONS.values()]

    def event(self, label: str) -> tuple[Any, dict[str, Any]]:
        """Function and description of a button's only event."""
        (button,) = [c for c in self.blocks.blocks.values() if isinstance(c, gr.Button) and c.value == label]
        (index,) = [i for i, d in enumerate(self.blocks.dependencies) if is_click(d) and d["targets"] == [button._id]]
        return self.blocks.fns[index].fn, self.blocks.dependencies[index]

    def press(self, label: str, *values: Any) -> Any:
        function, dependency = self.event(label)
        assert len(values) == len(dependency["inputs"])
        return function(*values)
