"""Carry two keyframes to the frames between them.

Three passes over a segment. Forward: flow of neighbours, the first key carried. Backward: the last
key carried, and the evidence for either side gathered from the frames to come. Forward again: the
evidence of the frames before, selection, blending, writing. Only a few frames are in memory at a
time; the rest lies in the segment's scratch folder, where an interrupted run finds it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fresco.blending.selection import (
    gather_evidence,
    share_backward,
    weigh_evidence,
    weigh_sides,
)
from fresco.errors import PropagationError
from fresco.flow.arrays import Map, remap
from fresco.flow.motion import estimate_motion
from fresco.progress import never_stop
from fresco.propagation.carriers import Carrier, CarryStep, carry_all
from fresco.propagation.draft_fill import draft_segment
from fresco.propagation.engine import DraftEngine
from fresco.propagation.motion import give_pair, has_pair, store_pair, take_pair
from fresco.propagation.render import Sides, render
from fresco.propagation.scratch import Scratch
from fresco.propagation.segment import Image, SegmentJob
from fresco.workspace import write_image

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

NOISE = 4.0
"""Grey levels squared that two equal pixels differ by: below it the nearer key decides."""
MEMORY = 0.6
"""Share of the neighbouring frame's evidence; half of it is forgotten after 1.4 frames."""
SOFTNESS = 9
"""Side in pixels of the neighbourhood that chooses its side together."""


def propagate_segment(
    job: SegmentJob, estimator: FlowEstimator, check: Callable[[], None] = never_stop
) -> int:
    """Write every missing frame between two keys; the number of frames written.

    Args:
        check: called once a frame and pass, and while a frame is waited for; raises to stop.
    """
    missing = job.find_missing()
    if not missing:
        return 0
    engine = job.engine
    if isinstance(engine, DraftEngine):
        return draft_segment(job, check)
    images = job.read_keys()
    with Scratch(job.scratch, job.cache_key(estimator.fingerprint)) as scratch:
        first, last = _store_source(job, estimator, scratch, check)
        with engine.open_carrier(images[0], first, estimator, check) as forward:
            for _ in carry_all(forward, "forward", _walk_segment(job, scratch, check), job.interior,
                              scratch):
                pass
        with engine.open_carrier(images[1], last, estimator, check) as backward:
            _gather_backward(job, backward, scratch, check)
        for frame, sides in _select_sides(job, (forward, backward), scratch, check):
            if frame in missing:
                write_image(job.path(frame), render(sides, job.blend))
    return len(missing)


def _store_source(
    job: SegmentJob, estimator: FlowEstimator, scratch: Scratch, check: Callable[[], None]
) -> tuple[Image, Image]:
    """Keep the source's frames and the flow between neighbours. Returns the keys' frames."""
    before: Image | None = None
    first: Image | None = None
    for frame, image in job.read_source():
        check()
        if before is None or first is None:
            first = before = image
            continue
        if image.shape != first.shape:
            raise PropagationError(
                f"Frame {frame} is {image.shape[1]}x{image.shape[0]}, frame {job.first} "
                f"{first.shape[1]}x{first.shape[0]}; give frames of one size."
            )
        scratch.put("source", frame, image=image)
        if not has_pair(scratch, frame) and not (
            job.motion and take_pair(scratch, frame, job.motion)
        ):
            store_pair(scratch, frame, estimate_motion(before, image, estimator))
        if job.motion:
            give_pair(scratch, frame, job.motion)
        before = image
    assert first is not None
    assert before is not None
    return first, before


def _walk_segment(
    job: SegmentJob, scratch: Scratch, check: Callable[[], None], *, backward: bool = False
) -> Iterator[CarryStep]:
    """All frames between the keys, in the direction of carrying."""
    for frame in reversed(job.interior) if backward else job.interior:
        check()
        move = scratch.get("ahead", frame + 1) if backward else scratch.get("behind", frame)
        yield CarryStep(frame, scratch.get("source", frame)["image"], move["flow"], move["hidden"])


def _gather_backward(
    job: SegmentJob, carrier: Carrier, scratch: Scratch, check: Callable[[], None]
) -> None:
    """Carry the last key, and gather the evidence from the frames to come."""
    total: Map | None = None
    steps = _walk_segment(job, scratch, check, backward=True)
    for step, kept in carry_all(carrier, "backward", steps, job.interior[::-1], scratch):
        first = scratch.get("forward", step.frame)["cost"] + NOISE
        second = kept["cost"] + NOISE
        weights = weigh_sides(step.frame - job.first, job.last - job.first)
        own = weigh_evidence(first, second, weights=weights)
        total = own if total is None else gather_evidence(
            own, remap(total, step.flow), ~step.hidden, memory=MEMORY
        )
        scratch.put("evidence", step.frame, odds=np.log(first / second), own=own, total=total)


def _select_sides(
    job: SegmentJob, carriers: tuple[Carrier, Carrier], scratch: Scratch, check: Callable[[], None]
) -> Iterator[tuple[int, Sides]]:
    """What every frame is made from, in order: the evidence of the frames before joined in."""
    total: Map | None = None
    for step in _walk_segment(job, scratch, check):
        known = scratch.get("evidence", step.frame)
        total = known["own"] if total is None else gather_evidence(
            known["own"], remap(total, step.flow), ~step.hidden, memory=MEMORY
        )
        yield step.frame, Sides(
            carriers[0].image(scratch.get("forward", step.frame)),
            carriers[1].image(scratch.get("backward", step.frame)),
            known["odds"],
            share_backward((total + known["total"]) / 2, softness=SOFTNESS,
                           ramp=job.engine.ramp),
            weigh_sides(step.frame - job.first, job.last - job.first),
        )
