"""The tab's buttons that start jobs, and its external keyframes."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from fresco.server.jobs.engine import NothingToDoError
from fresco.server.jobs.job import Goal
from fresco.server.service import Service
from fresco.webui.tab.jobs import LoadedClip, propagate_job, translate_job
from fresco.webui.tab.settings import SettingControls
from fresco.webui.tab.text import describe_error
from fresco.webui.widgets.events import HIDDEN, get_path, keep_unsaved, on
from fresco.webui.widgets.file import make_file_control

_BUTTONS = (
    (Goal.PREVIEW, "Preview first keyframe"),
    (Goal.KEYFRAMES, "Run keyframes"),
    (Goal.PROPAGATION, "Run propagation"),
    (Goal.ALL, "Run all"),
)


@dataclass(frozen=True, slots=True)
class RunParts:
    """Components of this section that others need."""

    buttons: dict[Goal, Any]
    """One button for each goal."""
    chosen: Any
    """Id of the job that the page has selected; the page gives it with every event."""
    open: Any
    """The button that opens the selected job's video and settings."""
    own_files: Any
    """External keyframes."""
    own_path: Any
    """Their folder on the server."""


def make_run_section() -> RunParts:
    """Make buttons, progress and the list of jobs, which the page fills."""
    buttons: dict[Goal, Any] = {}
    with gr.Row(elem_id="fresco_buttons"):
        for goal, label in _BUTTONS:
            buttons[goal] = gr.Button(
                label, variant="primary" if goal is Goal.ALL else "secondary",
                elem_id=f"fresco_run_{goal.value}", min_width=120,
            )
    gr.HTML('<div id="fresco_run_message"></div>')
    gr.HTML('<div id="fresco_progress"></div>')
    gr.HTML('<div id="fresco_preview"></div>')
    with gr.Row(elem_id="fresco_job_buttons"):
        for name in ("Cancel", "Resume"):
            button = gr.Button(name, elem_id=f"fresco_{name.lower()}", min_width=100)
            on(button.click, None, script=f"fresco.{name.lower()}")
        opener = gr.Button("Open in the tab", elem_id="fresco_open", min_width=120)
    chosen = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_chosen"))
    return RunParts(buttons, chosen, opener, *_own_keys())


def _own_keys() -> tuple[Any, Any]:
    with gr.Accordion("External keyframes", open=False, elem_id="fresco_section_own"):
        gr.HTML(
            '<p class="fresco_hint">Keyframes made elsewhere: images of any size, whose names are '
            "their frame numbers, such as 000012.png. Run propagation makes the video from them; "
            "no model is used.</p>"
        )
        files = make_file_control(
            "fresco_own_files", label="Images", several=True, file_types=["image"], height=110
        ).file
        path = keep_unsaved(gr.Textbox(
            label="Or a folder of them on the server", elem_id="fresco_own_path"
        ))
    return files, path


def bind_run(service: Service, parts: RunParts, source: Any, controls: SettingControls) -> None:
    """Bind the buttons."""
    submitted = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_submitted"))
    inputs = [parts.chosen, source, parts.own_files, parts.own_path, controls.drawings,
              *controls.all]
    for goal, button in parts.buttons.items():
        clicked = on(
            button.click, _submitter(service, goal), inputs, [submitted], script="fresco.with_job",
        )
        on(clicked.then, None, [submitted],
           script="fresco.submitted")


def _submitter(service: Service, goal: Goal) -> Callable[..., str]:
    def submit(
        job: str, source: LoadedClip | None, files: Any, folder: str, drawings: str, *values: Any
    ) -> str:
        """Return the job and a message, which the page shows as long as it is true."""
        try:
            if goal is Goal.PROPAGATION:
                status, text = propagate_job(
                    service, job, source, _paths(files), folder, values, drawings=drawings or ""
                )
            else:
                status, text = translate_job(
                    service, job, goal, source, values, drawings=drawings or ""
                )
            return json.dumps({"job": status.id, "text": text, "kind": "note"})
        except NothingToDoError as error:
            return json.dumps({"job": job, "text": describe_error(error), "kind": "note"})
        except Exception as error:
            return json.dumps({"job": "", "text": describe_error(error), "kind": "bad"})

    return submit


def _paths(files: Any) -> list[Path]:
    """Convert the value of a control of several files to a list."""
    several = files if isinstance(files, list) else [files] if files else []
    return [Path(get_path(file)) for file in several]
