"""Masks carried along the motion, against the masks of a scene where they are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.masks.carry import CarriedMask, MaskStep, carry_mask, fill_by_likeness, join_sides
from tests.helpers.moving_square import draw_frame, draw_mask, overlap

LAST = 10


def walk(numbers: range) -> Iterator[MaskStep]:
    estimator, way = DisEstimator(), numbers.step
    for number in numbers:
        pair = estimate_motion(draw_frame(number - way), draw_frame(number), estimator)
        yield MaskStep(number, draw_frame(number), pair.backward, pair.backward_occlusion)


def carry(key: int, numbers: range) -> dict[int, CarriedMask]:
    drawn = draw_mask(key).astype(np.float32)
    return {each.number: each for each in carry_mask(drawn, draw_frame(key), walk(numbers))}


def test_a_drawing_follows_what_it_was_drawn_on_and_a_second_one_corrects_it() -> None:
    forward = carry(0, range(1, LAST))
    alone = [overlap(forward[n].share >= 0.5, draw_mask(n)) for n in forward]
    assert alone[0] > 0.9
    assert alone[-1] > 0.75
    assert overlap(draw_mask(0), draw_mask(LAST - 1)) == 0  # it has moved away from itself
    backward = carry(LAST, range(LAST - 1, 0, -1))
    both = [
        overlap(join_sides(forward[n], backward[n], position=n / LAST) >= 0.5, draw_mask(n))
        for n in forward
    ]
    assert np.mean(both) > np.mean(alone)
    assert min(both) > 0.8


def test_uncovered_pixels_are_filled_by_what_looks_like_them() -> None:
    """The nearest known pixel of the strip is the square's; the ground looks like it."""
    image = np.full((128, 160, 3), 60, np.uint8)
    image[:, 80:] = 200
    share = np.zeros((128, 160), np.float32)
    share[:, 80:] = 1
    unknown = np.zeros((128, 160), bool)
    unknown[:, 66:80] = True
    wrong = share.copy()
    wrong[unknown] = 0.7  # whatever it holds there
    assert overlap(fill_by_likeness(wrong, image, unknown) >= 0.5, share > 0) > 0.98


def test_where_nothing_known_is_in_reach_the_nearest_counts() -> None:
    share = np.zeros((8, 900), np.float32)
    share[:, -1] = 1
    unknown = np.ones((8, 900), bool)
    unknown[:, [0, -1]] = False
    image = np.zeros((8, 900, 3), np.uint8)
    filled = fill_by_likeness(share, image, unknown)
    assert (filled[:, 200] == 0).all()
    assert (filled[:, 700] == 1).all()
    assert fill_by_likeness(share, image, np.ones((8, 900), bool)) is share
