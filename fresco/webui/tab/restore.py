"""Set the tab's controls to the settings in a result."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from fresco.run.embedded import is_held
from fresco.server.restore import restore_settings
from fresco.server.service import Service
from fresco.video.containers import HOLD_SETTINGS
from fresco.webui.tab.settings import SettingControls
from fresco.webui.tab.text import describe_error, render_note, with_labels
from fresco.webui.tab.values import count_controls, list_entries, write_values
from fresco.webui.widgets.events import on
from fresco.webui.widgets.file import make_file_control, use_upload


def make_restore_section(service: Service, controls: SettingControls) -> None:
    """Make a box that takes a result and sets the controls to its settings."""
    with gr.Accordion("Restore from a result", open=False, elem_id="fresco_section_restore"):
        gr.HTML(
            '<p class="fresco_hint">Give a video or PNG image that FRESCO made, or a run file: all '
            "options get the values it was made with. The video in the tab stays.</p>"
        )
        box = make_file_control(
            "fresco_restore", label="Result", file_types=[*HOLD_SETTINGS, ".json"], height=110
        )
        told = gr.HTML(elem_id="fresco_restored")
    for event in (box.taken, box.file.upload):
        done = on(event, _restorer(service), [box.file], [told, box.file, *controls.all])
        on(done.then, None, script="fresco.restored")


def _restorer(service: Service) -> Callable[..., tuple[Any, ...]]:
    def restore(file: Any) -> tuple[Any, ...]:
        """Return a message, an empty box, then the values of the controls."""
        try:
            with use_upload(file) as path:
                found = restore_settings(path, path.name, service.environment.offer())
            values = write_values(found.settings, found.host)
            count = len(list_entries())
            # What changes no image is not in the file, and a host's own option may be none here.
            kept = [not is_held(entry) for entry in list_entries()]
            kept += [value in (None, "") for value in values[count:]]
            updates = [
                gr.update() if keep else gr.update(value=value)
                for value, keep in zip(values, kept, strict=True)
            ]
            lines = [f"Settings of {path.name} are restored.", *map(with_labels, found.notes)]
            return render_note("\n".join(lines), "good"), None, *updates
        except Exception as error:
            told = render_note(describe_error(error), "bad")
            return told, None, *[gr.update()] * count_controls()

    return restore
