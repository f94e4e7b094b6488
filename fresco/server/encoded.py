"""Read values for which JSON has no type: files in base64, and whole numbers."""

from __future__ import annotations

import base64
import binascii
from typing import IO, Any

from fresco.errors import SettingsError
from fresco.options import Entry

_BLOCK = 1 << 20
"""Number of letters that are decoded at once, a multiple of 4."""


class EncodedFile:
    """A file that a client sent in base64; the text is kept on disk until it is decoded."""

    def __init__(self, spool: IO[bytes], start: int, length: int) -> None:
        self._spool, self._start, self._length = spool, start, length

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"a text of {self._length} letters"

    def grow(self, letters: int) -> None:
        """Count more letters that have arrived."""
        self._length += letters

    def letters(self) -> str:
        """The text as it was sent."""
        self._spool.seek(self._start)
        return self._spool.read(self._length).decode("ascii")

    def open(self, name: str) -> DecodedFile:
        """Open its bytes, which are decoded as they are read.

        Args:
            name: name of the field or file, for error messages.
        """
        self._spool.seek(self._start)
        head = self._spool.read(min(self._length, 256))
        skipped = head.index(b",") + 1 if head.startswith(b"data:") else 0
        return DecodedFile(self._spool, self._start + skipped, self._length - skipped, name)


class DecodedFile:
    """The bytes of base64, decoded as they are read."""

    def __init__(self, spool: IO[bytes], start: int, length: int, name: str) -> None:
        self._spool, self._place, self._end = spool, start, start + length
        self._name = name

    def read(self, size: int = -1, /) -> bytes:
        """Read the next block of bytes; empty at the end."""
        self._spool.seek(self._place)
        letters = self._spool.read(min(_BLOCK, self._end - self._place))
        self._place += len(letters)
        if self._place < self._end and letters.endswith(b"="):
            raise self._refuse("it ends before its end")
        try:
            return base64.b64decode(letters, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._refuse(str(error)) from error

    def _refuse(self, why: str) -> SettingsError:
        return SettingsError(f"{self._name} is not base64 ({why}); encode the file's bytes.")


def strip_prefix(text: str) -> str:
    """Remove a prefix such as `data:video/mp4;base64,` from a text."""
    return text.partition(",")[2] if text.startswith("data:") else text


def decode_base64(name: str, text: str, advice: str) -> bytes:
    """Decode base64, with or without a prefix.

    Args:
        name: name of the field or file, for error messages.
        advice: what to do if the text is not base64, for error messages.
    """
    try:
        return base64.b64decode(strip_prefix(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{name} is not base64 ({error}); {advice}") from error


def restore_integer(entry: Entry, value: Any) -> Any:
    """Convert a float to an integer if the option is one: sliders and JSON give floats."""
    if entry.type is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
