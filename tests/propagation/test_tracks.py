"""Tracks to a keyframe: known motion over many frames, hidden pixels."""

from __future__ import annotations

import itertools

import numpy as np

from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation.tracks import HIDDEN_PENALTY, Track, advance_track, spread_motion
from tests.helpers.scenes import SlidingScene

BORDER = 12
"""Pixels at the border where the search has nothing to go by."""


def carry_all(scene: SlidingScene, frames: int) -> Track:
    estimator, images = DisEstimator(), list(scene(0, frames))
    track = Track.start(scene.height, scene.width)
    for before, image in itertools.pairwise(images):
        pair = estimate_motion(before, image, estimator)
        track = advance_track(track, pair.backward, pair.backward_occlusion,
                        frame=image, key=images[0], estimator=estimator)
    return track


def test_long_motion_is_followed_without_drift() -> None:
    scene = SlidingScene(9, square=0)
    track = carry_all(scene, 8)
    middle = track.flow[BORDER:-BORDER, 16 + BORDER:-BORDER]
    assert np.abs(middle - np.float32([-16, 0])).mean() < 0.1
    assert track.seen[BORDER:-BORDER, 16 + BORDER:-BORDER].mean() > 0.97


def test_what_entered_the_frame_is_not_seen_and_costs() -> None:
    track = carry_all(SlidingScene(9, square=0), 8)
    assert track.seen[:, :8].mean() < 0.2
    assert track.cost[:, :8].mean() > 0.7 * HIDDEN_PENALTY
    assert np.median(track.cost[BORDER:-BORDER, 16 + BORDER:-BORDER]) < 5


def test_hidden_pixels_take_the_motion_of_the_nearest_seen() -> None:
    flow = np.zeros((20, 20, 2), np.float32)
    flow[:, 10:] = 4
    seen = np.ones((20, 20), bool)
    seen[5:15, 2:6] = False
    filled = spread_motion(np.where(seen[..., None], flow, 99).astype(np.float32), seen)
    np.testing.assert_array_equal(filled[seen], flow[seen])
    assert np.abs(filled[~seen]).max() < 2
    np.testing.assert_array_equal(spread_motion(flow, np.zeros_like(seen)), flow)
