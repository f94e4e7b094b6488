"""Keep some space of a server's disk free, so that requests cannot fill it."""

from __future__ import annotations

from pathlib import Path

from fresco.errors import FrescoError
from fresco.workspace import find_free

_MEGABYTE = 1_000_000
_GIGABYTE = 1_000_000_000


class NoRoomError(FrescoError):
    """The server accepts nothing more for now: its disk or its queue is full."""


def require_free(folder: Path, kept: int, size: int = 0, *, what: str) -> None:
    """Raise NoRoomError unless a disk has enough space.

    Args:
        kept: megabytes that must stay free.
        size: bytes that will be written.
        what: the beginning of the error's sentence.
    """
    free = find_free(folder)
    if free is None or free - size >= kept * _MEGABYTE:
        return
    need = f" needs about {size / _GIGABYTE:.1f} GB, and" if size >= _GIGABYTE / 10 else \
        " finds no room:"
    raise NoRoomError(
        f"{what}{need} the disk of {folder} has {free / _GIGABYTE:.1f} GB free, of which "
        f"{kept * _MEGABYTE / _GIGABYTE:.1f} GB stay so. Delete jobs and videos that are no longer "
        "needed, or lower that limit in the settings of the server."
    )
