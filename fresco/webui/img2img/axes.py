"""Add axes to X/Y/Z plots: every option of the guidance and of the batches."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import scripts

from fresco.options import Entry
from fresco.webui.img2img.request import list_options

AXES = "fresco_axes"
"""Attribute of a processing object: options that a plot has set on it, by name."""
_PREFIX = "[FRESCO] "
_PLOT_MODULES = ("xyz_grid.py", "scripts.xyz_grid")


def add_axes() -> None:
    """Add the axes that the WebUI's plot does not have yet."""
    plot = next(
        (data.module for data in scripts.scripts_data
         if data.script_class.__module__ in _PLOT_MODULES), None,
    )
    if plot is None:
        return
    known = {option.label for option in plot.axis_options}
    kind = _find_axis_class(plot)
    for entry in list_options():
        label = _PREFIX + entry.name.replace("_", " ")
        if entry.group in ("keyframes", "guidance") and label not in known:
            plot.axis_options.append(_axis(kind, entry, label))


def _find_axis_class(plot: Any) -> Any:
    """Find the class of axes for img2img only; in forge-classic the plot's module lacks it."""
    of_img2img = (type(axis) for axis in plot.axis_options if getattr(axis, "is_img2img", False))
    return next(of_img2img, None) or plot.AxisOptionImg2Img


def _axis(kind: Any, entry: Entry, label: str) -> Any:
    choices = entry.option.choices
    if entry.type is bool:
        choices = ("True", "False")
    values = str if entry.type is bool else entry.type
    further = {"choices": lambda: list(choices)} if choices else {}
    return kind(label, values, _setter(entry), **further)


def _setter(entry: Entry) -> Callable[[Any, Any, Any], None]:
    def set_option(p: Any, value: Any, _values: Any) -> None:
        typed = value == "True" if entry.type is bool else value
        setattr(p, AXES, {**getattr(p, AXES, {}), entry.name: (entry.group, typed)})

    return set_option
