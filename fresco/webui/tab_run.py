"""The tab's buttons: from the controls' values to a job, new or continued."""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from fresco.errors import SettingsError
from fresco.video.folder import IMAGE_SUFFIXES
from fresco.webui.job import Goal, JobRequest, JobStatus
from fresco.webui.jobs import UnknownJobError
from fresco.webui.service import Service
from fresco.webui.tab_gradio import file_path, on, unsaved
from fresco.webui.tab_settings import SettingControls, read_values
from fresco.webui.tab_source import Source
from fresco.webui.tab_text import note, sentence

_REACH = {Goal.PREVIEW: 0, Goal.KEYFRAMES: 1, Goal.ALL: 2}
"""How far the goals go that continue one another."""
_BUTTONS = (
    (Goal.PREVIEW, "Preview first keyframe"),
    (Goal.KEYFRAMES, "Run keyframes"),
    (Goal.PROPAGATION, "Run propagation"),
    (Goal.ALL, "Run all"),
)


@dataclass(frozen=True, slots=True)
class RunParts:
    """Components of this step that others need."""

    buttons: dict[Goal, Any]
    """One a goal."""
    chosen: Any
    """Id of the job that the page has selected; the page gives it with every event."""
    own_files: Any
    """Own stylised keyframes."""
    own_path: Any
    """Their folder on the server."""
    message: Any
    """What was decided, or went wrong."""


def run_section() -> RunParts:
    """Buttons, progress and the list of jobs, which the page fills."""
    buttons: dict[Goal, Any] = {}
    with gr.Row(elem_id="fresco_buttons"):
        for goal, label in _BUTTONS:
            buttons[goal] = gr.Button(
                label, variant="primary" if goal is Goal.ALL else "secondary",
                elem_id=f"fresco_run_{goal.value}", min_width=120,
            )
    message = gr.HTML(elem_id="fresco_run_message")
    gr.HTML('<div id="fresco_progress"></div>')
    with gr.Row(elem_id="fresco_job_buttons"):
        for name in ("Cancel", "Resume"):
            button = gr.Button(name, elem_id=f"fresco_{name.lower()}", min_width=100)
            on(button.click, None, script=f"fresco.{name.lower()}")
    return RunParts(buttons, unsaved(gr.Textbox(visible=False)), *_own_keys(), message)


def _own_keys() -> tuple[Any, Any]:
    with gr.Accordion("Own stylised keyframes", open=False, elem_id="fresco_section_own"):
        gr.HTML(
            '<p class="fresco_hint">Pictures whose names hold their frame numbers, such as '
            "000012.png, of any size. Run propagation then carries them to every frame; no model "
            "is used.</p>"
        )
        files = gr.File(
            label="Pictures", file_count="multiple", file_types=["image"], height=110,
            elem_id="fresco_own_files",
        )
        path = unsaved(gr.Textbox(
            label="Or a folder of them on the server", elem_id="fresco_own_path"
        ))
    return files, path


def bind_run(service: Service, parts: RunParts, source: Any, controls: SettingControls) -> None:
    """What the buttons do."""
    submitted = unsaved(gr.Textbox(visible=False, elem_id="fresco_submitted"))
    inputs = [parts.chosen, source, parts.own_files, parts.own_path, *controls.all]
    for goal, button in parts.buttons.items():
        clicked = on(
            button.click, _submitter(service, goal), inputs, [submitted, parts.message],
            script="fresco.with_job",
        )
        on(clicked.then, None, [submitted],
           script="fresco.submitted")


def _submitter(service: Service, goal: Goal) -> Callable[..., tuple[str, str]]:
    def submit(
        job: str, source: Source | None, files: Any, folder: str, *values: Any
    ) -> tuple[str, str]:
        try:
            if goal is Goal.PROPAGATION:
                status, text = _propagate(service, job, source, files, folder, values)
            else:
                status, text = _translate(service, job, goal, _given(source), values)
            return json.dumps({"job": status.id}), note(text)
        except Exception as error:
            return "", note(sentence(error), "bad")

    return submit


def _given(source: Source | None) -> Source:
    if source is None:
        raise SettingsError("There is no video yet; upload one, or load one by its path.")
    return source


def _translate(
    service: Service, job: str, goal: Goal, source: Source, values: Sequence[Any]
) -> tuple[JobStatus, str]:
    settings, host = read_values(values, source.last)
    request = JobRequest(source.path, goal, settings, host, title=source.name)
    if _continues(service, job, request):
        status = service.resume(job, request)
        return status, f"Continues job {status.title}: what is finished is used again."
    return service.submit(request), ""


def _continues(service: Service, job: str, request: JobRequest) -> bool:
    """Whether a request is the selected job gone further, so that its pictures serve again."""
    try:
        before, state = service.engine.request(job), service.engine.status(job).state
    except UnknownJobError:
        return False
    further = _REACH.get(before.goal, 9) <= _REACH[request.goal] or before.goal is Goal.KEYFRAME
    same = dataclasses.replace(
        request, goal=before.goal, host=service.hosting.resolved(request.host),
        frame=before.frame, frame_seed=before.frame_seed,
    )
    return state.ended and further and same == before


def _propagate(
    service: Service, job: str, source: Source | None, files: Any, folder: str,
    values: Sequence[Any],
) -> tuple[JobStatus, str]:
    """Own keyframes where they are given, else those of the selected job."""
    if files or folder.strip():
        there = _given(source)
        settings, _ = read_values(values, there.last)
        own = _own_folder(service, files, folder.strip().strip('"'))
        request = JobRequest(
            there.path, Goal.PROPAGATION, settings, own_keys=own, title=there.name
        )
        return service.submit(request), ""
    try:
        before = service.engine.request(job)
    except UnknownJobError as error:
        raise SettingsError(
            "There are no keyframes to carry: run keyframes first, select a job that has them, or "
            "give own stylised keyframes."
        ) from error
    last = source.last if source and source.path == before.source else 10**9
    now, _ = read_values(values, last)
    # The keyframes stay those of the job: only what comes after them is taken from the tab.
    output = dataclasses.replace(
        now.output, first_frame=before.settings.output.first_frame,
        last_frame=before.settings.output.last_frame,
    )
    settings = dataclasses.replace(
        before.settings, propagation=now.propagation, blend=now.blend, output=output
    )
    goal = before.goal if before.goal is Goal.PROPAGATION else Goal.ALL
    status = service.resume(job, dataclasses.replace(before, goal=goal, settings=settings))
    return status, f"Carries the keyframes of job {status.title} to every frame."


def _own_folder(service: Service, files: Any, folder: str) -> str:
    """Folder of own keyframes: the server's, or a new one with what was uploaded."""
    if not files:
        service.hosting.require_allowed(folder)
        return folder
    place = service.engine.new_folder()
    for file in files if isinstance(files, list) else [files]:
        path = Path(file_path(file))
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise SettingsError(f"{path.name} is no picture; give PNG or JPEG keyframes.")
        shutil.copyfile(path, place / path.name)
    return str(place)
