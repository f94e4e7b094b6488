"""Keep the motion between neighbouring frames on disk, so that each pair is estimated only once.

Segments store it in a shared folder. Other engines that carry the same keyframes read it there, and
so do the measures. A pair is stored under the number of its later frame, in the same form as in a
segment's scratch folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import FrameMotion
from fresco.flow.motion import estimate_motion
from fresco.propagation.scratch import Scratch, load_arrays, save_arrays

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator
    from fresco.propagation.segment import SegmentJob

Image = NDArray[np.uint8]
_SIDES = ("ahead", "behind")
"""Names of a pair's two directions. The second is written last: if it is there, both are."""
BYTES_PER_PIXEL = 10
"""Size of a stored pair: two flows of two half-precision numbers, and two masks."""


def store_pair(scratch: Scratch, frame: int, pair: FrameMotion) -> None:
    """Store the pair (frame - 1, frame) in a segment's scratch folder."""
    for name, arrays in _list_arrays(pair):
        scratch.put(name, frame, **arrays)


def has_pair(scratch: Scratch, frame: int) -> bool:
    """Whether a segment's scratch folder has the pair (frame - 1, frame)."""
    return scratch.has(_SIDES[-1], frame)


def take_pair(scratch: Scratch, frame: int, folder: Path) -> bool:
    """Copy a pair from the shared folder to a segment's; False if it is not there."""
    if not (folder / f"{_SIDES[-1]}-{frame:06d}.npz").exists():
        return False
    return all(scratch.take(name, frame, folder) for name in _SIDES)


def save_pair(folder: Path, frame: int, pair: FrameMotion) -> None:
    """Store a pair in the shared folder."""
    for name, arrays in _list_arrays(pair):
        save_arrays(folder / f"{name}-{frame:06d}.npz", arrays)


def give_pair(scratch: Scratch, frame: int, folder: Path) -> None:
    """Copy a pair of a segment to the shared folder."""
    for name in _SIDES:
        scratch.give(name, frame, folder)


def read_pair(folder: Path, frame: int) -> FrameMotion | None:
    """Read the pair (frame - 1, frame) from the shared folder; None if it is not there."""
    try:
        ahead, behind = (load_arrays(folder / f"{name}-{frame:06d}.npz") for name in _SIDES)
    except FileNotFoundError:
        return None
    return FrameMotion(ahead["flow"], behind["flow"], ahead["hidden"], behind["hidden"])


def find_pair(
    folder: Path | None, frame: int, before: Image, image: Image, estimator: FlowEstimator
) -> FrameMotion:
    """Read the pair (frame - 1, frame) from the shared folder, or estimate and store it.

    Args:
        folder: the shared folder; None if there is none.
        before, image: [H, W, 3] both frames of the source.
    """
    known = read_pair(folder, frame) if folder else None
    if known is not None:
        return known
    pair = estimate_motion(before, image, estimator)
    if folder:
        save_pair(folder, frame, pair)
    return pair.round_to_half()


def estimate_pairs(
    job: SegmentJob, estimator: FlowEstimator, folder: Path, check: Callable[[], None]
) -> None:
    """Estimate the pairs of a segment and store them in the shared folder, before it is filled.

    Args:
        check: called for every frame; raises to stop.
    """
    before = None
    for frame, image in job.read_source():
        check()
        if before is not None and read_pair(folder, frame) is None:
            save_pair(folder, frame, estimate_motion(before, image, estimator))
        before = image


def forget_pairs(job: SegmentJob, folder: Path) -> None:
    """Remove the pairs of a segment from the shared folder."""
    for frame in range(job.first + 1, job.last + 1):
        for name in _SIDES:
            (folder / f"{name}-{frame:06d}.npz").unlink(missing_ok=True)


def _list_arrays(pair: FrameMotion) -> tuple[tuple[str, dict], ...]:
    return (
        (_SIDES[0], {"flow": pair.forward, "hidden": pair.forward_occlusion}),
        (_SIDES[1], {"flow": pair.backward, "hidden": pair.backward_occlusion}),
    )
