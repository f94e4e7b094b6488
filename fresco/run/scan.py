"""Stage 1: one pass over the source gives change scores and cut scores, hence shots and keys."""

from __future__ import annotations

from dataclasses import dataclass

from fresco.planning.keyframes import ChangeScore
from fresco.planning.shots import CutScore
from fresco.progress import Progress
from fresco.run.clip import Clip
from fresco.video.reader import open_source
from fresco.workspace import Workspace, read_json, write_json

_VERSION = 1
"""Raised when the scores of the same frames change."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Scores of the frames of a clip, in order."""

    changes: tuple[float, ...]
    """Change score of every frame against the one before; the first is 0."""
    cuts: tuple[float, ...]
    """Cut score of every frame against the one before; the first is 0."""


def scan_clip(clip: Clip, workspace: Workspace, progress: Progress) -> Scan:
    """Score every frame once; a later run of the same clip reads the file."""
    path = workspace.file(f"scan{_VERSION}", clip.cache_key, ".json")
    known = read_json(path)
    if isinstance(known, dict) and len(known.get("changes", ())) == clip.count:
        return Scan(tuple(known["changes"]), tuple(known["cuts"]))
    change, cut = ChangeScore(), CutScore()
    changes: list[float] = []
    cuts: list[float] = []
    source_file = open_source(clip.info.path, last_frame=clip.frames.end)
    with progress.stage("scan", clip.count) as stage, source_file as source:
        for frame in source.frames(clip.first, clip.last):
            changes.append(change.update(frame))
            cuts.append(cut.update(frame))
            stage.advance()
    write_json(path, {"changes": changes, "cuts": cuts})
    return Scan(tuple(changes), tuple(cuts))
