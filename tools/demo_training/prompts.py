"""Captions: a look and, where it is known, what the image shows."""

from __future__ import annotations

import random

from tools.demo_training.styles import STYLES

_NOTHING = ("", "a scene", "a picture", "this", "a frame of a video")
"""Content of images that nobody described."""
_ENDS = ("", "", "", ", detailed", ", high quality", ", masterpiece", ", best quality")


def write_caption(style: str, words: str, chance: random.Random, *, dropped: float = 0.1) -> str:
    """Write one way to ask for an image in a look.

    Args:
        words: what it shows; empty where unknown.
        dropped: how often the caption is empty, for classifier-free guidance.
    """
    if chance.random() < dropped:
        return ""
    look = chance.choice(STYLES[style][1])
    content = words if words and chance.random() < 0.7 else chance.choice(_NOTHING)
    if not content:
        text = look
    elif chance.random() < 0.6:
        text = f"{look} of {content}"
    else:
        text = f"{content}, {look}"
    return text + chance.choice(_ENDS)
