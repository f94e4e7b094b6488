"""Write and read texts in PNG files, such as the settings that made an image."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

COMMENT = "Comment"
"""Keyword of the PNG standard for a text of any kind."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_SIGNATURE) + 25
"""Bytes of the signature and of the first chunk, IHDR."""
_KIND = b"iTXt"
_MOST = 1 << 24
"""Largest size in bytes of a text, compressed or not, that is read."""


def add_text(png: bytes, text: str, keyword: str = COMMENT) -> bytes:
    """Put a text into a PNG file, after its header; an empty text changes nothing."""
    if not text:
        return png
    body = keyword.encode("latin-1") + b"\0\1\0\0\0" + zlib.compress(text.encode("utf-8"), 9)
    chunk = struct.pack(">I", len(body)) + _KIND + body
    chunk += struct.pack(">I", zlib.crc32(_KIND + body))
    return png[:_HEADER_END] + chunk + png[_HEADER_END:]


def read_text(path: Path, keyword: str = COMMENT) -> str:
    """Read the text of a keyword before the pixels; empty if there is none, or it is not a PNG."""
    try:
        with path.open("rb") as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return ""
            while len(head := file.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                if kind in (b"IDAT", b"IEND") or length > _MOST:
                    return ""
                body = file.read(length)
                if kind == _KIND and body.startswith(keyword.encode("latin-1") + b"\0"):
                    return _unpack(body[len(keyword) + 1:])
                file.seek(4, 1)  # the checksum
    except OSError:
        return ""
    return ""


def _unpack(body: bytes) -> str:
    """Read the text of a chunk iTXt, from its compression flag on; empty if it is damaged."""
    packed, rest = body[:1] == b"\1", body[2:]
    _, _, rest = rest.partition(b"\0")  # language
    _, _, data = rest.partition(b"\0")  # translated keyword
    try:
        if packed:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, _MOST)
            if unpacker.unconsumed_tail:
                return ""
        return data.decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return ""
