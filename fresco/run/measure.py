"""Stage 5: measure the result, and write the measures as JSON beside it.

For comparison, the source and its VAE round trip are measured, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.errors import OutOfMemoryError, PropagationError
from fresco.flow.interface import FlowEstimator
from fresco.memory import memory_errors, release_memory
from fresco.metrics import DEFINITIONS, Metrics
from fresco.planning.keyframes import KeyframePlan
from fresco.progress import Progress
from fresco.propagation.motion import read_pair
from fresco.run.clip import Clip
from fresco.run.result import ImageLookup
from fresco.workspace import write_json
from fresco.writing import follow_link

_ROUND_TRIP_CHUNK = 4
"""Number of frames that go through the VAE together."""

Reconstruct = Callable[["NDArray[np.uint8]"], "NDArray[np.uint8]"]


def _collect_images(
    results: Mapping[str, ImageLookup], number: int
) -> dict[str, NDArray[np.uint8]]:
    """Read the image of one frame from every result; PropagationError if one is missing."""
    images: dict[str, NDArray[np.uint8]] = {}
    for name, find_image in results.items():
        image = find_image(number)
        if image is None:
            raise PropagationError(
                f"The image of frame {number} is missing or damaged. Start the same command again."
            )
        images[name] = image
    return images


def _stack_chunks(frames: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    chunk: list[NDArray[np.uint8]] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == size:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def _fit(reconstruct: Reconstruct, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode and decode frames; if memory runs out, in halves."""
    try:
        with memory_errors(f"with {len(frames)} frames in the autoencoder"):
            return reconstruct(frames)
    except OutOfMemoryError:
        if len(frames) == 1:
            raise
    release_memory()
    half = len(frames) // 2
    return np.concatenate([_fit(reconstruct, part) for part in (frames[:half], frames[half:])])


def find_borders(clip: Clip, plans: Sequence[KeyframePlan]) -> frozenset[int]:
    """Positions t in the clip at which the pair (t - 1, t) is between two batches of keyframes."""
    crossing: set[int] = set()
    for plan in plans:
        for before, after in (pair for group in plan.groups for pair in pairwise(group)):
            crossing.update(range(before.frames[-1] + 1, after.frames[0] + 1))
    return frozenset(number - clip.first for number in crossing)


def measure_frames(
    clip: Clip, plans: Sequence[KeyframePlan], results: Mapping[str, ImageLookup],
    reconstruct: Reconstruct, estimator: FlowEstimator, progress: Progress,
    *, motion: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure every frame at working size: of the results, the source, and the VAE round trip.

    Args:
        motion: folder of the motion between neighbouring frames that is already known.
    """
    names = [*results, "source", "vae"]
    measures = Metrics(estimator, names, borders=find_borders(clip, plans))
    starts = {plan.keyframes[0] for plan in plans}
    numbers = iter(clip.numbers)
    with progress.stage("measure", clip.count) as stage:
        for sources in _stack_chunks(clip.frames(clip.first, clip.last), _ROUND_TRIP_CHUNK):
            for source, rebuilt in zip(sources, _fit(reconstruct, sources), strict=True):
                number = next(numbers)
                frames = _collect_images(results, number)
                frames |= {"source": source, "vae": rebuilt}
                known = read_pair(motion, number) if motion else None
                measures.update(source, frames, starts_shot=number in starts, motion=known)
                stage.advance()
    return measures.report()


def measure_keyframes(
    clip: Clip, plans: Sequence[KeyframePlan], results: Mapping[str, ImageLookup],
    estimator: FlowEstimator, progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Measure the keyframes in the same way, which shows the guidance without propagation."""
    firsts = {
        batch.frames[0] for plan in plans for group in plan.groups for batch in group[1:]
    }
    numbers = [n for plan in plans for n in plan.keyframes if n in clip.numbers]
    borders = [position for position, number in enumerate(numbers) if number in firsts]
    starts = {plan.keyframes[0] for plan in plans}
    measures = Metrics(estimator, list(results), borders=borders)
    with progress.stage("measure keyframes", len(numbers)) as stage:
        for number in numbers:
            source = clip.frames.pick([number])[0]
            frames = _collect_images(results, number)
            measures.update(source, frames, starts_shot=number in starts)
            stage.advance()
    return measures.report()


def write_report(path: Path, facts: Mapping[str, Any], measured: Mapping[str, Any]) -> Path:
    """Write the measures, with what they mean and what was measured."""
    write_json(follow_link(path), {**facts, "measures": measured, "definitions": dict(DEFINITIONS)})
    return path
