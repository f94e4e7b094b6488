"""`modules.launch_utils`: what was started."""

from __future__ import annotations


def git_tag() -> str:
    """Its version."""
    return "v1.10.1"
