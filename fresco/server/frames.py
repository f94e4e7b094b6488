"""Single frames of jobs as a person looks at them: of the source, and of what was made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.server.drafts import Drafts
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.segments import JobSegment, find_carried, list_segments
from fresco.server.videos import read_frame
from fresco.workspace import frame_name, read_image

Image = NDArray[np.uint8]


class Layer(str, Enum):
    """What of a frame is looked at."""

    SOURCE = "source"
    RESULT = "result"
    KEYFRAME = "keyframe"


@dataclass(frozen=True, slots=True)
class Seen:
    """An image of a frame."""

    image: Image
    """[H, W, 3] RGB."""
    draft: bool = False
    """Whether it is a draft, beside a keyframe that was replaced."""


class Frames:
    """Gives single frames of the jobs of one engine."""

    def __init__(self, engine: JobEngine, drafts: Drafts) -> None:
        self._engine, self._drafts = engine, drafts

    def look(self, job: str, number: int, layer: Layer) -> Seen | None:
        """A frame of a job by its number in the source; None: the job has no such image.

        The motion beside a keyframe that is looked at is found in the background: it may be
        replaced next.
        """
        keys = self._engine.outcome(job).keys
        if number in keys:
            self._drafts.prepare(job, number)
        if layer is Layer.SOURCE:
            return Seen(read_frame(Path(self._engine.request(job).source), number))
        if layer is Layer.KEYFRAME:
            return _see(read_image(keys[number])) if number in keys else None
        return self._look_at_result(job, number)

    def list_retouched(self, job: str) -> list[JobSegment]:
        """The segments of which a keyframe differs from that in the video."""
        retouched = self._engine.retouched(job)
        if not retouched:
            return []
        return [
            segment for segment in list_segments(self._engine.folder(job))
            if retouched & {segment.first, segment.last}
        ]

    def _look_at_result(self, job: str, number: int) -> Seen | None:
        """Of the video; beside a keyframe that was replaced since, what there is of the frame with
        the new keyframe."""
        outcome = self._engine.outcome(job)
        if not (outcome.output and outcome.output.exists()):
            return None
        if number in self._engine.retouched(job) and number in outcome.keys:
            return _see(read_image(outcome.keys[number]))
        for segment in self.list_retouched(job):
            if number in segment.interior:
                place = find_carried(self._engine.folder(job), segment)
                new = read_image(place / frame_name(number)) if place else None
                if new is not None:
                    return Seen(new)
                draft = self._drafts.draw(job, number)
                if draft is not None:
                    return Seen(draft, draft=True)
        first = self._engine.request(job).settings.output.first_frame
        return Seen(read_frame(outcome.output, number - first))


def _see(image: Image | None) -> Seen | None:
    return None if image is None else Seen(image)
