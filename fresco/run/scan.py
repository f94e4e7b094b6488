"""Stage 1: score the changes and cuts of all frames in one pass over the source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from fresco.planning.keyframes import ChangeScore
from fresco.planning.shots import CutScore
from fresco.progress import Progress
from fresco.run.clip import Clip
from fresco.video.reader import open_source
from fresco.workspace import Workspace, read_json, write_json

_VERSION = 1
"""Increased when the scores of the same frames change."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Scores of the frames of a clip, in order."""

    changes: tuple[float, ...]
    """Change score of every frame, compared with the one before; the first is 0."""
    cuts: tuple[float, ...]
    """Cut score of every frame, compared with the one before; the first is 0."""


def scan_clip(
    clip: Clip, workspace: Workspace, progress: Progress, *, elsewhere: Path | None = None,
    keep: bool = False,
) -> Scan:
    """Score every frame. A later run of the same clip reads the scores from a file.

    Args:
        elsewhere: another folder that may have the scores of this clip.
        keep: store the decoded frames for the run.
    """
    path = workspace.file(f"scan{_VERSION}", clip.range_key, ".json")
    # Version 0.1 named the file by the working size, too, on which no score depends.
    former = workspace.file(f"scan{_VERSION}", clip.cache_key, ".json")
    for place in (path, former, *([elsewhere / path.name] if elsewhere else ())):
        known = _read_scan(place, clip.count)
        if known is not None:
            if place.parent != path.parent:
                _write_scan(path, known)
            return known
    scan = _score_frames(clip, progress, keep=keep and clip.frames.has_room(clip.count))
    _write_scan(path, scan)
    return scan


def _read_scan(path: Path, count: int) -> Scan | None:
    known = read_json(path)
    if not isinstance(known, dict):
        return None
    changes, cuts = known.get("changes"), known.get("cuts")
    if _are_scores(changes, count) and _are_scores(cuts, count):
        return Scan(tuple(changes), tuple(cuts))
    return None


def _are_scores(values: Any, count: int) -> TypeGuard[list[float]]:
    """Whether a value from a file is a list of scores, one for every frame."""
    return isinstance(values, list) and len(values) == count and all(
        type(value) in (int, float) and math.isfinite(value) for value in values
    )


def _write_scan(path: Path, scan: Scan) -> None:
    write_json(path, {"changes": scan.changes, "cuts": scan.cuts})


def _score_frames(clip: Clip, progress: Progress, *, keep: bool) -> Scan:
    change, cut = ChangeScore(), CutScore()
    changes: list[float] = []
    cuts: list[float] = []
    source_file = open_source(
        clip.info.path, last_frame=clip.frames.end, index=clip.frames.index
    )
    with progress.stage("scan", clip.count) as stage, source_file as source:
        for number, frame in zip(
            clip.numbers, source.frames(clip.first, clip.last), strict=True
        ):
            changes.append(change.update(frame))
            cuts.append(cut.update(frame))
            if keep:
                clip.frames.keep(number, frame)
            stage.advance()
    return Scan(tuple(changes), tuple(cuts))
