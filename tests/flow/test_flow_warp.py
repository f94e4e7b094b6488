"""Warping and resizing: known shifts, plain loops, and what must hold for all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fresco.flow.warp import cell_scale, resize, resize_flow, token_grid, warp
from tests.helpers.official import warp_image
from tests.helpers.shared import golden, golden_cases, kept
from tests.helpers.tolerances import EXACT_BY_DTYPE

SIZES = [(7, 9), (1, 6), (6, 1), (1, 1)]


def constant_flow(x: float, y: float, size: tuple[int, int]) -> Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, *size)


def plain_warp(x: Tensor, flow: Tensor) -> Tensor:
    """Bilinear sampling pixel by pixel, zeros outside."""
    _, height, width = x.shape
    result = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            at_x, at_y = column + float(flow[0, row, column]), row + float(flow[1, row, column])
            left, top = math.floor(at_x), math.floor(at_y)
            for y, x_ in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= y < height and 0 <= x_ < width:
                    share = (1 - abs(at_x - x_)) * (1 - abs(at_y - y))
                    result[:, row, column] += share * x[:, y, x_]
    return result


@pytest.mark.parametrize("size", SIZES)
def test_warp_is_bilinear_sampling_with_zeros_outside(size: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *size, generator=random, dtype=torch.float64)
    flow = 3 * torch.randn(2, 2, *size, generator=random, dtype=torch.float64)
    expected = torch.stack([plain_warp(*pair) for pair in zip(x, flow, strict=True)])
    assert (warp(x, flow) - expected).abs().max() < EXACT_BY_DTYPE[torch.float64]


def test_warp_moves_a_texture_by_a_whole_shift() -> None:
    texture = torch.rand(1, 3, 12, 15, generator=torch.Generator().manual_seed(1))
    moved = warp(texture, constant_flow(4, -2, (12, 15)))
    assert (moved[..., 2:, :-4] - texture[..., :-2, 4:]).abs().max() < 1e-5
    assert not moved[..., :2, :].any()
    assert not moved[..., -4:].any()


def test_one_flow_serves_a_whole_batch() -> None:
    x = torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(2))
    flow = constant_flow(0.5, 0.25, (5, 6))
    assert torch.equal(warp(x, flow), warp(x, flow.expand(3, -1, -1, -1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(3)
    x = torch.rand(1, 2, 300, 300, generator=random).to(dtype)
    flow = torch.randn(1, 2, 300, 300, generator=random)
    assert torch.equal(warp(x, flow), warp(x.float(), flow).to(dtype))


def test_warp_has_the_right_gradient() -> None:
    random = torch.Generator().manual_seed(4)
    x = torch.rand(1, 2, 4, 5, generator=random, dtype=torch.float64, requires_grad=True)
    flow = torch.randn(1, 2, 4, 5, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: warp(values, flow), (x,))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 4, 8, 16]))
@settings(max_examples=60, deadline=None)
def test_resize_takes_the_centre_of_each_cell(height: int, width: int, scale: int) -> None:
    x = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(5)).double()
    size = token_grid(height, width, scale)
    if cell_scale((height, width), size) != scale:
        return  # a smaller cell gives the same grid, and is taken
    small = resize(x, size)
    for row in range(size[0]):
        for column in range(size[1]):
            ys = [min(row * scale + scale // 2 - k, height - 1) for k in (0, 1)]
            xs = [min(column * scale + scale // 2 - k, width - 1) for k in (0, 1)]
            centre = sum(float(x[0, 0, y, x_]) for y in ys for x_ in xs) / 4
            assert abs(float(small[0, 0, row, column]) - centre) < 1e-9


def test_resized_flow_is_in_pixels_of_the_new_grid() -> None:
    small = resize_flow(constant_flow(16, -8, (64, 96)), (8, 12))
    assert torch.equal(small, constant_flow(2, -1, (8, 12)))


def test_flow_resized_to_no_whole_cell_scales_by_axis() -> None:
    odd = resize_flow(constant_flow(6, -6, (30, 60)), (20, 90))
    assert (odd - constant_flow(9, -4, (20, 90))).abs().max() < 1e-5


def test_resize_to_the_own_size_changes_nothing() -> None:
    x = torch.rand(1, 2, 5, 7)
    assert resize(x, (5, 7)) is x


def test_warp_image_keeps_kind_and_shape() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    flow = np.zeros((2, 6, 8), np.float32)
    flow[0] = 2
    for values in (image, image[..., 0]):
        moved = warp_image(values, flow)
        assert moved.dtype == np.uint8
        np.testing.assert_array_equal(moved[:, :-2], values[:, 2:])
        assert not moved[:, -2:].any()


def test_nearest_warp_invents_no_values() -> None:
    image = np.random.default_rng(1).choice([0, 100, 200], (9, 9)).astype(np.uint8)
    flow = np.random.default_rng(2).uniform(-2, 2, (2, 9, 9)).astype(np.float32)
    assert set(np.unique(warp_image(image, flow, nearest=True))) <= {0, 100, 200}


@pytest.mark.parametrize("case", golden_cases("03_flow_masks", "car_192x192", "boxer_128x192"))
def test_warp_agrees_with_the_official_one(case: str) -> None:
    arrays, note = golden("03_flow_masks", case)
    image = torch.from_numpy(arrays["frames_rgb_u8"][:1]).permute(0, 3, 1, 2).float()
    moved = warp(image, torch.from_numpy(arrays["bwd_flows"][:1]))
    name = "warp_image0_by_bwd_flow0"
    np.testing.assert_array_equal(kept(note, name, moved.numpy()), arrays[name])
