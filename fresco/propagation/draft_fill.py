"""Write the frames of a segment as drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fresco.propagation.draft import DraftSegment, draw_draft
from fresco.propagation.segment import Image, SegmentJob
from fresco.workspace import write_image


def draft_segment(job: SegmentJob, check: Callable[[], None]) -> int:
    """Write every missing frame between two keyframes, and return how many were written.

    Args:
        check: called for every frame in every pass; raises to stop.
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
