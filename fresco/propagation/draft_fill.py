"""Write the frames of a segment, or of a shot's end, as drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fresco.propagation.draft import DraftSegment, draw_draft, follow_outward
from fresco.propagation.segment import Image, SegmentJob, read_key
from fresco.workspace import write_image

if TYPE_CHECKING:
    from fresco.propagation.ends import EndJob


def draft_segment(job: SegmentJob, check: Callable[[], None]) -> int:
    """Write every missing frame between two keyframes; the number of frames written.

    Args:
        check: called once a frame and pass; raises to stop.
    """
    missing = job.find_missing()
    if not missing:
        return 0
    keys = job.read_keys()

    def read() -> Iterable[Image]:
        for _, image in job.read_source():
            check()
            yield image

    segment = DraftSegment(read(), job.last - job.first)
    for frame in reversed(job.interior):
        check()
        segment.reach(1, frame - job.first)
    for frame in missing:
        check()
        write_image(job.path(frame), draw_draft(keys, segment.find(frame - job.first)))
    return len(missing)


def draft_end(job: EndJob, frames: Iterable[Image], *, advanced: Callable[[], None]) -> None:
    """Write the frames of a shot's end.

    Args:
        frames: the source's frames away from the keyframe.
        advanced: called after every frame; raises to stop.
    """
    keys, key = [read_key(job.image)], next(job.frames(job.key, job.key))
    for number, motion in zip(job.numbers, follow_outward(key, frames), strict=True):
        if not job.path(number).exists():
            write_image(job.path(number), draw_draft(keys, motion))
        advanced()
