"""Send a file as a form, for uploads of the client."""

from __future__ import annotations

import io
import re
import secrets
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20


class MultipartBody:
    """A form of one file, read from disk as it is sent."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        boundary = secrets.token_hex(16)
        name = re.sub(r'[\x00-\x1f"]', "_", path.name)
        head = (f'--{boundary}\r\nContent-Disposition: form-data; name="video"; '
                f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n')
        self._parts: list[BinaryIO] = [
            io.BytesIO(head.encode()), file, io.BytesIO(f"\r\n--{boundary}--\r\n".encode())
        ]
        self._size = sum(part.seek(0, io.SEEK_END) for part in self._parts)
        for part in self._parts:
            part.seek(0)
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = _BLOCK) -> bytes:
        """Read the next bytes; empty at the end."""
        while self._parts:
            block = self._parts[0].read(size)
            if block:
                return block
            self._parts.pop(0)
        return b""
