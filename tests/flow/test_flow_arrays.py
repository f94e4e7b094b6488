"""Motion between two frames as arrays: known shifts."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from fresco.flow.arrays import compose, find_inside, judge_motion, remap
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.flow.occlusion import judge_pairs
from fresco.flow.tensors import to_array, to_images
from tests.helpers.official import warp_image
from tests.helpers.scenes import SlidingScene


class Shift:
    """A given motion everywhere."""

    name = fingerprint = note = "shift"

    def __init__(self, x: float, y: float) -> None:
        self._motion = torch.tensor([x, y]).view(1, 2, 1, 1)

    def estimate(
        self, source: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        flow = self._motion.expand(len(source), 2, *source.shape[-2:])
        return flow, -flow


def shift(x: float, y: float, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    return np.broadcast_to(np.float32([x, y]), (*size, 2)).copy()


def test_sampling_a_whole_shift_is_exact_and_repeats_the_border() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    moved = remap(image, shift(3, -2), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(moved[2:, :-3], image[:-2, 3:])
    np.testing.assert_array_equal(moved[2:, -3:], np.repeat(image[:-2, -1:], 3, axis=1))


def test_sampling_agrees_with_the_warp_of_tensors_inside() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(12, 16)).astype(np.float32)
    flow = random.uniform(-2, 2, (12, 16, 2)).astype(np.float32)
    within = find_inside(flow, margin=0)
    other = warp_image(values, flow.transpose(2, 0, 1))
    # OpenCV rounds positions to 1/32 of a pixel.
    np.testing.assert_allclose(remap(values, flow)[within], other[within], atol=0.2)
    assert np.abs(remap(values, flow) - other)[within].mean() < 0.02


def test_composition_of_shifts_is_their_sum() -> None:
    np.testing.assert_allclose(compose(shift(1.5, 2), shift(-4, 0.25)), shift(-2.5, 2.25))


def test_inside_is_told_by_the_border() -> None:
    right = find_inside(shift(2, 0), margin=0)
    assert right[:, :-2].all()
    assert not right[:, -2:].any()


def test_pair_flow_keeps_directions_and_finds_what_leaves() -> None:
    image = np.full((12, 16, 3), 128, np.uint8)
    pair = estimate_motion(image, image, Shift(3, -1))
    np.testing.assert_array_equal(pair.forward, shift(3, -1))
    np.testing.assert_array_equal(pair.backward, shift(-3, 1))
    assert not pair.forward_occlusion[2:-2, 4:-5].any()
    assert pair.forward_occlusion[:, -2:].all()
    assert pair.backward_occlusion[:, :2].all()


def test_occlusion_is_that_of_tensors_but_for_rounded_positions() -> None:
    """OpenCV samples at 1/32 of a pixel: pixels that hardly pass or hardly miss may differ."""
    images = list(SlidingScene(4, height=96, width=128)(0, 3))
    first, second = images[0], images[3]
    forward, backward = DisEstimator().estimate_frames(first, second)
    found = judge_motion(first, second, forward, backward)
    pair = to_images(np.stack([first, second]))
    flows = [torch.from_numpy(flow.transpose(2, 0, 1).copy())[None] for flow in (forward, backward)]
    wanted = judge_pairs(pair[:1], pair[1:], *flows)
    np.testing.assert_array_equal(found.forward, to_array(wanted.forward))
    for own, theirs in ((found.forward_occlusion, wanted.forward_occlusion),
                        (found.backward_occlusion, wanted.backward_occlusion)):
        assert theirs.any()
        assert (own != (theirs[0].numpy() > 0)).mean() < 0.01
