"""The settings of a run inside its result, as the comment of the file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import PurePath
from typing import Any

from fresco import __version__
from fresco.settings import FrescoSettings, entries, image_settings

MARK = "fresco_run"
"""Key that tells a run's settings from other JSON; its value is `RUN_FORMAT`."""
RUN_FORMAT = 1
"""Raised when an older program would read settings wrong."""

_BESIDE = frozenset({"compare", "compare_frames", "measures"})
"""Options of what is written beside a result, which is the same without it."""

_MAY_NAME_FILES = frozenset({"lora", "keys"})
"""Options that may name files, besides those that say so."""

_MOST_LETTERS = 1 << 20
"""Of a comment; words for thousands of frames are longer, and stay in the run file alone."""


def describe_settings(settings: FrescoSettings) -> str:
    """The options that change images, as JSON; empty where that would be too long.

    Of files and folders only the names are told: a result is shown to others. Options that change
    nothing in it, such as the number of workers, are left out, so that its bytes stay the same.
    """
    groups = [field.name for field in dataclasses.fields(settings)]
    values = image_settings(settings, *groups)
    for name in _BESIDE:
        del values["output"][name]
    for entry in entries():
        known = values[entry.group]
        if entry.name in known and (entry.option.file or entry.name in _MAY_NAME_FILES):
            known[entry.name] = _hide_folders(known[entry.name])
    text = json.dumps({MARK: RUN_FORMAT, "version": __version__, "settings": values})
    return text if len(text) <= _MOST_LETTERS else ""


def _hide_folders(value: Any) -> Any:
    """The names of files and folders, without where they lie."""
    if isinstance(value, str):
        return PurePath(value.replace("\\", "/")).name
    return [_hide_folders(part) for part in value] if isinstance(value, (list, tuple)) else value
