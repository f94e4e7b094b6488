"""Files of the API: base64 in, images checked, files out with ranges."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import cv2
import numpy as np
from fastapi import Response
from fastapi.responses import StreamingResponse
from PIL import Image
from starlette.background import BackgroundTask
from starlette.datastructures import Headers

from fresco.errors import SettingsError
from fresco.server.api.models import ExternalKeyframes
from fresco.server.encoded import decode_base64, strip_prefix
from fresco.server.videos import MOST_PIXELS, TooLargeError
from fresco.video.folder import FRAMES_MARK
from fresco.workspace import write_bytes

IMAGE_FORMATS = {"PNG": ".png", "JPEG": ".jpg"}
"""Formats of external keyframes and their endings."""
_BLOCK = 1 << 18
_MEGABYTE = 1_000_000
_RANGE = re.compile(r"\s*bytes\s*=\s*(?:(\d{1,18})\s*)?-\s*(?:(\d{1,18})\s*)?", re.ASCII)


def decode_file(name: str, text: str, most_megabytes: int) -> bytes:
    """Bytes of base64, with or without `data:video/mp4;base64,` before it.

    Args:
        name: what the client calls it, for errors.
        most_megabytes: of the bytes.
    """
    text = strip_prefix(text)
    if len(text) * 3 // 4 > most_megabytes * _MEGABYTE:
        raise TooLargeError(
            f"{name} is larger than {most_megabytes} MB; upload it by POST /fresco/videos, or "
            "send less."
        )
    data = decode_base64(name, text, "encode the file's bytes.")
    if not data:
        raise SettingsError(f"{name} is empty; send a file's bytes in base64.")
    return data


def check_images(keys: ExternalKeyframes, most_megabytes: int) -> dict[str, bytes]:
    """File name -> bytes of external keyframes, after each was decoded."""
    files: dict[str, bytes] = {}
    left = most_megabytes * _MEGABYTE
    for number, text in keys.images.items():
        data = decode_file(f"keyframes.{number}", text, most_megabytes)
        left -= len(data)
        if left < 0:
            raise TooLargeError(
                f"keyframes are larger than {most_megabytes} MB together; send JPEGs, or fewer."
            )
        files[f"{number:06d}{_find_suffix(f'keyframes.{number}', data)}"] = data
    return files


def _find_suffix(name: str, data: bytes) -> str:
    """The ending for an image, after it was decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(IMAGE_FORMATS)) as image:
            kind, (width, height) = image.format or "", image.size
    except Exception as error:  # Pillow raises of every kind on broken headers
        raise SettingsError(f"{name} is not a PNG or JPEG; send one, in base64.") from error
    # By its header alone: what is larger is never decoded.
    if width * height > MOST_PIXELS:
        raise SettingsError(
            f"{name} is {width}x{height}; at most {MOST_PIXELS} pixels are read. Scale it down."
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise SettingsError(f"{name} is a damaged {kind}; save it again.")
    return IMAGE_FORMATS[kind]


def store_images(files: Mapping[str, bytes], folder: Path) -> None:
    """Write checked images; their names were made here, and count frames from 0."""
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_bytes(folder / FRAMES_MARK, b"")


def encode_image(path: Path) -> str:
    """An image file as plain base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def answer_file(path: Path, headers: Headers, media: str, name: str) -> Response:
    """A file, or the part of it that the request's headers ask for.

    Args:
        headers: of the request.
        name: that a browser offers when it saves the file.
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


def _parse_range(wanted: str, size: int) -> tuple[int, int] | None:
    """First and last byte that a range header names, the first above the last where the file
    ends before; None for what is not a single range of bytes, which the standard says to ignore."""
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
