"""Fill the ends of a shot: the frames outside its outermost keyframes, made from one keyframe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fresco.digests import digest, digest_content
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation.carriers import CarryStep, carry_all
from fresco.propagation.draft import draw_draft, follow_outward
from fresco.propagation.engine import AnyEngine, DraftEngine
from fresco.propagation.grid import shrink_motion
from fresco.propagation.scratch import Scratch
from fresco.propagation.segment import FrameLoader, Image, read_key
from fresco.workspace import frame_name, write_image

READ_AT_ONCE = 8
"""Frames read and held in memory at once when the frames are needed in reverse order."""


@dataclass(frozen=True, slots=True)
class EndJob:
    """One end of a shot to fill."""

    key: int
    """Frame number of the outermost keyframe."""
    end: int
    """Last frame to write, before or after the keyframe."""
    image: Path
    """The keyframe."""
    frames: FrameLoader
    """Reads the source."""
    folder: Path
    """Folder for the frames, named by `frame_name`."""
    engine: AnyEngine
    """How the key is carried."""

    @property
    def numbers(self) -> range:
        """Numbers of the frames to write, nearest to the keyframe first."""
        step = 1 if self.end > self.key else -1
        return range(self.key + step, self.end + step, step)

    def path(self, frame: int) -> Path:
        """Where a frame is written."""
        return self.folder / frame_name(frame)

    def open_scratch(self, estimator: FlowEstimator) -> Scratch:
        """Open the scratch folder; it survives interruptions until the end is filled."""
        cache_key = digest(
            digest_content(self.image), estimator.fingerprint, self.engine.cache_key
        )
        return Scratch(self.folder / f".end-{self.key:06d}-{self.end:06d}", cache_key)


def _read_outward(job: EndJob) -> Iterator[Image]:
    """Yield the source's frames, nearest to the keyframe first.

    Backward they are read a few at a time, because a source can only be read forward.
    """
    if job.end > job.key:
        yield from job.frames(job.key + 1, job.end)
        return
    for last in range(job.key - 1, job.end - 1, -READ_AT_ONCE):
        yield from reversed(list(job.frames(max(job.end, last - READ_AT_ONCE + 1), last)))


def _walk_outward(
    job: EndJob, key: Image, scratch: Scratch, estimator: FlowEstimator, grid: tuple[int, int]
) -> Iterator[CarryStep]:
    before = key
    for number, image in zip(job.numbers, _read_outward(job), strict=True):
        if scratch.has("move", number):
            move = scratch.get("move", number)
        else:
            pair = estimate_motion(before, image, estimator).round_to_half()
            pair = shrink_motion(pair, grid)
            move = scratch.put("move", number, flow=pair.backward, hidden=pair.backward_occlusion)
        yield CarryStep(number, image, move["flow"], move["hidden"])
        before = image


def _draft_end(job: EndJob, *, advanced: Callable[[], None]) -> None:
    keys, key = [read_key(job.image)], next(job.frames(job.key, job.key))
    for number, motion in zip(job.numbers, follow_outward(key, _read_outward(job)), strict=True):
        if not job.path(number).exists():
            write_image(job.path(number), draw_draft(keys, motion))
        advanced()


def propagate_end(
    job: EndJob, estimator: FlowEstimator, *, advanced: Callable[[], None],
    check: Callable[[], None],
) -> None:
    """Write the frames between a keyframe (not included) and one end of its shot.

    Args:
        advanced: called after every frame; raises to stop.
        check: called while a frame is waited for; raises to stop.
    """
    if all(job.path(number).exists() for number in job.numbers):
        for _ in job.numbers:
            advanced()
        return
    engine = job.engine
    if isinstance(engine, DraftEngine):
        _draft_end(job, advanced=advanced)
        return
    image = read_key(job.image)
    key = next(job.frames(job.key, job.key))
    with job.open_scratch(estimator) as scratch, \
            engine.open_carrier(image, key, estimator, check, job.key) as carrier:
        grid = engine.choose_grid((key.shape[0], key.shape[1]))
        steps = _walk_outward(job, key, scratch, estimator, grid)
        for frame, kept in carry_all(carrier, "carried", steps, job.numbers, scratch):
            write_image(job.path(frame), carrier.image(kept))
            advanced()
