"""Make and check ids of jobs and videos; no id can be a path."""

from __future__ import annotations

import re
import secrets

_FORM = re.compile(r"[0-9a-f]{16}")
_BYTES = 8


def make_id() -> str:
    """Make a random id."""
    return secrets.token_hex(_BYTES)


def is_id(text: str) -> bool:
    """Whether a text from a client has the form of an id."""
    return _FORM.fullmatch(text) is not None
