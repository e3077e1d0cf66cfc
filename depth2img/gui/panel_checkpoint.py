"""The panel's section "Depth checkpoint": inspect an installed file and set it up; independent of the WebUI."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import gradio as gr

from .panel import note

if TYPE_CHECKING:
    from ..checkpoints import Report, SetupPlan
    from .panel_fetch import Fetching

HELP: Final = "Choose one from the WebUI's list, or enter a path inside its model folders."

ACTIONS: Final = {"write": "Write YAML", "replace": "Correct YAML", "keep": "Set up"}
"""Action on the YAML -> title of the button that performs it, if the checkpoint itself stays where it is."""


@dataclasses.dataclass(frozen=True)
class Section:
    """The components of the section.

    Attributes:
        chosen: the checkpoint: one of a list, or a path.
        inspect: the button "Inspect".
        setup: the button that carries out the shown plan; hidden while there is nothing to do.
        report: HTML: the report on the checkpoint, or what is wrong.
        plan: HTML: the steps of setting it up, or the outcome.
        planned: state: the sentences of the shown plan; nothing else is carried out.
        fetching: the part that downloads a published checkpoint.
        estimators: the part that downloads a published depth estimator.
    """

    chosen: Any
    inspect: Any
    setup: Any
    report: Any
    plan: Any
    planned: Any
    fetching: Fetching
    estimators: Fetching

    @property
    def parts(self) -> tuple[Any, ...]:
        """All components; none of them is an option."""
        return self.chosen, self.inspect, self.setup, self.planned, *self.fetching.parts, *self.estimators.parts


def build(
    elem_id: Callable[[str], str],
    choices: Sequence[str],
    fetching: Callable[[], Fetching],
    estimators: Callable[[], Fetching],
) -> Section:
    """Make the section inside the current Gradio context.

    Args:
        elem_id: short name -> element id, unique on the page.
        choices: names of the installed checkpoints.
        fetching: makes the part that downloads one.
        estimators: makes the part that downloads a depth estimator.
    """
    with gr.Accordion("Depth checkpoint", open=False, elem_id=elem_id("checkpoint")):
        with gr.Row(elem_classes=["depth2img-row", "depth2img-checkpoint"]):
            chosen = gr.Dropdown(
                list(choices),
                value=None,
                label="Checkpoint file",
                info=HELP,
                allow_custom_value=True,
                elem_id=elem_id("checkpoint_file"),
                scale=1,
            )
            inspect = gr.Button("Inspect", size="sm", scale=0, min_width=100, elem_id=elem_id("inspect"))
        report = gr.HTML("", elem_id=elem_id("report"), elem_classes=["depth2img-report"])
        plan = gr.HTML("", elem_id=elem_id("plan"), elem_classes=["depth2img-report"])
        setup = gr.Button("Set up", size="sm", visible=False, variant="primary", elem_id=elem_id("setup"))
        planned = gr.State("")
        getting, further = fetching(), estimators()
    return Section(chosen, inspect, setup, report, plan, planned, getting, further)


def report_html(report: Report) -> str:
    """Render a report as a table, with its faults below."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th><td>{html.escape(value)}</td></tr>'
        for label, value in report.rows()
    )
    faults = "".join(
        note(f"{'Fault' if fault.serious else 'Note'}: {fault.what} {fault.fix}", "bad" if fault.serious else "info")
        for fault in report.faults
    )
    verdict = note(report.verdict, "good" if report.usable else "bad")
    return f'{verdict}<table class="depth2img-table">{rows}</table>{faults}'


def plan_html(plan: SetupPlan) -> str:
    """Render the steps of setting up."""
    if plan.done:
        return note("It is set up; nothing needs to be done.", "good")
    steps = "".join(f"<li>{html.escape(line)}</li>" for line in plan.lines())
    return f'{note("Setting it up will do this:")}<ul class="depth2img-steps">{steps}</ul>'


def button(plan: SetupPlan | None) -> Any:
    """Return the button's update for a plan: hidden if there is nothing to do."""
    if plan is None or plan.done:
        return gr.update(visible=False)
    return gr.update(visible=True, value=ACTIONS[plan.yaml] if plan.way == "stays" else "Set up")
