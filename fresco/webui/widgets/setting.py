"""Make one control from one option, for img2img and the tab."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import gradio as gr

from fresco.options import Entry

_FEWEST_STEPS = 50
"""Smallest number of steps of a slider of fractions."""
_STEPS = (100.0, 50.0, 10.0, 5.0, 1.0, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001)
_WIDEST = 20_000
"""Span of a slider that can still be aimed; above it a number is typed."""


def make_setting_control(entry: Entry, label: str, identity: str, **further: Any) -> Any:
    """Make the control that fits an option's type and range, with its help and default.

    Args:
        label: shown, and the key of users' own defaults: keep it stable.
        identity: the control's `elem_id`.
        further: keywords for the control, such as `lines` of a text.
    """
    option = entry.option
    common: dict[str, Any] = {
        "label": label, "value": entry.default, "elem_id": identity,
        "info": option.help, **further,
    }
    if entry.type is bool:
        return gr.Checkbox(**common, elem_classes=["fresco_box"])
    if option.choices:
        return gr.Dropdown(**common, choices=list(option.choices))
    whole = entry.type is int
    if entry.type not in (int, float):
        return gr.Textbox(**{**common, "value": _text(common["value"])})
    if option.low is None or option.high is None or option.high - option.low > _WIDEST:
        return gr.Number(**common, precision=0 if whole else None)
    step = 1 if whole else find_step(entry)
    return gr.Slider(**common, minimum=option.low, maximum=option.high, step=step)


def find_step(entry: Entry) -> float:
    """Find the largest round step from the lowest value that meets the default."""
    low, high = float(entry.option.low or 0), float(entry.option.high or 1)
    distance = float(str(entry.default)) - low
    for step in _STEPS:
        parts = distance / step
        if step <= (high - low) / _FEWEST_STEPS and abs(parts - round(parts)) < 1e-6:
            return step
    return (high - low) / _FEWEST_STEPS


def _text(value: Any) -> str:
    """Write a list or mapping as by hand; their default is empty."""
    return value if isinstance(value, str) else ""
