"""Occlusion and the ring of a batch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.flow.dis import DisEstimator
from fresco.flow.occlusion import check_consistency, occlusion, ring_flow
from fresco.flow.tensors import to_images
from tests.helpers.motion_scenes import Still, moving_square, texture
from tests.helpers.shared import golden, golden_cases

RECORDED = "4.11."
"""The OpenCV that made the stored flow. Others find another one in a few places: 4.8.1 and 5.0.0
agree to a median of 0.02 pixels, and to a pixel in more than nine places of ten."""
CASES = golden_cases("03_flow_masks", "car_192x192", "boxer_128x192")


def plain_consistency(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Pixel by pixel, for flows of whole pixels [2, H, W]."""
    _, height, width = forward.shape
    missed = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            there = forward[:, y, x]
            to_x, to_y = x + int(there[0]), y + int(there[1])
            inside = 0 <= to_x < width and 0 <= to_y < height
            back = backward[:, to_y, to_x] if inside else np.zeros(2)
            lengths = np.hypot(*there) + np.hypot(*backward[:, y, x])
            missed[y, x] = np.hypot(*(there + back)) > 0.01 * lengths + 0.5
    return missed


def test_consistency_is_the_formula_at_every_pixel() -> None:
    random = np.random.default_rng(0)
    forward, backward = random.integers(-3, 4, (2, 2, 9, 11)).astype(np.float32)
    forward[:, 2:6], backward[:, 2:6] = 1, -1
    found = check_consistency(torch.from_numpy(forward)[None], torch.from_numpy(backward)[None])
    np.testing.assert_array_equal(found[0][0].bool(), plain_consistency(forward, backward))
    np.testing.assert_array_equal(found[1][0].bool(), plain_consistency(backward, forward))
    assert 0 < float(found[0].mean()) < 1


def test_colours_too_far_apart_are_no_match() -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, :, 0, 0] = 63.75
    images[1, :, 1, 1] = 63.8
    none = torch.zeros(2, 2, 4, 4)
    forward, backward = occlusion(images, none, none)
    expected = torch.zeros(4, 4)
    expected[1, 1] = 1
    for mask in (*forward, *backward):
        assert torch.equal(mask, expected)


@pytest.mark.parametrize("case", CASES)
def test_occlusion_agrees_with_the_official_one(case: str) -> None:
    arrays, _ = golden("03_flow_masks", case)
    flows = [torch.from_numpy(arrays[name]) for name in ("fwd_flows", "bwd_flows")]
    images = to_images(arrays["frames_rgb_u8"])
    for found, names in (
        (check_consistency(*flows), ("check_fwd_occ", "check_bwd_occ")),
        (occlusion(images, *flows), ("fwd_occs", "bwd_occs")),
    ):
        for mask, name in zip(found, names, strict=True):
            np.testing.assert_array_equal(mask.numpy(), arrays[name])


@pytest.mark.parametrize("case", CASES)
def test_dis_flow_of_a_ring_is_the_stored_one(case: str) -> None:
    arrays, _ = golden("03_flow_masks", case)
    ring = ring_flow(arrays["frames_rgb_u8"], DisEstimator())
    for flow, name in ((ring.forward, "fwd_flows"), (ring.backward, "bwd_flows")):
        apart = np.abs(flow.numpy() - arrays[name])
        if cv2.__version__.startswith(RECORDED):
            assert apart.max() < 0.02  # stored in half precision
        else:
            assert np.median(apart) < 0.02
            assert (apart < 1).mean() > 0.9


def test_a_single_frame_does_not_move() -> None:
    ring = ring_flow(texture(20, 24)[None], DisEstimator())
    assert ring.forward.shape == (1, 2, 20, 24)
    assert ring.forward_occlusion.shape == (1, 20, 24)
    parts = (ring.forward, ring.backward, ring.forward_occlusion, ring.backward_occlusion)
    assert not any(part.any() for part in parts)


def test_pairs_close_the_ring_in_order() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(Still):
        def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            seen.append((source, target))
            return super().estimate(source, target)

    frames = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30)])
    ring_flow(frames, Watching())
    source, target = (torch.cat(parts)[:, 0, 0, 0].tolist() for parts in zip(*seen, strict=True))
    assert source == [10, 20, 30]
    assert target == [20, 30, 10]


def test_equal_frames_hide_nothing() -> None:
    ring = ring_flow(np.stack([texture(48, 64)] * 2), DisEstimator())
    assert ring.forward.abs().max() < 0.5
    assert not ring.forward_occlusion[:, 4:-4, 4:-4].any()


def test_what_a_moving_square_uncovers_is_occluded() -> None:
    frames, flow, square = moving_square(count=2, step=8)
    mask = flow.backward_occlusion[0].bool().numpy()
    uncovered = square[0] & ~square[1]
    assert mask[uncovered].all()
    assert not mask[square[1]].any()
    assert not mask[~square[0] & ~square[1]].any()
    assert frames.shape == (2, *mask.shape, 3)
