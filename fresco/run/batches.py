"""Stage 2: the keyframes, batch by batch, with anchors carried over.

A batch is done when its carry is on disk, which is written last. Running out of memory shrinks the
batch, with a warning, down to `SMALLEST`; the batches in force are on disk too, so that a resumed
run cuts them in the same places.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fresco.errors import HostError, OutOfMemoryError
from fresco.flow.interface import FlowEstimator
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.ports import BatchCarry, BatchRequest, BatchResult, Host
from fresco.planning.keyframes import Batch
from fresco.planning.prompts import compose_prompts
from fresco.progress import Progress, Stage
from fresco.run.clip import WorkingFrames
from fresco.run.guide import GuideMaker
from fresco.settings import FrescoSettings
from fresco.workspace import (
    frame_name,
    read_image,
    read_json,
    read_tensors,
    write_image,
    write_json,
    write_tensors,
)

_GROUP_NAME = "group.json"
"""File with the frames a group of `translate_unguided` has, where memory made it smaller."""
SMALLEST = 3
"""Frames of the smallest batch that still has company for every anchor."""

_ANCHORS = 2

log = logging.getLogger("fresco")


@dataclass(frozen=True, slots=True)
class KeyframeRun:
    """What all batches of a run share."""

    folder: Path
    """Where translated keyframes and carries lie."""
    frames: WorkingFrames
    """The source at working size."""
    settings: FrescoSettings
    """All options."""
    host: Host
    """The model."""
    estimator: FlowEstimator
    """Optical flow, cached."""
    progress: Progress
    """For the sampling of each batch."""

    def make_request(self, numbers: Sequence[int], carry: BatchCarry | None) -> BatchRequest:
        """The frames of a batch with their prompts."""
        sampling = self.settings.sampling
        negative = (sampling.negative_prompt,) * len(numbers)
        return BatchRequest(
            self.frames.pick(numbers), compose_prompts(numbers, sampling), negative, carry
        )

    def sample(self, request: BatchRequest, guide: FrescoGuide | None, name: str) -> BatchResult:
        """One sampling, its result checked."""
        sampling = self.settings.sampling
        calls = max(1, round(sampling.steps * sampling.strength))
        with self.progress.stage(name, calls) as stage:
            result = self.host.sample(request, guide, stage)
        if result.images.shape != request.frames.shape or result.images.dtype != np.uint8:
            raise HostError(
                f"{self.host.name} returned {result.images.dtype} {result.images.shape} for "
                f"frames of shape {request.frames.shape}; this is a fault of the host."
            )
        return result

    def read_finished(self, batch: Batch) -> BatchCarry | None:
        """The carry of a batch that is done already, its images checked."""
        tensors = read_tensors(self._carry_path(batch))
        if tensors is None:
            return None
        if any(read_image(self.folder / frame_name(number)) is None for number in batch.frames):
            return None
        return BatchCarry(tuple(tensors[name] for name in sorted(tensors)))

    def save(self, batch: Batch, result: BatchResult) -> None:
        """Save the new keyframes, then the carry that says the batch is done."""
        for number, image in zip(batch.all, result.images, strict=True):
            if number in batch.frames:
                write_image(self.folder / frame_name(number), image)
        latents = {f"{call:05d}": pair for call, pair in enumerate(result.carry.latents)}
        write_tensors(self._carry_path(batch), latents)

    def _carry_path(self, batch: Batch) -> Path:
        return self.folder / f"carry-{batch.frames[0]:06d}-{batch.frames[-1]:06d}.safetensors"


def _batches_path(run: KeyframeRun, planned: Sequence[Batch]) -> Path:
    return run.folder / f"batches-{planned[0].frames[0]:06d}.json"


def _read_batches(run: KeyframeRun, planned: Sequence[Batch]) -> list[Batch]:
    """The batches of an earlier, interrupted run if they cover the same keys; else the plan."""
    known = read_json(_batches_path(run, planned))
    if not isinstance(known, list):
        return list(planned)
    batches = [Batch(i, tuple(a), tuple(f)) for i, (a, f) in enumerate(known)]
    covered = [number for batch in batches for number in batch.frames]
    if covered != [number for batch in planned for number in batch.frames]:
        return list(planned)
    return batches


def shrink_batches(done: Sequence[Batch], failed: Sequence[Batch], size: int) -> list[Batch]:
    """Batches of at most `size` frames for the keys of those that failed, after those done."""
    keys = tuple(number for batch in failed for number in batch.frames)
    batches: list[Batch] = [] if done else [Batch(0, (), keys[:size])]
    keys = keys if done else keys[size:]
    before = [*done, *batches]
    new = size - _ANCHORS
    pieces = -(-len(keys) // new)
    bounds = [len(keys) * i // max(1, pieces) for i in range(pieces + 1)]
    first, last = before[0].frames[0], before[-1].frames[-1]
    for number, (start, end) in enumerate(itertools.pairwise(bounds), len(before)):
        batches.append(Batch(number, (first, last), keys[start:end]))
        last = keys[end - 1]
    return batches


def translate_shot(
    run: KeyframeRun, planned: Sequence[Batch], stage: Stage, *, wanted: int | None = None
) -> None:
    """Translate the keyframes of one shot, resuming where an earlier run stopped.

    Args:
        wanted: stop after the batch that holds this many keyframes; None: all.
    """
    batches = _read_batches(run, planned)
    position, carry, count = 0, None, 0
    while position < len(batches) and (wanted is None or count < wanted):
        batch = batches[position]
        known = run.read_finished(batch)
        found = known is not None
        if known is None:
            try:
                known = _translate_batch(run, batch, carry)
            except OutOfMemoryError as error:
                done, failed = batches[:position], batches[position:]
                batches = done + shrink_batches(done, failed, _shrink_size(len(batch.all), error))
                write_json(_batches_path(run, planned), [[b.anchors, b.frames] for b in batches])
                continue
        carry = known
        position += 1
        count += len(batch.frames)
        stage.advance(len(batch.frames), found=found)


def _shrink_size(size: int, error: OutOfMemoryError) -> int:
    if size <= SMALLEST:
        raise HostError(
            f"The device ran out of memory with a batch of {size} frames, the smallest there is. "
            "Lower sampling.resolution, or switch off guidance.spatial_optimization and "
            "guidance.temporal_optimization."
        ) from error
    smaller = max(SMALLEST, size * 3 // 4)
    log.warning(
        "Out of memory with a batch of %d frames; going on with batches of %d. The look may "
        "vary more from batch to batch; keyframes.batch_size %d avoids the failed try.",
        size, smaller, smaller,
    )
    return smaller


def _translate_batch(run: KeyframeRun, batch: Batch, carry: BatchCarry | None) -> BatchCarry:
    request = run.make_request(batch.all, carry)
    guide = GuideMaker(
        run.settings, run.estimator, run.host.device, run.host.model_sigmas
    ).guide(request.frames, run.host.unet)
    result = run.sample(request, guide, f"batch {batch.number + 1}")
    run.save(batch, result)
    return result.carry


def translate_unguided(run: KeyframeRun, numbers: Sequence[int], stage: Stage) -> None:
    """Translate frames with every part of FRESCO off: same model, noise and steps, no guide.

    The groups are fixed, since a frame's noise depends on its place in one, and their size is on
    disk where memory made it smaller: a resumed run gives the same images.
    """
    place, start = run.folder / _GROUP_NAME, 0
    known = read_json(place)
    size = known if isinstance(known, int) else run.settings.keyframes.batch_size
    while start < len(numbers):
        group = numbers[start:start + size]
        found = all(read_image(run.folder / frame_name(number)) is not None for number in group)
        if not found:
            try:
                _translate_group(run, group)
            except OutOfMemoryError:
                if size == 1:
                    raise
                size = size * 3 // 4
                log.warning("Out of memory; going on with %d frames at a time.", size)
                write_json(place, size)
                continue
        start += len(group)
        stage.advance(len(group), found=found)


def _translate_group(run: KeyframeRun, group: Sequence[int]) -> None:
    name = f"frames {group[0]} to {group[-1]}"
    result = run.sample(run.make_request(group, None), None, name)
    for number, image in zip(group, result.images, strict=True):
        write_image(run.folder / frame_name(number), image)
