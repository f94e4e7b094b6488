"""Carry two keyframes to the frames between them along the optical flow.

Three passes over a segment. Forward: flow of neighbours, tracks to the first key. Backward: tracks
to the last key, and the evidence for either side gathered from the frames to come. Forward again:
the evidence of the frames before, selection, blending, writing. Only a few frames are in memory
at a time; the rest lies in the segment's scratch folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fresco.blending.selection import backward_share, evidence, gathered, interior_weights
from fresco.errors import PropagationError
from fresco.flow.pairs import Map, PairFlow, pair_flow, sample
from fresco.propagation.render import Sides, render
from fresco.propagation.scratch import Scratch
from fresco.propagation.tracks import Track, advance
from fresco.settings import BlendSettings, FlowSettings
from fresco.workspace import frame_name, read_image, write_image

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

Image = NDArray[np.uint8]

NOISE = 4.0
"""Grey levels squared that two equal pixels differ by: below it the nearer key decides."""
MEMORY = 0.6
"""Share of the neighbouring frame's evidence; half of it is forgotten after 1.4 frames."""
SOFTNESS = 9
"""Side in pixels of the neighbourhood that chooses its side together."""


class FrameLoader(Protocol):
    """Reads frames of the source at working size. Picklable: each process opens its own."""

    def __call__(self, first: int, last: int) -> Iterator[Image]:
        """Frames `first` to `last`, both included, [H, W, 3] RGB, in order."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """One segment to fill; holds values and paths only, so that any process can do it."""

    first: int
    """Frame number of the first key."""
    last: int
    """Frame number of the last key."""
    first_key: Path
    """Picture of the first key."""
    last_key: Path
    """Picture of the last key, of the same size."""
    frames: FrameLoader
    """Reads the source."""
    flow: FlowSettings
    """Estimator by name, never `auto`: all segments must agree."""
    blend: BlendSettings
    """Which blends are on."""
    folder: Path
    """Where the frames between the keys are written, by `frame_name`."""
    device: str = "cpu"
    """Device of the flow estimator."""

    @property
    def interior(self) -> range:
        """Numbers of the frames between the keys."""
        return range(self.first + 1, self.last)

    @property
    def scratch(self) -> Path:
        """Folder that exists while the segment is at work."""
        return self.folder / f".segment-{self.first:06d}-{self.last:06d}"

    def path(self, frame: int) -> Path:
        """Where a frame is written."""
        return self.folder / frame_name(frame)

    def missing(self) -> list[int]:
        """Numbers of the frames not written yet; what exists is whole, see `workspace`."""
        return [frame for frame in self.interior if not self.path(frame).exists()]


def _nothing() -> None:
    return


def propagate_segment(
    job: SegmentJob, estimator: FlowEstimator, check: Callable[[], None] = _nothing
) -> int:
    """Write every missing frame between two keys; returns how many were written.

    Args:
        check: called once a frame and pass; raises to stop.
    """
    missing = job.missing()
    if not missing:
        return 0
    keys = _read_keys(job)
    with Scratch(job.scratch) as scratch:
        first, last = _forward_pass(job, estimator, scratch, check)
        if first.shape != last.shape:
            raise PropagationError(
                f"Frame {job.last} is {last.shape[1]}x{last.shape[0]}, frame {job.first} "
                f"{first.shape[1]}x{first.shape[0]}; give frames of one size."
            )
        _backward_pass(job, last, estimator, scratch, check)
        for frame, sides in _selection(job, scratch, check):
            if frame in missing:
                write_image(job.path(frame), render(*keys, sides, job.blend))
    return len(missing)


def verify_segment(job: SegmentJob) -> None:
    """Check that every frame between the keys is there, readable and of the keys' size."""
    size = _read_keys(job)[0].shape
    for frame in job.interior:
        picture = read_image(job.path(frame))
        if picture is None or picture.shape != size:
            what = "cannot be read" if picture is None else f"is {picture.shape}, not {size}"
            raise PropagationError(
                f"{job.path(frame)} {what}; delete it and start again, it will be made anew."
            )


def _read_keys(job: SegmentJob) -> tuple[Image, Image]:
    pictures = []
    for path in (job.first_key, job.last_key):
        picture = read_image(path)
        if picture is None:
            raise PropagationError(
                f"{path} cannot be read as a picture; make that keyframe again."
            )
        pictures.append(picture)
    first, last = pictures
    if first.shape != last.shape:
        raise PropagationError(
            f"{job.last_key} is {last.shape[1]}x{last.shape[0]}, {job.first_key} "
            f"{first.shape[1]}x{first.shape[0]}; give keyframes of one size."
        )
    return first, last


def _source(job: SegmentJob) -> Iterator[tuple[int, Image]]:
    """The source's frames of the segment, keys included, with their numbers."""
    wanted = job.last - job.first + 1
    count = 0
    for image in job.frames(job.first, job.last):
        yield job.first + count, image
        count += 1
    if count != wanted:
        raise PropagationError(
            f"The source gave {count} of the {wanted} frames {job.first} to {job.last}; it may "
            "have changed since the run began. Start again."
        )


def _put_track(scratch: Scratch, side: str, frame: int, track: Track) -> None:
    scratch.put(side, frame, flow=track.flow, cost=track.cost)


def _forward_pass(
    job: SegmentJob, estimator: FlowEstimator, scratch: Scratch, check: Callable[[], None]
) -> tuple[Image, Image]:
    """Flow of neighbours and tracks to the first key. Returns the keys' source frames."""
    source = _source(job)
    _, key = next(source)
    track, before = Track.start(*key.shape[:2]), key
    for frame, image in source:
        check()
        pair = pair_flow(before, image, estimator)
        _put_pair(scratch, frame, pair)
        if frame < job.last:
            track = advance(track, pair.backward, pair.backward_occlusion,
                            frame=image, key=key, estimator=estimator)
            _put_track(scratch, "forward", frame, track)
            scratch.put("source", frame, image=image)
        before = image
    return key, before


def _put_pair(scratch: Scratch, frame: int, pair: PairFlow) -> None:
    """Keep the pair (frame - 1, frame) under the later number."""
    scratch.put("ahead", frame, flow=pair.forward, hidden=pair.forward_occlusion)
    scratch.put("behind", frame, flow=pair.backward, hidden=pair.backward_occlusion)


def _backward_pass(
    job: SegmentJob, key: Image, estimator: FlowEstimator, scratch: Scratch,
    check: Callable[[], None],
) -> None:
    """Tracks to the last key, and the evidence gathered from the frames to come."""
    track = Track.start(*key.shape[:2])
    total: Map | None = None
    for frame in reversed(job.interior):
        check()
        step = scratch.get("ahead", frame + 1)
        image = scratch.get("source", frame)["image"]
        track = advance(track, step["flow"], step["hidden"],
                        frame=image, key=key, estimator=estimator)
        cost = scratch.get("forward", frame)["cost"]
        first, second = cost + NOISE, track.cost + NOISE
        weights = interior_weights(frame - job.first, job.last - job.first)
        own = evidence(first, second, weights=weights)
        total = own if total is None else gathered(
            own, sample(total, step["flow"]), ~step["hidden"], memory=MEMORY
        )
        scratch.put("backward", frame, flow=track.flow, odds=np.log(first / second),
                    own=own, total=total)
        for name, number in (("ahead", frame + 1), ("source", frame)):
            scratch.drop(name, number)


def _selection(
    job: SegmentJob, scratch: Scratch, check: Callable[[], None]
) -> Iterator[tuple[int, Sides]]:
    """What every frame is made from, in order: the evidence of the frames before joined in."""
    total: Map | None = None
    for frame in job.interior:
        check()
        forward, backward = scratch.get("forward", frame), scratch.get("backward", frame)
        step = scratch.get("behind", frame)
        total = backward["own"] if total is None else gathered(
            backward["own"], sample(total, step["flow"]), ~step["hidden"], memory=MEMORY
        )
        yield frame, Sides(
            forward["flow"], backward["flow"], backward["odds"],
            backward_share((total + backward["total"]) / 2, softness=SOFTNESS),
            interior_weights(frame - job.first, job.last - job.first),
        )
        for name in ("forward", "backward", "behind"):
            scratch.drop(name, frame)
