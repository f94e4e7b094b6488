"""The choice of a preset, which sets the switches of guidance, in img2img and the tab."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from fresco.options import entries
from fresco.settings import JOINING_PRESETS, PRESETS
from fresco.webui.widgets.events import keep_unsaved, on

PARTS = tuple(PRESETS["off"])
"""Options of guidance that a preset sets."""


def make_preset_control(label: str, identity: str) -> Any:
    """Make the choice. It shows the latest choice; the switches are what counts.

    Args:
        identity: the control's `elem_id`.
    """
    return keep_unsaved(gr.Radio(
        label=label, choices=list(PRESETS), value="paper", elem_id=identity,
        info="paper: as published; steady: fewest jumps and least flicker, softer; attention: "
             "faster, without optimisation; off: plain img2img.",
    ))


def bind_preset(preset: Any, parts: Mapping[str, Any], join: Any = None) -> None:
    """Let a choice set the switches of guidance.

    Args:
        parts: control of each of `PARTS`, by its name.
        join: the switch that joins keyframes, where there is one.
    """
    usual = {e.name: bool(e.default) for e in entries() if e.group == "guidance"}

    def choose(name: str) -> list[Any]:
        chosen = {**usual, **PRESETS.get(name, {})}
        values = [chosen[part] for part in PARTS]
        if join is not None:
            values.append(name in JOINING_PRESETS)
        return [gr.update(value=value) for value in values]

    switches = [parts[part] for part in PARTS]
    on(preset.input, choose, [preset], switches if join is None else [*switches, join])
