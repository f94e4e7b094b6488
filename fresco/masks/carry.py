"""Masks tracked from a few drawn frames to all others, along the motion.

Each drawing is tracked frame by frame in one direction. A pixel that the drawn frame shows takes
the drawing's value at the place that its track leads to (`propagation.tracks`), so errors do not
add up. A pixel that it does not show takes the value of the neighbouring frame. A pixel that this
frame does not show either takes the value of nearby pixels that look like it. Between two drawings
both tracked masks are mixed by their errors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import Flow, Map, Mask, find_inside, remap
from fresco.propagation.tracks import KeyFrame, Track, advance_track

Image = NDArray[np.uint8]
Share = NDArray[np.float32]
"""[H, W] from 0 to 1: how much of a pixel is translated."""

REVISION = 1
"""Increased when tracked masks change."""
DISTANCES, DIRECTIONS = (8, 18, 30, 44), 16
"""Where the pixels lie that an uncovered one is compared with: how far away, in pixels of a frame
whose shorter side is `MEASURED_SIDE`, and in how many ways. On a scene of known masks
(benchmarks/masks.py) things that move 9 pixels a frame are lost with a reach of 16."""
MEASURED_SIDE = 256
"""Shorter side of the frames on which the distances were measured."""
LIKENESS = 12.0
"""Grey levels of difference, root mean square, by which a neighbour counts 0.6 of an equal one."""
SHARPENING = 1.5
"""A soft edge is made so many times as steep at every frame, or it would widen."""
MEDIAN = 5
"""Side in pixels of a median over the mask: single pixels of another value are errors of motion."""
NOISE = 4.0
"""Grey levels squared added to the errors of both sides: below it, the nearer drawing decides."""


@dataclass(frozen=True, slots=True)
class MaskStep:
    """A frame to which a mask is tracked."""

    number: int
    """Number of the frame."""
    image: Image
    """[H, W, 3] of the source."""
    flow: Flow
    """[H, W, 2] pixels, x then y: to the frame before, seen in the direction of carrying."""
    hidden: Mask
    """[H, W], True = that frame does not show the pixel."""


@dataclass(frozen=True, slots=True)
class CarriedMask:
    """A mask that was tracked from one side."""

    number: int
    """Number of the frame."""
    share: Share
    """The mask."""
    cost: Map
    """[H, W] grey levels squared by which the drawn frame, moved here, misses this one."""


def carry_mask(drawn: Share, key: Image, steps: Iterable[MaskStep]) -> Iterator[CarriedMask]:
    """Track a drawing away from its frame, in one direction.

    Args:
        drawn: the mask of the frame it was drawn on.
        key: [H, W, 3] that frame of the source.
        steps: the frames beside it, the nearest first.
    """
    there, track, before = KeyFrame(key), Track.start(*key.shape[:2]), drawn
    for step in steps:
        track = advance_track(
            track, step.flow, step.hidden, frame=step.image, key=there, estimator=None
        )
        uncovered = step.hidden | ~find_inside(step.flow)
        share = np.where(track.seen, remap(drawn, track.flow), remap(before, step.flow))
        unknown = uncovered & ~track.seen
        share = fill_by_likeness(np.asarray(share, np.float32), step.image, unknown)
        before = _sharpen(share)
        yield CarriedMask(step.number, before, track.measure_cost(step.image, there))


def _sharpen(share: Share) -> Share:
    steep = cv2.medianBlur(np.asarray(share, np.float32), MEDIAN)
    return np.asarray(np.clip((steep - 0.5) * SHARPENING + 0.5, 0, 1), np.float32)


def fill_by_likeness(share: Share, image: Image, unknown: Mask) -> Share:
    """Fill unknown pixels of a mask from known ones nearby, by how similar they look.

    Where no known pixel is within reach, the nearest one counts.

    Args:
        share: the mask; what it holds at unknown pixels does not matter.
        image: [H, W, 3] of the same frame.
        unknown: [H, W], True = to be filled.
    """
    if not unknown.any() or unknown.all():
        return share
    filled = _fill_by_nearness(share, unknown)
    rows, columns = np.nonzero(unknown)
    soft = cv2.blur(image, (3, 3)).astype(np.float32)
    own = soft[rows, columns]
    known = ~unknown
    height, width = unknown.shape
    total = np.zeros(len(rows), np.float32)
    weight = np.zeros(len(rows), np.float32)
    for dy, dx in _list_offsets(min(height, width) / MEASURED_SIDE):
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        difference = np.square(soft[y, x] - own).mean(axis=-1) / np.float32(LIKENESS ** 2)
        near = np.exp(-difference / 2) * (known[y, x] & inside)
        total += near * share[y, x]
        weight += near
    found = weight > 1e-6
    filled[rows[found], columns[found]] = total[found] / weight[found]
    return filled


@functools.lru_cache(maxsize=4)
def _list_offsets(scale: float) -> tuple[tuple[int, int], ...]:
    """Rows and columns from a pixel to those it is compared with; every ring is rotated a little.
    """
    turns = [(distance * scale, 2 * math.pi * way / DIRECTIONS + math.pi * ring / DIRECTIONS)
             for ring, distance in enumerate(DISTANCES) for way in range(DIRECTIONS)]
    return tuple((round(r * math.sin(angle)), round(r * math.cos(angle))) for r, angle in turns)


def _fill_by_nearness(share: Share, unknown: Mask) -> Share:
    labels = np.asarray(cv2.distanceTransformWithLabels(
        unknown.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )[1], np.int32)
    known = ~unknown
    value_of_label = np.zeros(labels.max() + 1, np.float32)
    value_of_label[labels[known]] = share[known]
    return np.where(unknown, value_of_label[labels], share)


def join_sides(forward: CarriedMask, backward: CarriedMask, *, position: float) -> Share:
    """Join the two masks that come from the drawings before and after a frame.

    Args:
        position: where the frame lies between both, from 0 to 1.
    """
    ahead = np.float32(1 - position) / (forward.cost + np.float32(NOISE))
    behind = np.float32(position) / (backward.cost + np.float32(NOISE))
    both = ahead * forward.share + behind * backward.share
    return np.asarray(both / (ahead + behind), np.float32)
