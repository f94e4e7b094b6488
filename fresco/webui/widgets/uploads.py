"""Check files that the page sent to gradio's upload route."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from fresco.errors import SettingsError


def check_sent_files(text: str) -> list[str]:
    """Return the paths of files that the page sent to gradio's upload route.

    Args:
        text: JSON list of the paths that the route answered.

    Raises:
        SettingsError: a path is not that of an uploaded file; a page could name any.
    """
    root = _find_root()
    try:
        paths = [Path(name).resolve() for name in json.loads(text)]
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{text[:80]!r} is not a list of uploaded files.") from error
    for path in paths:
        if not path.is_relative_to(root) or not path.is_file():
            raise SettingsError(f"{path.name} is not an uploaded file; choose it again.")
    if not paths:
        raise SettingsError("No file was uploaded; choose one.")
    return [str(path) for path in paths]


def drop_sent_file(path: Path) -> None:
    """Remove gradio's own copy of an upload that is stored elsewhere."""
    if path.resolve().is_relative_to(_find_root()):
        with contextlib.suppress(OSError):
            path.unlink()


def _find_root() -> Path:
    """Find the folder of gradio's uploads."""
    folder = os.environ.get("GRADIO_TEMP_DIR") or str(Path(tempfile.gettempdir()) / "gradio")
    return Path(folder).resolve()
