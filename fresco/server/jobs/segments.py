"""Find the segments of a job, and which of their frames were made from its current keyframes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest_content
from fresco.propagation.judgement import (
    SIDES,
    FrameJudgement,
    name_judgements,
    read_judgements,
)
from fresco.run.keyframes import PLAN_NAME
from fresco.run.propagate import read_origin
from fresco.server.jobs.runner import find_keyframes
from fresco.workspace import frame_name, read_image, read_json


@dataclass(frozen=True, slots=True)
class JobSegment:
    """Two neighbouring, existing keyframes of a shot, and the frames between them."""

    first: int
    """Number of the first keyframe."""
    last: int
    """Number of the last keyframe."""
    keys: tuple[Path, Path]
    """Both keyframes."""

    @property
    def interior(self) -> range:
        """Numbers of the frames between the keyframes."""
        return range(self.first + 1, self.last)

    def touches(self, frame: int) -> bool:
        """Whether a frame is one of the segment's keyframes, or between them."""
        return self.first <= frame <= self.last


def list_segments(folder: Path) -> list[JobSegment]:
    """List the segments of the job in this folder that have frames between their keyframes."""
    plan, keys = read_json(folder / "workspace" / PLAN_NAME), find_keyframes(folder)
    shots = plan.get("shots") if isinstance(plan, dict) else None
    if not isinstance(shots, list):
        return []
    found: list[JobSegment] = []
    for shot in shots:
        if not isinstance(shot, list) or len(shot) != 2 or not all(type(n) is int for n in shot):
            return []
        inside = [number for number in sorted(keys) if shot[0] <= number <= shot[1]]
        found += [JobSegment(a, b, (keys[a], keys[b])) for a, b in pairwise(inside) if b - a > 1]
    return found


def find_carried(folder: Path, segment: JobSegment) -> Path | None:
    """Find the folder of the latest run's frames that were made from a segment's current keyframes.

    It may not have all frames. None if the frames were made from earlier keyframes, or if there are
    none.
    """
    place = find_frames(folder)
    if place is None:
        return None
    origin = read_origin(place) or {}
    try:
        made = all(
            origin.get(str(number)) == digest_content(path)
            for number, path in zip((segment.first, segment.last), segment.keys, strict=True)
        )
    except OSError:  # deleted meanwhile
        return None
    return place if made else None


def find_frames(folder: Path) -> Path | None:
    """Find the folder of the latest run's frames between keyframes; None if there is none."""
    return _find_noted(folder, "frames")


def _find_noted(folder: Path, what: str) -> Path | None:
    """Find a folder of the workspace that the latest run has noted; None if there is none."""
    plan = read_json(folder / "workspace" / PLAN_NAME)
    name = plan.get(what) if isinstance(plan, dict) else None
    if not isinstance(name, str) or name in ("", ".", ".."):
        return None
    place = folder / "workspace" / name
    if place.parent.parent != folder or place.is_symlink() or not place.is_dir():
        return None
    return place


def list_carried(folder: Path, segment: JobSegment) -> list[Path]:
    """List the existing frames in the folder that `find_carried` finds."""
    place = find_carried(folder, segment)
    paths = [place / frame_name(frame) for frame in segment.interior] if place else []
    return [path for path in paths if path.is_file()]


def list_judged(folder: Path) -> dict[int, FrameJudgement]:
    """Read the judgements of the latest run's frames, by number; drafts have none."""
    found: dict[int, FrameJudgement] = {}
    for segment in list_segments(folder):
        if place := find_frames(folder):
            found |= read_judgements(name_judgements(place, segment.first, segment.last))
    return found


def find_masks(folder: Path) -> Path | None:
    """Find the folder of the masks that the latest run has made; None if there is none."""
    return _find_noted(folder, "masks")


def read_share(folder: Path, frame: int) -> NDArray[np.uint8] | None:
    """Read the small image that shows the side of each region of a frame; None if not known."""
    place = find_frames(folder)
    return read_image(place / SIDES / frame_name(frame)) if place else None
