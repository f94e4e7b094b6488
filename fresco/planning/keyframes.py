"""Change scores -> keyframes -> batches -> segments. Pure: frames come in, numbers go out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.planning.parsing import parse_keys
from fresco.planning.shots import Shot
from fresco.settings import KeyframeSettings

SCORE_SIDE = 512
"""Short side at which change is measured, whatever the working size: scores then compare."""
SIDE_MULTIPLE = 64
"""Both sides are rounded to it (half to even), as the working size is."""
BLUR = (9, 9)
"""Gaussian window that keeps noise and grain out of the change; OpenCV's sigma for it is 1.7."""
TAIL = 3
"""Fewest new keyframes of a last batch; it takes the missing ones from the batch before."""
FIRST_BATCH = 3
"""Frames the first batch keeps at least: guidance compares frames, two are hardly a batch."""
ANCHORS = 2
"""Frames that a later batch shares with earlier ones."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Keyframes translated together."""

    number: int
    """Position among the batches of its group, from 0."""
    anchors: tuple[int, ...]
    """Frames translated before: the very first keyframe and the last one of the batch before."""
    frames: tuple[int, ...]
    """New keyframes; only these are saved."""

    @property
    def all(self) -> tuple[int, ...]:
        """Every frame of the batch, anchors first."""
        return self.anchors + self.frames


@dataclass(frozen=True, slots=True)
class Segment:
    """Two neighbouring keyframes and the frames between them."""

    first: int
    """Keyframe it starts with."""
    last: int
    """Keyframe it ends with."""


@dataclass(frozen=True, slots=True)
class KeyframePlan:
    """What is translated and what is propagated in one shot."""

    keyframes: tuple[int, ...]
    """Frame numbers, rising; the first and last frame of the shot are among them."""
    batches: tuple[Batch, ...]
    """Every keyframe is new in exactly one of them."""
    segments: tuple[Segment, ...]
    """One between every two neighbouring keyframes; none in a shot of one frame."""

    @property
    def groups(self) -> tuple[tuple[Batch, ...], ...]:
        """The batches that follow from one another: a batch without anchors begins a group."""
        starts = [place for place, batch in enumerate(self.batches) if not batch.anchors]
        ends = [*starts[1:], len(self.batches)]
        return tuple(self.batches[a:b] for a, b in zip(starts, ends, strict=True))


class ChangeScore:
    """Change from each frame to the next, one frame in memory."""

    def __init__(self) -> None:
        self._before: NDArray[np.float64] | None = None

    def update(self, rgb: NDArray[np.uint8]) -> float:
        """Mean squared difference to the frame before, range [-1, 1]; 0 for the first.

        Args:
            rgb: [H, W, 3] uint8; all frames of one size.
        """
        blurred = cv2.GaussianBlur(_resize_for_score(rgb), BLUR, 0) / 127.5 - 1.0
        before, self._before = self._before, blurred
        return 0.0 if before is None else float(np.mean(np.square(blurred - before)))


def _resize_for_score(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    scale = SCORE_SIDE / min(height, width)
    # A side is never rounded to nothing: the short one is 512, the long one longer.
    size = [int(np.round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in (width, height)]
    method = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(rgb, size, interpolation=method), np.uint8)


def select_keyframes(
    scores: Sequence[float], min_interval: int, max_interval: int
) -> tuple[int, ...]:
    """Keyframes of one shot from its change scores.

    First and last frame are always keyframes and no gap is above `max_interval`. In between, the
    frame of largest change becomes a keyframe as long as any gap is too large and frames remain
    that are `min_interval` away from the others; gaps that are too large even then get the fewest
    further keyframes. Equal intervals give every `max_interval`-th frame.

    Args:
        scores: change from the frame before, one a frame; the first is not looked at.
        min_interval: frames; 0 is as good as 1. Yields to `max_interval` where both cannot hold.
        max_interval: frames, at least 1.
    """
    count = len(scores)
    if count == 0:
        return ()
    if min_interval == max_interval:
        return tuple(sorted({*range(0, count, max_interval), count - 1}))
    change = np.asarray(scores, np.float64)
    keys = _pick_largest_changes(change, max(1, min_interval), max_interval)
    return _close_gaps(keys, change, min_interval, max_interval)


def _pick_largest_changes(change: NDArray[np.float64], low: int, high: int) -> list[int]:
    """The global choice: the largest change left, until no gap is above `high`."""
    last = len(change) - 1
    left = change.copy()
    left[:low] = left[len(left) - min(low, len(left)):] = 0.0
    keys = sorted({0, last})
    # A change of zero does not count: a still shot is left to the even split of `_close_gaps`.
    while max(np.diff(keys), default=0) > high and left.max() > 0:
        key = int(np.argmax(left))
        left[max(0, key - low):key + low] = 0.0
        keys = sorted({*keys, key})
    return keys


def _close_gaps(
    keys: Sequence[int], change: NDArray[np.float64], low: int, high: int
) -> tuple[int, ...]:
    """Add the fewest keyframes that bring every gap to `high` or less."""
    result = [keys[0]]
    for end in keys[1:]:
        while end - result[-1] > high:
            result.append(_cut(change, (result[-1], end), low, high))
        result.append(end)
    return tuple(result)


def _cut(change: NDArray[np.float64], gap: tuple[int, int], low: int, high: int) -> int:
    """The frame of largest change that leaves the least number of further cuts after it."""
    start, end = gap
    parts = -(-(end - start) // high)
    even = (end - start) // parts
    # Both sides of the cut keep their distance as far as the gap allows, and what is left behind
    # it fits one part less; the even cut always does.
    first = start + max(1, min(low, even), end - start - (parts - 1) * high)
    last = min(start + high, end - max(1, min(low, even)))
    window = change[first:last + 1]
    best = np.flatnonzero(window == window.max()) + first
    return int(best[np.argmin(np.abs(best - (start + even)))])


def plan_batches(keys: Sequence[int], size: int) -> tuple[Batch, ...]:
    """Batches of the keyframes of one shot, anchors carried over.

    The first batch holds up to `size` keyframes, later ones two anchors and `size - 2`. A tail of
    fewer than three new keyframes takes the missing ones from the batch before, of which nothing
    may be left (then it is gone), except that the first batch keeps three. With a size of 3 or 4
    the last batch therefore may hold one frame above `size`, as published.

    Args:
        keys: frame numbers, rising.
        size: frames of a batch, anchors included, at least 3.
    """
    if not keys:
        return ()
    step = size - ANCHORS
    parts = [list(keys[:size])]
    parts += [list(keys[i:i + step]) for i in range(size, len(keys), step)]
    if len(parts) > 1:
        before, after = parts[-2], parts[-1]
        spare = len(before) - (FIRST_BATCH if len(parts) == 2 else 0)
        moved = max(0, min(TAIL - len(after), spare))
        split = len(before) - moved
        parts[-2:] = [before[:split], before[split:] + after]
    parts = [part for part in parts if part]
    anchors = [()] + [(keys[0], part[-1]) for part in parts[:-1]]
    return tuple(
        Batch(number, anchor, tuple(part))
        for number, (anchor, part) in enumerate(zip(anchors, parts, strict=True))
    )


def plan_segments(keys: Sequence[int]) -> tuple[Segment, ...]:
    """One segment between every two neighbouring keyframes."""
    return tuple(Segment(a, b) for a, b in itertools.pairwise(keys))


def cut_plans(plans: Sequence[KeyframePlan], count: int) -> tuple[KeyframePlan, ...]:
    """The plans of the first keyframes alone, so many; nothing is propagated between them."""
    cut: list[KeyframePlan] = []
    for plan in plans:
        keys = plan.keyframes[:max(0, count)]
        count -= len(keys)
        batches = [
            dataclasses.replace(batch, frames=tuple(n for n in batch.frames if n in keys))
            for batch in plan.batches if batch.frames[0] in keys
        ]
        if keys:
            cut.append(KeyframePlan(keys, tuple(batches), ()))
    return tuple(cut)


def make_plan(
    scores: Sequence[float], shots: Iterable[Shot], settings: KeyframeSettings,
    *, first: int = 0,
    split: Callable[[Sequence[int]], Iterable[Sequence[int]]] = lambda keys: [keys],
) -> tuple[tuple[KeyframePlan, ...], tuple[str, ...]]:
    """One plan a shot, nothing shared between them, and sentences on what was added or is unusual.

    Keyframes by hand are taken as they are, but the ends of every shot are keyframes always:
    a frame beyond them would have no keyframe to come from.

    Args:
        scores: change from the frame before, one a frame used.
        shots: in order, numbered from the first frame used.
        settings: keyframes by hand (numbered as the source), or intervals; batch size.
        first: number in the source of the first frame used; the plans are numbered as the source.
        split: cuts the keyframes of a shot into groups that share no batch.
    """
    hand_keys = None
    if settings.keys.strip():
        hand_keys = parse_keys(settings.keys, len(scores) + first, first=first)
    plans: list[KeyframePlan] = []
    notes: list[str] = []
    for shot in shots:
        start, end = shot.first + first, shot.last + first
        if hand_keys is None:
            # The change into the shot's first frame is the cut; selection does not look at it.
            inside = scores[shot.first:shot.last + 1]
            chosen = select_keyframes(inside, settings.min_interval, settings.max_interval)
            keys = tuple(start + key for key in chosen)
        else:
            keys, added = _add_ends(hand_keys, start, end)
            notes += added
        batches = tuple(
            batch for group in split(keys) for batch in plan_batches(group, settings.batch_size)
        )
        notes += _note_large_batches(batches, settings.batch_size)
        plans.append(KeyframePlan(keys, batches, plan_segments(keys)))
    if hand_keys is None and settings.max_interval == 1 and len(scores) > 1:
        notes.append(
            "keyframes.max_interval is 1, so every frame is translated and none propagated: this "
            "takes longest and flickers most from batch to batch. Raise it unless you mean it."
        )
    return tuple(plans), tuple(notes)


def _add_ends(
    hand_keys: Sequence[int], first: int, last: int
) -> tuple[tuple[int, ...], list[str]]:
    chosen = {key for key in hand_keys if first <= key <= last}
    added = sorted({first, last} - chosen)
    notes = [
        f"Frame {key} was added to the keyframes by hand: the first and last frame of a shot "
        f"(here {first} and {last}) are always keyframes." for key in added
    ]
    return tuple(sorted(chosen | set(added))), notes


def _note_large_batches(batches: Sequence[Batch], size: int) -> list[str]:
    return [
        f"The batch from frame {batch.frames[0]} to {batch.frames[-1]} holds {len(batch.all)} "
        f"frames, above batch_size {size}: a last batch has up to {TAIL} new keyframes."
        for batch in batches if len(batch.all) > size
    ]
