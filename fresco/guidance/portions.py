"""How much of a feature is worked on at once.

A processor is as fast frame by frame, which takes least memory; a graphics card wants few
operators.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Portions:
    """Most numbers that are worked on at once; a frame, a row and a channel are not divided."""

    frames: int
    """Of the frames of a group."""
    strip: int
    """Of a strip of Gram matrices, all frames of a group together."""
    rows: int
    """Rows of a strip. What lies left of the diagonal within one is computed for nothing."""
    channels: int
    """Of the channels that the temporal term works on."""
    kept: float
    """Kept of the reference's Gram matrices while a chunk is optimised, in bytes for each byte of
    the chunk in float32."""


PROCESSOR = Portions(frames=1 << 21, strip=1 << 20, rows=256, channels=1 << 19, kept=1.35)
"""At 512 x 512 and 8 frames one frame at a time; 79 % of the largest stage's strips are kept."""
CARD = Portions(frames=1 << 25, strip=1 << 24, rows=512, channels=1 << 24, kept=0)
"""At 512 x 512 and 8 frames all of them together."""


def find_portions(device: torch.device) -> Portions:
    """What suits a device."""
    return PROCESSOR if device.type == "cpu" else CARD


def split(count: int, most: int) -> list[slice]:
    """0..count in as few parts as can be, none longer than `most` (but 1), nearly equal."""
    parts = math.ceil(count / max(1, most))
    bounds = [count * part // parts for part in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(bounds)]


def split_frames(frames: int, numbers: int, device: torch.device) -> list[slice]:
    """Groups of frames that have so many numbers each."""
    return split(frames, find_portions(device).frames // numbers)
