"""An upload box for a second video, which holds the masks."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from fresco.server.service import Service
from fresco.webui.tab.settings import SettingControls
from fresco.webui.tab.text import describe_error, render_note
from fresco.webui.widgets.events import on
from fresco.webui.widgets.file import make_file_control, use_upload


def make_mask_file(service: Service, controls: SettingControls) -> None:
    """Make the box; the uploaded video becomes the file of masks."""
    box = make_file_control(
        "fresco_mask_file", label="Video of masks", file_types=["video"], height=90
    )
    told = gr.HTML(elem_id="fresco_mask_told")
    changed = [told, box.file, *controls.named(("mask", "source"), ("mask", "path"))]
    for event in (box.taken, box.file.upload):
        on(event, _taker(service), [box.file], changed)


def _taker(service: Service) -> Callable[..., tuple[Any, ...]]:
    def take(file: Any) -> tuple[Any, ...]:
        """Return a message, an empty box, and source and path of the mask."""
        try:
            with use_upload(file) as path, path.open("rb") as data:
                video = service.videos.add(data, path.name)
            note = f"{video.name} holds the masks: {video.info.frames} frames."
            return render_note(note, "good"), None, gr.update(value="files"), gr.update(
                value=video.id)
        except Exception as error:
            return render_note(describe_error(error), "bad"), None, gr.update(), gr.update()

    return take
