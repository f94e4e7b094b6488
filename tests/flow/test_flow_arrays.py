"""Motion between two frames as arrays: known shifts."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from fresco.flow.arrays import compose, estimate_motion, find_inside, remap
from tests.helpers.official import warp_image


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
