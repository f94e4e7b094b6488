"""Make temporary folders in the system's folder for them.

A process that is killed leaves its folder there. So the process that uses a folder holds a lock on
it, and the next one that makes a folder removes those without a lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fresco.errors import WorkspaceError
from fresco.workspace import Workspace

_PREFIX = "fresco-"
_SPACE = "files"
_YOUNG = 10.0
"""Seconds within which the process that makes a folder may not have locked it yet."""


@contextlib.contextmanager
def open_temporary_folder() -> Iterator[Path]:
    """Make an empty folder, which exists within the context.

    If this process is killed, the next call removes it.
    """
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        space = Path(name) / _SPACE
        with Workspace(Path(name)):
            space.mkdir()
            try:
                yield space
            finally:
                shutil.rmtree(space, ignore_errors=True)


def _remove_left() -> None:
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            if _is_left(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_left(path: Path) -> bool:
    """Whether a folder is one of ours that no process uses."""
    try:
        state = path.lstat()
        if path.is_symlink() or not path.is_dir() or time.time() - state.st_mtime < _YOUNG:
            return False
        if hasattr(os, "getuid") and state.st_uid != os.getuid():
            return False
        names = {each.name for each in path.iterdir()}
        if not names <= {Workspace.LOCK, _SPACE}:
            return False
        if Workspace.LOCK in names:
            with Workspace(path):
                pass
    except (OSError, WorkspaceError):
        return False
    return True
