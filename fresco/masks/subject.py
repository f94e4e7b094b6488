"""Find masks of the subject on some frames: by motion against the camera, or by u2netp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fresco.masks.edge import Share

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator
    from fresco.settings import FlowSettings

SPACING = 6
"""Most frames from one that is looked at to the next: a slow subject has moved visibly by then, and
masks are carried so far without harm."""
AT_ONCE = 9
"""Frames that are looked at together, one of them shared with the next ones."""


def choose_frames(first: int, last: int) -> list[int]:
    """Choose the frames of a shot that are examined: both ends, and others evenly between."""
    pieces = -(-(last - first) // SPACING)
    if not pieces:
        return [first]
    return [first + (last - first) * piece // pieces for piece in range(pieces + 1)]


def group_frames(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Split frames into groups, each of which begins with the last one of the group before."""
    for start in range(0, max(1, len(numbers) - 1), AT_ONCE - 1):
        yield numbers[start:start + AT_ONCE]


def find_subjects(
    frames: NDArray[np.uint8], choice: str, estimator: FlowEstimator, settings: FlowSettings
) -> list[Share]:
    """Find the subject of every frame, as a mask of 0 and 1.

    Args:
        frames: [N, H, W, 3] RGB of one shot, in order.
        choice: `motion` or `u2netp`.
        settings: where weights lie.
    """
    # Imported here, because runs that only propagate do not need torch.
    from fresco.flow.occlusion import ring_flow
    from fresco.guidance.saliency import estimate_subject

    flow = ring_flow(frames, estimator) if choice == "motion" else None
    found = estimate_subject(frames, flow, settings)
    return [(probability >= 0.5).astype(np.float32) for probability in found[:, 0].numpy()]
