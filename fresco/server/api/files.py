"""Files of the API: read base64, check images, send files, also in ranges."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.datastructures import Headers

from fresco.errors import SettingsError
from fresco.server.api.models import ExternalKeyframes
from fresco.server.encoded import EncodedFile, decode_base64
from fresco.server.images import IMAGE_FORMATS, decode_sent_image, read_image_header
from fresco.server.videos import Readable, TooLargeError
from fresco.video.folder import FRAMES_MARK, find_images
from fresco.writing import write_bytes

_BLOCK = 1 << 18
_MEGABYTE = 1_000_000
_ROOM = 300
"""Largest number of bytes before base64, such as a prefix."""
_MOST_PIXELS = 1 << 31
"""Largest number of pixels of all external keyframes in a request: a thousand in full HD, which are
decoded within a quarter of a minute."""
_RANGE = re.compile(r"\s*bytes\s*=\s*(?:(\d{1,18})\s*)?-\s*(?:(\d{1,18})\s*)?", re.ASCII)


def open_file(name: str, sent: str | EncodedFile, most_megabytes: int) -> Readable:
    """Open the bytes of base64, with or without a prefix such as `data:video/mp4;base64,`.

    Args:
        name: name of the field or file, for error messages.
        most_megabytes: largest size of the bytes.
    """
    if len(sent) * 3 // 4 > most_megabytes * _MEGABYTE + _ROOM:
        raise TooLargeError(
            f"{name} is larger than {most_megabytes} MB; upload it by POST /fresco/videos, or "
            "send less."
        )
    if isinstance(sent, EncodedFile):
        return sent.open(name)
    data = decode_base64(name, sent, "encode the file's bytes.")
    if not data:
        raise SettingsError(f"{name} is empty; send a file's bytes in base64.")
    return io.BytesIO(data)


def read_whole(file: Readable) -> bytes:
    """Read all bytes of a file."""
    parts: list[bytes] = []
    while block := file.read():
        parts.append(block)
    return b"".join(parts)


def store_images(
    keys: ExternalKeyframes, folder: Path, most_megabytes: int, what: str = "keyframes"
) -> None:
    """Write images into a folder, named by frame number.

    All headers are checked before the first image is decoded, and each image is decoded before it
    is written.

    Args:
        what: name of their field, for error messages.
    """
    left, pixels = most_megabytes * _MEGABYTE, _MOST_PIXELS
    for number, sent in keys.images.items():
        name = f"{what}.{number}"
        data = read_whole(open_file(name, sent, most_megabytes))
        _, width, height = read_image_header(name, data)
        left, pixels = left - len(data), pixels - width * height
        if left < 0:
            raise TooLargeError(
                f"{what} are larger than {most_megabytes} MB together; send JPEGs, or fewer."
            )
        if pixels < 0:
            raise TooLargeError(
                f"{what} hold more than {_MOST_PIXELS} pixels together; send fewer, or scale "
                "them down."
            )
    for number, sent in keys.images.items():
        name = f"{what}.{number}"
        data = read_whole(open_file(name, sent, most_megabytes))
        kind, _, _ = read_image_header(name, data)
        decode_sent_image(name, data)
        write_bytes(folder / f"{number:06d}{IMAGE_FORMATS[kind]}", data)
    # Their names count frames from 0.
    write_bytes(folder / FRAMES_MARK, b"")


def encode_image(path: Path) -> str:
    """Encode an image file as plain base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def answer_file(path: Path, headers: Headers, media: str, name: str) -> Response:
    """Send a file, or the part of it that the request's headers ask for.

    Args:
        headers: headers of the request.
        name: name that a browser offers for saving the file.
    """
    file = path.open("rb")
    try:
        state = path.stat()
        size = file.seek(0, io.SEEK_END)
        tag = f'"{state.st_mtime_ns:x}-{size:x}"'
        wanted = headers.get("range", "")
        if headers.get("if-range", tag) != tag:
            wanted = ""
        part = _parse_range(wanted, size)
    except BaseException:
        file.close()
        raise
    common = {
        "Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": "no-cache",
        "Content-Disposition": f"inline; filename*=utf-8''{quote(name)}",
        # Named, so that no middleware compresses it: a range is one of these bytes.
        "Content-Encoding": "identity", "X-Content-Type-Options": "nosniff",
    }
    first, last = part or (0, size - 1)
    if part and first > last:
        file.close()
        return Response(status_code=416, headers={**common, "Content-Range": f"bytes */{size}"})
    common["Content-Length"] = str(last - first + 1)
    if part:
        common["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(
        _read_blocks(file, first, last), 206 if part else 200, common, media,
        # Also where the client went away before the first block.
        background=BackgroundTask(file.close),
    )


def answer_folder(folder: Path, name: str) -> Response:
    """Send the images of a folder as a ZIP file, which is made while it is sent.

    Args:
        name: name that a browser offers for saving it, without ending.
    """
    return StreamingResponse(
        _zip_images(folder, name), 200, {
            "Cache-Control": "no-cache", "Content-Encoding": "identity",
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}.zip",
            "X-Content-Type-Options": "nosniff",
        }, "application/zip",
    )


class _Outlet(io.RawIOBase):
    """Receives what a ZIP file writes, and passes it on."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        """Always true; `ZipFile` asks for it."""
        return True

    def write(self, data: Any) -> int:
        """Receive bytes."""
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """Return the bytes received since the last call."""
        data, self._held = bytes(self._held), bytearray()
        return data


def _zip_images(folder: Path, name: str) -> Iterator[bytes]:
    outlet = _Outlet()
    # PNG is packed already; a writer that cannot seek needs no second pass.
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as packed:
        for path in find_images(folder)[0]:
            packed.write(path, f"{name}/{path.name}")
            yield outlet.take()
    yield outlet.take()


def _parse_range(wanted: str, size: int) -> tuple[int, int] | None:
    """Find the first and last byte of a range; the first is above the last in a shorter file.

    None for anything but a single range of bytes, which the standard says to ignore.
    """
    match = _RANGE.fullmatch(wanted)
    if match is None or not any(match.groups()):
        return None
    start, end = match.groups()
    if not start:
        return max(0, size - int(end)), size - 1
    if end and int(end) < int(start):
        return None
    return int(start), min(int(end) if end else size - 1, size - 1)


def _read_blocks(file: BinaryIO, first: int, last: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        left = last - first + 1
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
