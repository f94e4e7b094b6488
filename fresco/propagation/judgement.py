"""Judge how well each frame of a segment was propagated.

The judgement is three numbers for each frame, and a small image that shows which side each region
was taken from. They are computed from values that the selection needs anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import Map, Mask
from fresco.workspace import frame_name, read_json, write_image, write_json

SIDES = "sides"
"""Folder beside the frames of a segment, for small images of the backward side's share."""
_SMALL = 128
"""Pixels on the shorter side of these images."""
_SEAM = 0.05
"""Change of the share between neighbouring pixels above which there is a seam."""


@dataclass(frozen=True, slots=True)
class FrameJudgement:
    """How well a frame was propagated."""

    error: float
    """Propagation error: root mean square error of the selected sides, in grey levels."""
    occlusion: float
    """Share of the pixels that are not visible in the frame before."""
    jump: float
    """Border jump: how much both sides differ where they meet in the frame, in levels of Lab. It is
    0 if one side was taken everywhere, or if both are equal there."""


def judge_frame(
    costs: tuple[Map, Map], hidden: Mask, chosen: Map, difference: Map
) -> FrameJudgement:
    """Judge one frame.

    Args:
        costs: [H, W] squared errors of the forward and the backward side.
        hidden: [H, W], True = the frame before does not show the pixel.
        chosen: [H, W] which side is selected: share of the backward side, near 0 or 1.
        difference: [h, w] how much the sides differ, in levels of Lab.
    """
    forward, backward = (cost.astype(np.float32) for cost in costs)
    taken = forward + chosen * (backward - forward)
    small = np.asarray(cv2.resize(
        chosen.astype(np.float32), difference.shape[1::-1], interpolation=cv2.INTER_AREA))
    seam = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > _SEAM
    jump = float(difference[seam].mean()) if seam.any() else 0.0
    return FrameJudgement(
        round(float(np.sqrt(max(0.0, float(taken.mean())))), 3),
        round(float(hidden.mean()), 4), round(jump, 3),
    )


def shrink_share(chosen: Map) -> NDArray[np.uint8]:
    """Draw the share of the backward side as a small grey image [h, w, 3]."""
    height, width = chosen.shape
    scale = min(1.0, _SMALL / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(chosen.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    grey = np.rint(255 * small.clip(0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def write_share(folder: Path, frame: int, chosen: Map) -> None:
    """Write the image that shows the side of each region, beside the frames."""
    write_image(folder / SIDES / frame_name(frame), shrink_share(chosen))


def name_judgements(folder: Path, first: int, last: int) -> Path:
    """Path of the file of a segment's judgements, beside its frames."""
    return folder / f"judged-{first:06d}-{last:06d}.json"


def write_judgements(path: Path, judged: Mapping[int, FrameJudgement]) -> None:
    """Write the judgements of a segment, by frame number."""
    write_json(path, {str(frame): asdict(each) for frame, each in judged.items()})


def read_judgements(path: Path) -> dict[int, FrameJudgement]:
    """Read the judgements of a segment; none if the file is absent or damaged."""
    known = read_json(path)
    try:
        return {
            int(frame): FrameJudgement(
                *(float(each[name]) for name in ("error", "occlusion", "jump"))
            )
            for frame, each in (known or {}).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
