"""Write options into infotexts, and read them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fresco import __version__
from fresco.options import Entry, find_preset
from fresco.webui.img2img.request import Request, list_options, name_flat

ENABLED = "FRESCO"
"""Key that says an image was made with FRESCO; its value is the version."""


def name_option(entry: Entry) -> str:
    """Key of an option in infotexts and label of its control, which must not change."""
    return f"FRESCO {name_briefly(entry)}"


def name_briefly(entry: Entry) -> str:
    """The label without `FRESCO`, for messages."""
    return name_flat(entry).replace("_", " ")


def write_infotext(request: Request) -> dict[str, Any]:
    """List what is written into images: options that differ from their defaults."""
    values: dict[str, Any] = {ENABLED: __version__}
    for entry in list_options():
        value = getattr(getattr(request.settings, entry.group), entry.name)
        if value != entry.default:
            values[name_option(entry)] = value
    return values


def read_pasted(entry: Entry, values: Mapping[str, Any]) -> Any:
    """Read an option's value from an infotext; one that is not there has its default."""
    text = values.get(name_option(entry))
    if text is None:
        return entry.default
    if entry.type is bool:
        return str(text) == "True"
    return entry.type(text)


def find_pasted_preset(values: Mapping[str, Any]) -> str | None:
    """Find the preset whose options an infotext has; None if none, or without FRESCO."""
    if ENABLED not in values:
        return None
    guidance = {e.name: read_pasted(e, values) for e in list_options() if e.group == "guidance"}
    return find_preset(guidance)
