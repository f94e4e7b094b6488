"""Say which frame an image of img2img is: in infotext, file name, and the API's info."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FRAME, SOURCE = "FRESCO frame", "FRESCO source"
"""Keys of infotexts."""
FRAMES, NOTES = "FRESCO frames", "FRESCO notes"
"""Keys of the API's info only: all frames of a call, and what a person should know of it."""
_NUMBER = re.compile(rf"{FRAME}: (\d{{1,9}})\b")
_NAME = re.compile(rf"{SOURCE}: (\"(?:[^\"\\]|\\.)*\"|[^,\n]*)")
_LONGEST = 1 << 16


def name_file(filename: str, frame: int) -> str:
    """Make the path of a saved image, with its frame as the last number in the name."""
    path = Path(filename)
    return str(path.with_name(f"{path.stem}-frame{frame:06d}{path.suffix}"))


def read_texts(texts: Mapping[Any, Any]) -> dict[str, Any]:
    """Read from the text in an image which frame it is; empty if it does not say."""
    for value in texts.values():
        found = _NUMBER.search(value) if isinstance(value, str) and len(value) < _LONGEST else None
        if found:
            name = _NAME.search(value)
            source = name[1].strip('"') if name else ""
            return {FRAME: int(found[1]), **({SOURCE: source} if source else {})}
    return {}
