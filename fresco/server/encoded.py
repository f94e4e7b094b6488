"""What JSON has no type for: files, as base64, and whole numbers."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fresco.errors import SettingsError
from fresco.settings import Entry


def strip_prefix(text: str) -> str:
    """The text of base64 without a `data:video/mp4;base64,` before it."""
    return text.partition(",")[2] if text.startswith("data:") else text


def decode_base64(name: str, text: str, advice: str) -> bytes:
    """Bytes of base64, with or without a prefix.

    Args:
        name: what the client calls it, for errors.
        advice: what to do about a text that is not base64.
    """
    try:
        return base64.b64decode(strip_prefix(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{name} is not base64 ({error}); {advice}") from error


def restore_integer(entry: Entry, value: Any) -> Any:
    """Whole numbers of sliders and of JSON come as floats."""
    if entry.type is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
