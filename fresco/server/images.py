"""Check images from clients by their headers before they are decoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fresco.errors import SettingsError
from fresco.server.videos import MOST_PIXELS
from fresco.video.size import scale_frame

IMAGE_FORMATS = {"PNG": ".png", "JPEG": ".jpg"}
"""Formats of external keyframes, and the endings of their files."""

_HEADER_END = 33
"""Number of bytes of a PNG's signature and first chunk."""


def read_image_header(name: str, data: bytes) -> tuple[str, int, int]:
    """Read format, width and height of an image; one above the limit is never decoded.

    Args:
        name: name of the field or file, for error messages.
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(IMAGE_FORMATS)) as image:
            kind, (width, height) = image.format or "", image.size
    except Image.DecompressionBombError as error:  # far too large; Pillow does not say its size
        raise SettingsError(
            f"{name} is too large; at most {MOST_PIXELS} pixels are read. Scale it down."
        ) from error
    except Exception as error:  # Pillow raises errors of any class for broken headers
        raise SettingsError(f"{name} is not a PNG or JPEG; send one, in base64.") from error
    if width * height > MOST_PIXELS:
        raise SettingsError(
            f"{name} is {width}x{height}; at most {MOST_PIXELS} pixels are read. Scale it down."
        )
    return kind, width, height


def read_image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image file; None if it cannot be read."""
    try:
        with Image.open(path, formats=tuple(IMAGE_FORMATS)) as image:
            return image.size
    except Exception:  # Pillow raises errors of any class for broken headers
        return None


def decode_sent_image(name: str, data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG to [H, W, 3] RGB, after a check of its header."""
    kind, _, _ = read_image_header(name, data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise SettingsError(f"{name} is a damaged {kind}; save it again.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def fit_side(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink an image [H, W, 3] until no side is longer than `side`; a smaller one is unchanged."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    return scale_frame(image, (max(1, round(width * scale)), max(1, round(height * scale))))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode [H, W, 3] RGB as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise SettingsError(f"An image of shape {image.shape} cannot be encoded as PNG.")
    return data.tobytes()


def add_text(png: bytes, key: str, text: str) -> bytes:
    """Add a text (iTXt) after the header of a PNG, so that other programs can read it."""
    data = key.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    chunk = b"iTXt" + data
    place = _HEADER_END
    return b"".join((
        png[:place], struct.pack(">I", len(data)), chunk, struct.pack(">I", zlib.crc32(chunk)),
        png[place:],
    ))
