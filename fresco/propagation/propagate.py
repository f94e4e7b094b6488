"""Carry two keyframes to the frames between them.

This takes four passes over a segment:

1. Find the flow between neighbouring frames.
2. Carry both keyframes, at the same time if there are threads.
3. Backward: gather, from the frames that follow, the evidence for either side.
4. Forward: add the evidence of the frames before, select, blend, and write.

Only a few frames are in memory at a time. The rest is in the segment's scratch folder, where an
interrupted run finds it again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fresco.blending.selection import (
    choose_sides,
    compare_sides,
    gather_evidence,
    share_backward,
    weigh_evidence,
    weigh_sides,
)
from fresco.errors import PropagationError
from fresco.flow.arrays import Flow, Map, Mask, remap
from fresco.flow.interface import FrameEstimator
from fresco.flow.motion import estimate_motion
from fresco.memory import trim_memory
from fresco.progress import never_stop
from fresco.propagation.ahead import map_in_order, run_side_by_side
from fresco.propagation.carriers import Carrier, CarryStep, carry_all
from fresco.propagation.draft_fill import draft_segment
from fresco.propagation.engine import DraftEngine, Engine
from fresco.propagation.grid import shrink_motion
from fresco.propagation.judgement import (
    FrameJudgement,
    judge_frame,
    name_judgements,
    write_judgements,
    write_share,
)
from fresco.propagation.motion import (
    find_pair,
    give_pair,
    has_pair,
    store_pair,
    take_pair,
)
from fresco.propagation.render import Sides, render
from fresco.propagation.scratch import Scratch
from fresco.propagation.segment import Image, SegmentJob
from fresco.workspace import write_image

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

NOISE = 4.0
"""Squared grey levels of noise: where both errors are below it, the nearer keyframe is taken."""
MEMORY = 0.6
"""Share of the neighbouring frame's evidence; half of it is gone after 1.4 frames."""
SOFTNESS = 9
"""Side in pixels of the neighbourhood whose errors are weighed together."""
STEADINESS = 0.3
"""Evidence added for the side that the frame before took, along the motion."""
TAKEN = 0.25
"""Additional weight of the selected side in the mean of both, which is weighted by their errors."""
_DIRECTIONS = ("forward", "backward")
"""Names under which the carried arrays are kept."""


def propagate_segment(
    job: SegmentJob, estimator: FlowEstimator, check: Callable[[], None] = never_stop
) -> int:
    """Write every missing frame between two keyframes, and return how many were written.

    Args:
        check: called for every frame in every pass, and while waiting for one; raises to stop.
    """
    missing = job.find_missing()
    if not missing:
        return 0
    engine = job.engine
    if isinstance(engine, DraftEngine):
        return draft_segment(job, check)
    images = job.read_keys()
    with Scratch(job.scratch, job.cache_key(estimator.fingerprint)) as scratch:
        frames = _store_source(job, engine, estimator, scratch, check)
        # Two programs with one thread each are faster than one program with two.
        engine = engine.with_threads(max(1, job.threads // 2))

        def carry(image: Image, frame: Image, check: Callable[[], None], *, backward: bool
                  ) -> Carrier:
            key = job.last if backward else job.first
            with engine.open_carrier(image, frame, estimator, check, key) as carrier:
                numbers = job.interior[::-1] if backward else job.interior
                steps = _walk_segment(numbers, scratch, backward=backward)
                for _ in carry_all(carrier, _DIRECTIONS[backward], steps, numbers, scratch):
                    check()
            return carrier

        carriers = run_side_by_side(
            [functools.partial(carry, images[back], frames[back], backward=back)
             for back in (False, True)], check, job.threads,
        )
        _gather_evidence(job, scratch, check)
        trim_memory()
        _write_frames(job, missing, carriers, scratch, check, seam=engine.seam)
    trim_memory()
    return len(missing)


def _write_frames(
    job: SegmentJob, missing: Sequence[int], carriers: Sequence[Carrier], scratch: Scratch,
    check: Callable[[], None], *, seam: float,
) -> None:
    """Select, blend and write the missing frames of a segment, and what is known of all."""
    judged: dict[int, FrameJudgement] = {}
    chosen = _select_sides(job, missing, carriers, scratch, check, judged, seam=seam)
    held: list[Image] = []

    def write(found: tuple[int, Sides]) -> None:
        image = render(found[1], job.blend)
        if found[0] == missing[-1]:
            held.append(image)
        else:
            write_image(job.path(found[0]), image)

    for _ in map_in_order(write, chosen, job.threads):
        pass
    # The last frame shows that the segment is done, so it is written after all judgements.
    write_judgements(name_judgements(job.folder, job.first, job.last), judged)
    for image in held:
        write_image(job.path(missing[-1]), image)


def _store_source(
    job: SegmentJob, engine: Engine, estimator: FlowEstimator, scratch: Scratch,
    check: Callable[[], None],
) -> tuple[Image, Image]:
    """Store the source's frames and the flow between them; return the frames of both keyframes."""
    before: Image | None = None
    first: Image | None = None

    def read_pairs() -> Iterator[tuple[int, Image, Image]]:
        nonlocal before, first
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
            yield frame, before, image
            before = image

    def store(pair: tuple[int, Image, Image]) -> None:
        frame, earlier, image = pair
        scratch.put("source", frame, image=image)
        if not has_pair(scratch, frame):
            _store_motion(job, engine, frame, (earlier, image), estimator, scratch)

    # A network needs much memory, and its rounding depends on its number of threads.
    threads = job.threads if isinstance(estimator, FrameEstimator) else 1
    for _ in map_in_order(store, read_pairs(), threads):
        pass
    assert first is not None
    assert before is not None
    return first, before


def _store_motion(
    job: SegmentJob, engine: Engine, frame: int, images: tuple[Image, Image],
    estimator: FlowEstimator, scratch: Scratch,
) -> None:
    """Store the motion from the frame before, and share it if others want it."""
    size = images[0].shape[0], images[0].shape[1]
    grid = engine.choose_grid(size)
    if job.motion is None or grid != size:
        pair = find_pair(job.motion, frame, *images, estimator)
        store_pair(scratch, frame, shrink_motion(pair, grid))
    elif not take_pair(scratch, frame, job.motion):
        store_pair(scratch, frame, estimate_motion(*images, estimator))
        give_pair(scratch, frame, job.motion)


def _walk_segment(
    frames: Sequence[int], scratch: Scratch, *, backward: bool
) -> Iterator[CarryStep]:
    """Yield the frames in the direction of carrying."""
    for frame in frames:
        flow, hidden = _read_move(frame, scratch, backward=backward)
        yield CarryStep(frame, scratch.get("source", frame)["image"], flow, hidden)


def _read_move(frame: int, scratch: Scratch, *, backward: bool) -> tuple[Flow, Mask]:
    """Read the flow to the frame before, in the direction of carrying, and what that one hides."""
    move = scratch.get("ahead", frame + 1) if backward else scratch.get("behind", frame)
    return move["flow"], move["hidden"]


def _gather_evidence(job: SegmentJob, scratch: Scratch, check: Callable[[], None]) -> None:
    """Compute the evidence for either side of each frame, gathered from the frames after it."""
    total: Map | None = None
    for frame in job.interior[::-1]:
        check()
        first, second = (scratch.get(name, frame, "cost")["cost"] + NOISE for name in _DIRECTIONS)
        own = weigh_evidence(first, second, weights=_weigh(job, frame))
        if total is None:
            total = own
        else:
            flow, hidden = _read_move(frame, scratch, backward=True)
            total = gather_evidence(own, _move(total, flow), ~hidden, memory=MEMORY)
        scratch.put("evidence", frame, own=own, total=total)


def _move(values: Map, flow: Flow) -> Map:
    """Move a smooth map: its values at p + flow(p)."""
    return remap(values, flow, interpolation=cv2.INTER_NEAREST)


def _weigh(job: SegmentJob, frame: int) -> tuple[float, float]:
    return weigh_sides(frame - job.first, job.last - job.first)


def _select_sides(
    job: SegmentJob, wanted: Sequence[int], carriers: Sequence[Carrier], scratch: Scratch,
    check: Callable[[], None], judged: dict[int, FrameJudgement], *, seam: float
) -> Iterator[tuple[int, Sides]]:
    """Yield what every wanted frame is made from, in order, with the evidence of earlier frames.

    Args:
        judged: receives the judgement of every frame.
    """
    total: Map | None = None
    chosen: Map | None = None
    for frame in job.interior:
        check()
        known = scratch.get("evidence", frame)
        flow, hidden = _read_move(frame, scratch, backward=False)
        total = known["own"] if total is None else gather_evidence(
            known["own"], _move(total, flow), ~hidden, memory=MEMORY
        )
        forward, backward = (
            carrier.image(scratch.get(name, frame, carrier.shown))
            for name, carrier in zip(_DIRECTIONS, carriers, strict=True)
        )
        evidence = (total + known["total"]) / 2
        share = share_backward(evidence, softness=SOFTNESS)
        if chosen is not None:
            before = STEADINESS * (2 * _move(chosen, flow) - 1)
            evidence += np.where(hidden, np.float32(0), before)
        difference = compare_sides(forward, backward)
        chosen = choose_sides(evidence, difference, seam=seam)
        first, second = (scratch.get(name, frame, "cost")["cost"] for name in _DIRECTIONS)
        judged[frame] = judge_frame((first, second), hidden, chosen, difference)
        write_share(job.folder, frame, chosen)
        if frame in wanted:
            share += np.float32(TAKEN) * (chosen - share)
            yield frame, Sides(forward, backward, chosen, share)
