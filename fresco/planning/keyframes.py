"""Choose keyframes from change scores, and plan batches and segments. No file is used."""

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
"""Short side at which change is measured, for every working size, so that scores compare."""
SIDE_MULTIPLE = 64
"""Both sides are rounded to a multiple of this (half to even), as for the working size."""
BLUR = (9, 9)
"""Window of a Gaussian blur, so that noise and grain do not count; OpenCV's sigma for it is 1.7."""
TAIL = 3
"""Smallest number of new keyframes in a last batch; it takes missing ones from the one before."""
FIRST_BATCH = 3
"""Smallest number of frames in the first batch, because guidance compares frames."""
ANCHORS = 2
"""Number of frames that a later batch shares with earlier ones."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Keyframes translated together."""

    number: int
    """Position among the batches of its group, from 0."""
    anchors: tuple[int, ...]
    """Keyframes that were translated before: the very first one, and the last of the batch before.
    """
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
    """The plan of one shot: what is translated, and what is propagated."""

    keyframes: tuple[int, ...]
    """Frame numbers in ascending order, with the first and the last frame of the shot."""
    batches: tuple[Batch, ...]
    """Every keyframe is new in exactly one of them."""
    segments: tuple[Segment, ...]
    """One between every two neighbouring keyframes; none in a shot of one frame."""

    @property
    def groups(self) -> tuple[tuple[Batch, ...], ...]:
        """The batches in groups; a batch without anchors begins a new group."""
        starts = [place for place, batch in enumerate(self.batches) if not batch.anchors]
        ends = [*starts[1:], len(self.batches)]
        return tuple(self.batches[a:b] for a, b in zip(starts, ends, strict=True))


class ChangeScore:
    """Computes the change from each frame to the next, with one frame in memory."""

    def __init__(self) -> None:
        self._before: NDArray[np.float64] | None = None

    def update(self, rgb: NDArray[np.uint8]) -> float:
        """Mean squared difference from the frame before, in the range [-1, 1]; 0 for the first.

        Args:
            rgb: [H, W, 3] uint8; all frames have the same size.
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
    """Select the keyframes of one shot from its change scores.

    The first and the last frame are always keyframes, and no gap is above `max_interval`. While any
    gap is too large, the frame of largest change becomes a keyframe, among those that are
    `min_interval` away from the others. If no such frame is left, gaps that are still too large get
    as few further keyframes as possible. With equal intervals, every `max_interval`-th frame is a
    keyframe.

    Args:
        scores: change from the frame before, for every frame; the first is not used.
        min_interval: frames; 0 means 1. If both cannot be kept, `max_interval` is.
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
    """Pick the frame of largest remaining change, until no gap is above `high`."""
    last = len(change) - 1
    left = change.copy()
    left[:low] = left[len(left) - min(low, len(left)):] = 0.0
    keys = sorted({0, last})
    # A change of zero does not count: `_close_gaps` splits a still shot evenly.
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
    """Find the frame of largest change after which the fewest further cuts are needed."""
    start, end = gap
    parts = -(-(end - start) // high)
    even = (end - start) // parts
    # Both sides of the cut keep their distance as far as the gap allows, and the rest of the gap
    # needs one part less. The even cut always fulfils this.
    first = start + max(1, min(low, even), end - start - (parts - 1) * high)
    last = min(start + high, end - max(1, min(low, even)))
    window = change[first:last + 1]
    best = np.flatnonzero(window == window.max()) + first
    return int(best[np.argmin(np.abs(best - (start + even)))])


def plan_batches(keys: Sequence[int], size: int) -> tuple[Batch, ...]:
    """Plan the batches of the keyframes of one shot, with anchors.

    The first batch has up to `size` keyframes, later ones two anchors and up to `size - 2` new
    keyframes. If the last batch has fewer than three new keyframes, it takes the missing ones from
    the batch before. The first batch keeps at least three; another batch of which nothing is left
    disappears. With a size of 3 or 4, the last batch may therefore have one frame more than `size`,
    as in the published method.

    Args:
        keys: frame numbers in ascending order.
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
    """Plan one segment between every two neighbouring keyframes."""
    return tuple(Segment(a, b) for a, b in itertools.pairwise(keys))


def cut_plans(plans: Sequence[KeyframePlan], count: int) -> tuple[KeyframePlan, ...]:
    """Cut plans to their first `count` keyframes, without segments."""
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
    """Make one plan for each shot, and notes on keyframes that were added or are unusual.

    Keyframes by hand are used as they are. The ends of every shot are always keyframes; otherwise
    there would be no keyframe from which the frames outside could be propagated.

    Args:
        scores: change from the frame before, for every frame used.
        shots: the shots in order, numbered from the first frame used.
        settings: keyframes by hand (with the source's numbers), or intervals; batch size.
        first: number of the first frame used; the plans have the source's numbers.
        split: divides the keyframes of a shot into groups that share no batch.
    """
    hand_keys = None
    if settings.keys.strip():
        hand_keys = parse_keys(settings.keys, len(scores) + first, first=first)
    plans: list[KeyframePlan] = []
    notes: list[str] = []
    for shot in shots:
        start, end = shot.first + first, shot.last + first
        if hand_keys is None:
            # The change before a shot's first frame is the cut; the selection does not use it.
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
