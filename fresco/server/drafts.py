"""Draw drafts of single frames of jobs, while a keyframe is retouched.

Their motion depends on the source alone. It is kept in memory for the segments that are viewed, so
that a frame can be drawn from a new keyframe in a few hundredths of a second.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest, list_state
from fresco.errors import FrescoError
from fresco.propagation.draft import DraftMotion, DraftSegment, draw_draft, draw_side
from fresco.run.clip import WorkingFrames
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.segments import JobSegment, list_segments
from fresco.video.reader import VideoInfo, open_source
from fresco.video.size import scale_frame, working_size
from fresco.workspace import read_image

Image = NDArray[np.uint8]

_SEGMENTS, _FRAMES = 2, 96
"""The motion of this number of segments is kept, and of more as long as they have at most this
number of frames together. A frame takes 1 to 3 MB."""
_SOURCES = 4
"""Number of sources whose index is kept."""


@dataclass(slots=True)
class _Motion:
    """Motion of a segment, found by one thread at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    segment: DraftSegment | None = None
    found: set[int] = field(default_factory=set)


class Drafts:
    """Draws drafts of frames of jobs."""

    def __init__(self, engine: JobEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._motions: OrderedDict[tuple[str, int, int], _Motion] = OrderedDict()
        self._sources: OrderedDict[str, WorkingFrames] = OrderedDict()
        self._beside = ThreadPoolExecutor(1, "fresco-draft")
        self._ahead = ThreadPoolExecutor(1, "fresco-drafts")
        self._wish = 0

    def draw(self, job: str, frame: int) -> Image | None:
        """Draw a frame from the current keyframes of a job, at working size.

        None if the frame is not between two of them.
        """
        for segment in list_segments(self._engine.folder(job)):
            if frame in segment.interior:
                return self.draw_in(self._engine.request(job), segment, frame, {})
        return None

    def draw_in(
        self, request: JobRequest, segment: JobSegment, frame: int, new: Mapping[int, Image]
    ) -> Image | None:
        """Draw a frame between the keyframes of a segment; None if one of these does not exist.

        Args:
            request: request of the segment's job.
            new: images that replace existing keyframes, by number.
        """
        motion = self._find(request, segment, frame)
        numbers = (segment.first, segment.last)
        keys = [new[number] if number in new else read_image(path)
                for number, path in zip(numbers, segment.keys, strict=True)]
        size = self.open(request).size
        found = [scale_frame(key, size) for key in keys if key is not None]
        return draw_draft(found, motion) if len(found) == len(keys) else None

    def draw_side(self, job: str, frame: int, side: int) -> Image | None:
        """Carry the first (0) or last keyframe (1) of its segment alone to a frame.

        None if the frame is not between two existing keyframes.
        """
        request = self._engine.request(job)
        for segment in list_segments(self._engine.folder(job)):
            if frame in segment.interior:
                key = read_image(segment.keys[side])
                if key is None:
                    return None
                motion = self._find(request, segment, frame)
                return draw_side(scale_frame(key, self.open(request).size), motion, side)
        return None

    def prepare(self, job: str, frame: int) -> None:
        """Find, in the background, the motion of the segments beside a frame, nearest frames first.

        A later call replaces an earlier one.
        """
        with self._lock:
            self._wish += 1
            wish = self._wish
        self._ahead.submit(self._prepare, job, frame, wish)

    def count(self, job: str, segment: JobSegment) -> int:
        """Number of frames of a segment whose motion is known."""
        key = self._name(self._engine.request(job), segment)
        with self._lock:
            motion = self._motions.get(key)
        return len(motion.found) if motion else 0

    def _prepare(self, job: str, frame: int, wish: int) -> None:
        try:
            request = self._engine.request(job)
            segments = [s for s in list_segments(self._engine.folder(job)) if s.touches(frame)]
            wanted = [(abs(n - frame), n, s) for s in segments for n in s.interior]
            for _, number, segment in sorted(wanted, key=lambda each: each[:2]):
                if self._wish != wish:
                    return
                self._find(request, segment, number)
        except (FrescoError, OSError):
            return  # the source or the job was deleted; a request for a frame reports it

    def _find(self, request: JobRequest, segment: JobSegment, frame: int) -> DraftMotion:
        kept = self._keep(self._name(request, segment))
        with kept.lock:
            if kept.segment is None:
                frames = self.open(request)(segment.first, segment.last)
                kept.segment = DraftSegment(frames, segment.last - segment.first)
            position = frame - segment.first
            beside = self._beside.submit(kept.segment.reach, 0, position)
            try:
                kept.segment.reach(1, position)
            finally:
                beside.result()
            kept.found.add(frame)
            return kept.segment.find(position)

    def _name(self, request: JobRequest, segment: JobSegment) -> tuple[str, int, int]:
        return _name_source(request), segment.first, segment.last

    def _keep(self, name: tuple[str, int, int]) -> _Motion:
        with self._lock:
            kept = self._motions.setdefault(name, _Motion())
            self._motions.move_to_end(name)
            while len(self._motions) > _SEGMENTS and sum(
                last - first for _, first, last in self._motions
            ) > _FRAMES:
                self._motions.popitem(last=False)
            return kept

    def open_info(self, request: JobRequest) -> VideoInfo:
        """Facts about the source."""
        frames = self.open(request)
        with open_source(request.source, last_frame=frames.end, index=frames.index) as source:
            return source.info

    def open(self, request: JobRequest) -> WorkingFrames:
        """Open the source's frames at working size; its index is read only once."""
        name = _name_source(request)
        with self._lock:
            known = self._sources.get(name)
        if known is None:
            end = request.settings.output.last_frame
            with open_source(request.source, last_frame=end) as source:
                info, index = source.info, source.index
            size = working_size(info.width, info.height, request.settings.sampling.resolution)
            known = WorkingFrames(request.source, size, end, index)
            with self._lock:
                self._sources[name] = known
                while len(self._sources) > _SOURCES:
                    self._sources.popitem(last=False)
        return known


def _name_source(request: JobRequest) -> str:
    """The key of a source at one size."""
    settings = request.settings
    return digest(
        request.source, list_state(Path(request.source)), settings.sampling.resolution,
        settings.output.last_frame,
    )
