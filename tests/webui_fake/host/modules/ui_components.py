"""The host's own components."""

import gradio as gr


class InputAccordion(gr.Checkbox):
    def __init__(self, value, **kwargs):
        elem_id = kwargs.pop("elem_id")
        super().__init__(value, elem_id=f"{elem_id}-checkbox", visible=False, **kwargs)
        self.accordion = gr.Accordion(elem_id=elem_id, open=value, **kwargs)

    def __enter__(self):
        self.accordion.__enter__()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.accordion.__exit__(exc_type, exc_val, exc_tb)

    def get_block_name(self):
        return "checkbox"
