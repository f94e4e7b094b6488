"""Make the script's controls from the settings."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion

from fresco.options import PRESET, Entry
from fresco.webui.img2img.infotext import ENABLED, find_pasted_preset, name_option, read_pasted
from fresco.webui.img2img.request import PRESET_PLACE, list_options
from fresco.webui.widgets.events import keep_unsaved
from fresco.webui.widgets.file import make_file_control
from fresco.webui.widgets.preset import PARTS, bind_preset, make_preset_control
from fresco.webui.widgets.setting import make_setting_control

_TITLES = {
    "keyframes": "Keyframes", "flow": "Optical flow", "guidance": "Guidance", "output": "Range",
    "mask": "Mask",
}


def make_switch(identify: Callable[[str], str]) -> Any:
    """Make the accordion of all controls, which switches FRESCO on."""
    return InputAccordion(False, label="FRESCO", elem_id=identify("enabled"))


def make_source_controls(identify: Callable[[str], str]) -> dict[str, Any]:
    """Make the controls that say where the frames come from; by name."""
    gr.HTML(
        '<p class="fresco_hint">Keyframes come out here, one image each, and no video. A button '
        "below the images carries them to all frames in the tab FRESCO.</p>"
    )
    video = make_file_control(
        identify("video"), label="FRESCO video", file_types=["video"]
    ).file
    path = keep_unsaved(gr.Textbox(
        label="FRESCO path", placeholder="or a video or a folder of frames on the server",
        elem_id=identify("path"),
    ))
    return {"video": video, "path": path}


def _make_mask_control(identify: Callable[[str], str]) -> Any:
    """Make the control for masks of the frames."""
    return keep_unsaved(gr.Textbox(
        label="FRESCO masks",
        placeholder="to inpaint: a mask, a video, or a folder of masks for every frame or for some",
        elem_id=identify("masks"),
    ))


def make_option_controls(identify: Callable[[str], str]) -> dict[str, Any]:
    """Make one control for each option, in groups; by group.name, masks included."""
    made: dict[str, Any] = {}
    options = list_options()
    groups = list(dict.fromkeys(entry.group for entry in options))
    for group in groups:
        with gr.Accordion(f"FRESCO: {_TITLES[group]}", open=group == "keyframes"):
            if group == "guidance":
                made[PRESET_PLACE] = make_preset_control("FRESCO preset", identify(PRESET))
            made |= {
                ".".join(e.place): make_setting_control(e, name_option(e), identify(e.name))
                for e in options if e.group == group
            }
            if group == "mask":
                made["masks"] = _make_mask_control(identify)
    bind_preset(made[PRESET_PLACE], {part: made[f"guidance.{part}"] for part in PARTS})
    return made


def make_paste_fields(enabled: Any, controls: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """List what "send to img2img" sets from an image's infotext; defaults are not written there.

    None leaves a control as it is. An update of gradio would be taken for a value by the API of
    hosts with gradio 4, and switch FRESCO on.
    """
    fields: list[tuple[Any, Any]] = [(enabled, lambda values: True if ENABLED in values else None)]
    for entry in list_options():
        fields.append((controls[".".join(entry.place)], _pasted(entry)))
    return [*fields, (controls[PRESET_PLACE], find_pasted_preset)]


def _pasted(entry: Entry) -> Callable[[Mapping[str, Any]], Any]:
    def value(values: Mapping[str, Any]) -> Any:
        return read_pasted(entry, values) if ENABLED in values else None

    return value
