"""Tracks to a keyframe: known motion over many frames, hidden pixels."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from fresco.flow.arrays import remap
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation.tracks import (
    HIDDEN_PENALTY,
    KeyFrame,
    Track,
    advance_track,
    spread_motion,
)
from tests.helpers.scenes import SlidingScene

BORDER = 12
"""Pixels at the border where the search has nothing to go by."""


def carry_all(scene: SlidingScene, frames: int, *, straight: bool = True) -> Track:
    estimator, images = DisEstimator(), list(scene(0, frames))
    track, key = Track.start(scene.height, scene.width), KeyFrame(images[0])
    for before, image in itertools.pairwise(images):
        pair = estimate_motion(before, image, estimator)
        track = advance_track(track, pair.backward, pair.backward_occlusion,
                        frame=image, key=key, estimator=estimator if straight else None)
    return track


@pytest.mark.parametrize("straight", [True, False])
def test_long_motion_is_followed_without_drift(straight: bool) -> None:
    scene = SlidingScene(9, square=0)
    track = carry_all(scene, 8, straight=straight)
    middle = track.flow[BORDER:-BORDER, 16 + BORDER:-BORDER]
    assert np.abs(middle - np.float32([-16, 0])).mean() < 0.1
    assert track.seen[BORDER:-BORDER, 16 + BORDER:-BORDER].mean() > 0.97


@pytest.mark.parametrize("guides", [True, False])
def test_light_that_changes_moves_nothing(guides: bool) -> None:
    """What fits best is the same thing in another light, not another thing as bright."""
    scene = SlidingScene(2, square=0, speed=0)
    image = scene.image(0)
    waves = np.sin(np.arange(scene.width) / 25)[None, :, None]
    lit = np.rint(image * (1 + 0.15 * waves)).clip(0, 255).astype(np.uint8)
    size = image.shape[0], image.shape[1]
    track = advance_track(
        Track.start(*size), np.zeros((*size, 2), np.float32), np.zeros(size, bool), frame=lit,
        key=KeyFrame(image, guides=guides), estimator=None,
    )
    assert np.abs(track.flow).mean() < 0.06


def test_what_entered_the_frame_is_not_seen_and_costs() -> None:
    scene = SlidingScene(9, square=0)
    track = carry_all(scene, 8)
    first, *_, last = scene(0, 8)
    cost = track.measure_cost(last, KeyFrame(first))
    assert track.seen[:, :8].mean() < 0.2
    assert cost[:, :8].mean() > 0.7 * HIDDEN_PENALTY
    assert np.median(cost[BORDER:-BORDER, 16 + BORDER:-BORDER]) < 5


def test_a_keyframe_moves_as_if_by_cubic_sampling() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(
        np.uint8), (0, 0), 1.5)
    key = KeyFrame(image)
    still = key.move(np.zeros((40, 48, 2), np.float32))
    assert np.abs(still[..., :3].astype(int) - image)[2:-2, 2:-2].max() <= 4
    flow = np.full((40, 48, 2), (3.4, -2.3), np.float32)
    cubic = remap(image, flow, interpolation=cv2.INTER_CUBIC)
    assert np.abs(key.move(flow)[..., :3].astype(int) - cubic)[4:-4, 4:-4].max() <= 6


@pytest.mark.parametrize("size", [(8, 40), (16, 17), (33, 25)])
def test_small_and_odd_frames_are_aligned(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    still = np.zeros((*size, 2), np.float32)
    track = advance_track(Track.start(*size), still, np.zeros(size, bool), frame=image,
                          key=KeyFrame(image), estimator=None)
    assert np.isfinite(track.flow).all()
    assert np.abs(track.flow).mean() < 0.1


def test_hidden_pixels_take_the_motion_of_the_nearest_seen() -> None:
    flow = np.zeros((20, 20, 2), np.float32)
    flow[:, 10:] = 4
    seen = np.ones((20, 20), bool)
    seen[5:15, 2:6] = False
    filled = spread_motion(np.where(seen[..., None], flow, 99).astype(np.float32), seen)
    np.testing.assert_array_equal(filled[seen], flow[seen])
    assert np.abs(filled[~seen]).max() < 2
    np.testing.assert_array_equal(spread_motion(flow, np.zeros_like(seen)), flow)
