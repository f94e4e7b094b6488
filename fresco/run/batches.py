"""Stage 2: translate the keyframes batch by batch, with anchors carried from batch to batch.

A batch is done when its carry, which is written last, is on disk. If memory runs out, the batches
become smaller, with a warning, down to `SMALLEST` frames. The batches that are used are stored on
disk, too, so that a resumed run uses the same ones.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fresco.errors import HostError, OutOfMemoryError
from fresco.flow.interface import FlowEstimator
from fresco.guidance.ports import BatchCarry, BatchRequest, BatchResult, Host
from fresco.memory import memory_errors, release_memory
from fresco.planning.keyframes import Batch
from fresco.planning.prompts import choose_negatives, compose_prompts
from fresco.planning.ranges import cut_at_ranges, find_range
from fresco.progress import Progress, Stage
from fresco.run.clip import WorkingFrames
from fresco.run.hints import HintSource
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

if TYPE_CHECKING:
    from fresco.guidance.guide import FrescoGuide

_GROUPS_NAME = "groups.json"
"""File with the sizes of the groups of `translate_unguided`, if memory made some smaller."""
SMALLEST = 3
"""Frames in the smallest batch: two anchors and one new keyframe."""

_ANCHORS = 2

log = logging.getLogger("fresco")


@dataclass(frozen=True, slots=True)
class KeyframeRun:
    """What all batches of a run share."""

    folder: Path
    """Folder of the translated keyframes and the carries."""
    frames: WorkingFrames
    """The source at working size."""
    settings: FrescoSettings
    """All options."""
    host: Host
    """The model."""
    estimator: FlowEstimator
    """Estimates optical flow, with a cache."""
    progress: Progress
    """Receives the progress of each sampling."""
    hints: tuple[HintSource | None, ...] = ()
    """Hints of each ControlNet unit, if they were made elsewhere."""

    def make_request(
        self, numbers: Sequence[int], carry: BatchCarry | None, *, of: int | None = None,
        seed: int | None = None,
    ) -> BatchRequest:
        """Make the request for a batch: its frames with their prompts.

        Args:
            of: frame whose range gives strength and seed; None: the last one.
            seed: used instead of that seed.
        """
        sampling = self.settings.sampling
        found = find_range(sampling, numbers[-1] if of is None else of)
        if seed is None and found:
            seed = found.seed
        return BatchRequest(
            self.frames.pick(numbers), compose_prompts(numbers, sampling),
            choose_negatives(numbers, sampling), carry, found.strength if found else None, seed,
            hints=tuple(
                hints and hints.read(numbers, self.frames.size) for hints in self.hints
            ),
        )

    def sample(self, request: BatchRequest, guide: FrescoGuide | None, name: str) -> BatchResult:
        """Sample once, and check the result."""
        with self.progress.stage(name) as stage:
            result = self.host.sample(request, guide, stage)
        if result.images.shape != request.frames.shape or result.images.dtype != np.uint8:
            raise HostError(
                f"{self.host.name} returned {result.images.dtype} {result.images.shape} for "
                f"frames of shape {request.frames.shape}; this is a fault of the host."
            )
        return result

    def read_finished(self, batch: Batch) -> BatchCarry | None:
        """Read the carry of a finished batch and check its images; None if it is not finished."""
        tensors = read_tensors(self.carry_path(batch))
        if tensors is None:
            return None
        width, height = self.frames.size
        for number in batch.frames:
            image = read_image(self.folder / frame_name(number))
            if image is None or image.shape != (height, width, 3):
                return None
        return BatchCarry(tuple(tensors[name] for name in sorted(tensors)))

    def has_first(self, groups: Iterable[Sequence[Batch]], wanted: int) -> bool:
        """Whether the batches that hold the first `wanted` keyframes are done."""
        batches = (batch for group in groups for batch in read_batches(self, group))
        for batch in batches:
            if wanted <= 0:
                break
            if self.read_finished(batch) is None:
                return False
            wanted -= len(batch.frames)
        return True

    def sample_guided(
        self, numbers: Sequence[int], carry: BatchCarry | None, name: str, *,
        of: int | None = None, seed: int | None = None,
    ) -> BatchResult:
        """Sample once with guidance, see `make_request`.

        Raises OutOfMemoryError, also if the guide runs out of memory.
        """
        # Imported here, because runs that only propagate do not need torch.
        from fresco.run.guide import GuideMaker

        with memory_errors(f"with a batch of {len(numbers)} frames"):
            request = self.make_request(numbers, carry, of=of, seed=seed)
            guide = GuideMaker(
                self.settings, self.estimator, self.host.device, self.host.model_sigmas
            ).guide(
                request.frames, self.host.unet,
                finished=self._read_finished_anchors(numbers) if carry is not None else None,
                prompts=request.prompts,
            )
            return self.sample(request, guide, name)

    def _read_finished_anchors(self, numbers: Sequence[int]) -> NDArray[np.uint8] | None:
        """[2, H, W, 3], the keyframes of the batch before, if the guide needs them; else None."""
        if not self.settings.guidance.consensus:
            return None
        images = [read_image(self.folder / frame_name(n)) for n in numbers[:_ANCHORS]]
        return np.stack([image for image in images if image is not None])

    def save(self, batch: Batch, result: BatchResult) -> None:
        """Save the new keyframes, then the carry, which marks the batch as done."""
        for number, image in zip(batch.all, result.images, strict=True):
            if number in batch.frames:
                write_image(self.folder / frame_name(number), image)
        latents = {f"{call:05d}": pair for call, pair in enumerate(result.carry.latents)}
        write_tensors(self.carry_path(batch), latents)

    def carry_path(self, batch: Batch) -> Path:
        """Path of a batch's carry; if the file exists, the batch is done."""
        return self.folder / f"carry-{batch.frames[0]:06d}-{batch.frames[-1]:06d}.safetensors"


def batches_path(run: KeyframeRun, planned: Sequence[Batch]) -> Path:
    """Path of the file with the batches of a group that are used, if memory made some smaller."""
    return run.folder / f"batches-{planned[0].frames[0]:06d}.json"


def read_batches(run: KeyframeRun, planned: Sequence[Batch]) -> list[Batch]:
    """Read the batches of an interrupted run if they cover the same keyframes; else the planned."""
    known = read_json(batches_path(run, planned))
    if not isinstance(known, list):
        return list(planned)
    try:
        batches = [Batch(i, tuple(a), tuple(f)) for i, (a, f) in enumerate(known)]
        frames = {number for batch in planned for number in batch.all}
        if not all(batch.frames and frames.issuperset(batch.all) for batch in batches):
            return list(planned)
    except (TypeError, ValueError):
        return list(planned)
    covered = [number for batch in batches for number in batch.frames]
    if covered != [number for batch in planned for number in batch.frames]:
        return list(planned)
    return batches


def shrink_batches(done: Sequence[Batch], failed: Sequence[Batch], size: int) -> list[Batch]:
    """Plan batches of at most `size` frames for the keyframes of failed batches, after those done.
    """
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


def translate_group(
    run: KeyframeRun, planned: Sequence[Batch], stage: Stage, *, wanted: int | None = None
) -> None:
    """Translate the keyframes of one group of batches, resuming where an earlier run stopped.

    Args:
        wanted: stop after the batch that holds this many keyframes; None: all.
    """
    batches = read_batches(run, planned)
    position, carry, count, size = 0, None, 0, 0
    while position < len(batches) and (wanted is None or count < wanted):
        batch = batches[position]
        known = run.read_finished(batch)
        found = known is not None
        if known is None:
            try:
                known = _translate_batch(run, batch, carry)
            except OutOfMemoryError as error:
                size = _shrink_size(len(batch.all), error)
            if known is None:
                release_memory()  # only now: the error kept references to what had been allocated
                done, failed = batches[:position], batches[position:]
                batches = done + shrink_batches(done, failed, size)
                write_json(batches_path(run, planned), [[b.anchors, b.frames] for b in batches])
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
        "Out of memory with a batch of %d frames; continuing with batches of %d. The look may "
        "vary more from batch to batch; keyframes.batch_size %d avoids the failed try.",
        size, smaller, smaller,
    )
    return smaller


def _translate_batch(run: KeyframeRun, batch: Batch, carry: BatchCarry | None) -> BatchCarry:
    result = run.sample_guided(batch.all, carry, f"batch {batch.number + 1}")
    run.save(batch, result)
    return result.carry


def translate_unguided(run: KeyframeRun, numbers: Sequence[int], stage: Stage) -> None:
    """Translate frames with every part of FRESCO off: same model, noise and steps, no guide.

    The noise of a frame depends on its place in its group. So the groups are fixed. If memory made
    some smaller, all are stored on disk, so that a resumed run gives the same images.
    """
    place = run.folder / _GROUPS_NAME
    sizes = _read_sizes(place, len(numbers))
    if sizes is None:
        sizes = _cut_evenly(run, numbers, run.settings.keyframes.batch_size)
    position = start = 0
    while position < len(sizes):
        size = sizes[position]
        group = numbers[start:start + size]
        found = all(read_image(run.folder / frame_name(number)) is not None for number in group)
        if not found and not _fits(run, group):
            release_memory()
            smaller = size * 3 // 4
            log.warning("Out of memory; continuing with %d frames at a time.", smaller)
            sizes = sizes[:position] + _cut_evenly(run, numbers[start:], smaller)
            write_json(place, sizes)
            continue
        position, start = position + 1, start + size
        stage.advance(size, found=found)


def _cut_evenly(run: KeyframeRun, numbers: Sequence[int], size: int) -> list[int]:
    """Sizes of groups of `size` frames each; the last group of a range may be smaller."""
    return [
        min(size, len(part) - start)
        for part in cut_at_ranges(numbers, run.settings.sampling)
        for start in range(0, len(part), size)
    ]


def _read_sizes(place: Path, count: int) -> list[int] | None:
    """Read the group sizes of an interrupted run, if they add up to `count` frames."""
    known = read_json(place)
    if not isinstance(known, list):
        return None
    sizes = [size for size in known if type(size) is int and size > 0]
    return sizes if sizes == known and sum(sizes) == count else None


def _fits(run: KeyframeRun, group: Sequence[int]) -> bool:
    """Translate a group; False if memory ran out and fewer frames may fit."""
    name = f"frames {group[0]} to {group[-1]}"
    try:
        with memory_errors(f"with {len(group)} frames at a time"):
            result = run.sample(run.make_request(group, None), None, name)
    except OutOfMemoryError:
        if len(group) == 1:
            raise
        return False
    for number, image in zip(group, result.images, strict=True):
        write_image(run.folder / frame_name(number), image)
    return True
