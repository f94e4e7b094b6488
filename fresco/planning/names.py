"""Make names of results by a pattern, valid on every system."""

from __future__ import annotations

import re
from pathlib import Path

from fresco.errors import SettingsError

TELLING = "{clip}-{prompt}-{seed}"
"""The default pattern of downloads."""

_FIELDS = ("clip", "prompt", "seed", "number")
_NAMED = re.compile(r"\{([^{}]*)\}")
_LONGEST = 120
"""Bytes of a name, so that what is written beside the result has room for its own ends."""
_LONGEST_PROMPT = 40
"""Most letters of a prompt in a name."""
_EXTRA = re.compile(r"<[^<>]*>")
"""An extra network in a prompt."""
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


def check_pattern(pattern: str) -> None:
    """Raise SettingsError if a pattern of `output.name` has an unknown field."""
    for field in _NAMED.findall(pattern):
        if field not in _FIELDS:
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise SettingsError(
                f"output.name is {pattern!r}, which has {{{field}}}; fields are {known}."
            )


def has_number(pattern: str) -> bool:
    """Whether a pattern contains a number."""
    return "number" in _NAMED.findall(pattern)


def name_result(pattern: str, clip: str, prompt: str, seed: int, number: int = 1) -> str:
    """Make the name of a result, without its ending.

    Args:
        clip: name of the source, with or without its ending.
        seed: -1 stands for a random one.
        number: of the result, from 1.
    """
    check_pattern(pattern)
    values = {
        "clip": Path(clip).stem, "prompt": _shorten(prompt),
        "seed": str(seed) if seed >= 0 else "random", "number": f"{number:04d}",
    }
    name = _NAMED.sub(lambda match: values[match[1]], pattern)
    name = re.sub(r"-{2,}", "-", _UNSAFE.sub("-", name))  # an empty field leaves two separators
    name = _cut(name, _LONGEST).strip(" .-")
    return f"_{name}" if _RESERVED.fullmatch(name) else name or "result"


def _shorten(prompt: str) -> str:
    """Join the first words of a prompt by underscores."""
    words = re.findall(r"[^\W_]+", _EXTRA.sub(" ", prompt))
    short = ""
    for word in words:
        longer = f"{short}_{word}" if short else word
        if len(longer) > _LONGEST_PROMPT:
            return short or word[:_LONGEST_PROMPT]
        short = longer
    return short


def _cut(text: str, most: int) -> str:
    """Cut a text to at most this number of bytes of UTF-8."""
    return text.encode("utf-8")[:most].decode("utf-8", "ignore")
