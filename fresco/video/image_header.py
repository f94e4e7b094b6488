"""Read from the header of an image file how many images it contains."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from fresco.errors import VideoError

_REDUCED, _MASK = 1, 4
"""Bits of a TIFF page that is a small version of another, or its mask."""

_SUBFILE_TYPE = 254


def count_images(path: Path) -> int:
    """Count the images that an image file contains, by its header; 1 for other files."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
            if start.startswith(b"\x89PNG\r\n\x1a\n"):
                return _count_png(file)
            if start[:4] == b"RIFF" and start[8:] == b"WEBP":
                return _count_webp(file)
            if start[:4] in (b"II*\0", b"MM\0*"):
                return len(list_tiff_pages(file))
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except struct.error:  # cut off; the decoder says so
        return 1
    return 1


def _count_png(file: IO[bytes]) -> int:
    file.seek(8)
    while True:
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"acTL":
            return max(1, struct.unpack(">I", file.read(4))[0])
        if kind in (b"IDAT", b"IEND"):
            return 1
        file.seek(size + 4, 1)


def _count_webp(file: IO[bytes]) -> int:
    file.seek(12)
    count = 0
    while len(header := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", header)
        count += kind == b"ANMF"
        file.seek(size + size % 2, 1)
    return max(1, count)


def list_tiff_pages(file: IO[bytes]) -> list[int]:
    """List the numbers of the pages that are images of their own."""
    file.seek(0)
    order = "<" if file.read(4)[:2] == b"II" else ">"
    pages: list[int] = []
    place, seen = struct.unpack(f"{order}I", file.read(4))[0], set[int]()
    while place and place not in seen:
        seen.add(place)
        file.seek(place)
        kind = 0
        for _ in range(struct.unpack(f"{order}H", file.read(2))[0]):
            tag, _, _, value = struct.unpack(f"{order}HHI4s", file.read(12))
            if tag == _SUBFILE_TYPE:
                kind = struct.unpack(f"{order}I", value)[0]
        if not kind & (_REDUCED | _MASK):
            pages.append(len(seen) - 1)
        place = struct.unpack(f"{order}I", file.read(4))[0]
    return pages or [0]
