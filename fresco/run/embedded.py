"""Write the settings of a run into the comment of its result, and read them again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fresco import __version__
from fresco.control import hide_folders
from fresco.errors import SettingsError
from fresco.options import Entry, entries, from_dict, image_settings
from fresco.planning.parsing import check_key_prompts, read_json_text
from fresco.settings import FrescoSettings

MARK = "fresco_run"
"""Key that tells a run's settings from other JSON; its value is `RUN_FORMAT`."""
RUN_FORMAT = 1
"""Increased when an older version of the program would misread the settings."""

_BESIDE = frozenset({"compare", "compare_frames", "measures"})
"""Options of files written beside a result; they do not change the result."""

_WHERE_CHOSEN = frozenset({"background", "name"})
"""Options of the output that change no image of the run."""

_MAY_NAME_FILES = frozenset({"lora", "keys"})
"""Options that may name files, in addition to those declared as paths."""

_MOST_BYTES = 1 << 24
"""Largest size of a run file in bytes."""

_NOT_OURS = (
    "has no settings of FRESCO inside; give a result of this program, a run file, or a YAML or "
    "JSON file."
)

_MOST_LETTERS = 1 << 20
"""Largest length of a comment. Prompts for thousands of frames are longer; they are only in the run
file."""


def is_held(entry: Entry) -> bool:
    """Whether a result holds the value of an option."""
    if entry.group == "output":
        return entry.name in _WHERE_CHOSEN or (entry.option.images and entry.name not in _BESIDE)
    return entry.option.images


def describe_settings(settings: FrescoSettings, host: Mapping[str, Any] | None = None) -> str:
    """Describe the options that change images as JSON; empty if that would be too long.

    Of files and folders only the names are written, because a result is shown to others. Options
    that do not change the result, such as the number of workers, are left out, so that its bytes
    stay the same.

    Args:
        host: further options of the host's model and sampling, for JSON.
    """
    groups = [field.name for field in dataclasses.fields(settings)]
    values = image_settings(settings, *groups)
    for name in _BESIDE:
        del values["output"][name]
    for entry in entries():
        chosen = getattr(getattr(settings, entry.group), entry.name)
        if entry.group == "output" and entry.name in _WHERE_CHOSEN and chosen != entry.default:
            values["output"][entry.name] = chosen
        known = values[entry.group]
        if entry.name in known and (entry.option.file or entry.name in _MAY_NAME_FILES):
            value = known[entry.name]
            units = entry.name == "control_units"
            known[entry.name] = list(map(hide_folders, value)) if units else _hide_folders(value)
    known = {"host": dict(host)} if host else {}
    text = json.dumps({MARK: RUN_FORMAT, "version": __version__, "settings": values, **known})
    return text if len(text) <= _MOST_LETTERS else ""


def _hide_folders(value: Any) -> Any:
    """Shorten paths to the names of their files and folders."""
    if isinstance(value, str):
        return PurePath(value.replace("\\", "/")).name
    return [_hide_folders(part) for part in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, slots=True)
class ResultSettings:
    """The settings of a run, read from its result."""

    settings: FrescoSettings
    """All options."""
    host: Mapping[str, Any]
    """Further options of the host's model and sampling; empty if the file does not have them."""


def read_result(path: Path, name: str) -> ResultSettings:
    """Read the settings from a result of this program: a video, a PNG image, or a run file.

    Args:
        path: the file; its content decides of what kind it is, not its name.
        name: name of the file for error messages.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1)
            data = start + file.read(_MOST_BYTES) if start == b"{" else b""
    except OSError as error:
        raise SettingsError(f"{name} cannot be read ({error.strerror}).") from error
    if data:
        values = read_json_text(data.decode("utf-8", "replace"), name)
    else:
        values = read_embedded(path, name)
    if not isinstance(values, dict) or values.get(MARK) != RUN_FORMAT:
        raise SettingsError(f"{name} {_NOT_OURS}")
    host = values.get("host")
    settings = check_nested(values.get("settings", {}), Path(name))
    return ResultSettings(settings, host if isinstance(host, dict) else {})


def read_embedded(path: Path, name: str = "") -> dict[str, Any]:
    """Read the settings from a video or image; SettingsError if it has none.

    Args:
        name: name of the file for error messages; empty: its path.
    """
    from fresco.video.codecs import read_comment  # importing the video packages takes time

    if not path.is_file():
        raise SettingsError(f"{path} does not exist; give a YAML or JSON file, or a result.")
    text, name = read_comment(path), name or str(path)
    values = read_json_text(text, f"The comment of {name}") if text.startswith("{") else None
    if not isinstance(values, dict) or MARK not in values:
        raise SettingsError(f"{name} {_NOT_OURS}")
    return values


def check_nested(nested: Any, path: Path) -> FrescoSettings:
    """Make settings from the groups of options in a file, and check them."""
    if not isinstance(nested, dict):
        raise SettingsError(f"settings is {nested!r} in {path}; give groups of options.")
    try:
        settings = from_dict(nested)
        words = check_key_prompts(settings.sampling.key_prompts, "sampling.key_prompts")
        sampling = dataclasses.replace(settings.sampling, key_prompts=words)
        return dataclasses.replace(settings, sampling=sampling)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
