"""Gradient blend: against a dense solve, sparse least squares, and the official results."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_blend import difference_matrices, plain_blend
from fresco.blending.histogram import BAND, to_rgb
from fresco.blending.poisson import (
    LAB_WEIGHTS,
    Gradients,
    blend_gradients,
    select_gradients,
)
from tests.helpers.shared import golden, golden_cases
from tests.helpers.tolerances import BLEND_MAX_LEVELS, BLEND_MEAN_LEVELS, SOLVER_LAB


def solve(
    blend: np.ndarray, along_x: np.ndarray, along_y: np.ndarray,
    weights: tuple[float, ...] = LAB_WEIGHTS,
) -> np.ndarray:
    """`blend_gradients` of every channel of [H, W, C]."""
    return np.stack([
        blend_gradients(
            blend[..., channel].copy(),
            [Gradients(0, along_x[..., channel], along_y[..., channel])], weight=weight,
        )
        for channel, weight in zip(range(blend.shape[-1]), weights, strict=True)
    ], axis=-1)


def select(
    forward: np.ndarray, backward: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`select_gradients` of every channel of [H, W, C], all rows joined."""
    channels = []
    for first, second in zip(np.moveaxis(forward, -1, 0), np.moveaxis(backward, -1, 0),
                             strict=True):
        parts = list(select_gradients(first, second, share))
        channels.append([np.concatenate([part.along_x for part in parts]),
                         np.concatenate([part.along_y for part in parts])])
    return tuple(np.stack(axis, axis=-1) for axis in zip(*channels, strict=True))


def slopes_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.diff(image, axis=1), np.diff(image, axis=0)


def dense_blend(
    blend: np.ndarray, along_x: np.ndarray, along_y: np.ndarray, weight: float
) -> np.ndarray:
    """The least squares of one channel by normal equations."""
    rows, columns = blend.shape
    matrices = [matrix.toarray() * weight for matrix in difference_matrices(rows, columns)]
    matrix = np.concatenate([*matrices, np.eye(rows * columns)])
    right = np.concatenate([along_x.ravel() * weight, along_y.ravel() * weight, blend.ravel()])
    return np.linalg.lstsq(matrix, right, rcond=None)[0].reshape(rows, columns)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_solution_is_the_dense_one(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    blend = random.normal(120, 40, (rows, columns, 2))
    along_x = random.normal(0, 30, (rows, columns - 1, 2))
    along_y = random.normal(0, 30, (rows - 1, columns, 2))
    result = solve(blend, along_x, along_y, (2.5, 0.5))
    for channel, weight in enumerate((2.5, 0.5)):
        wanted = dense_blend(
            blend[..., channel], along_x[..., channel], along_y[..., channel], weight
        )
        np.testing.assert_allclose(result[..., channel], wanted, atol=1e-8)


def test_own_gradients_give_the_image_back() -> None:
    image = np.random.default_rng(0).normal(100, 40, (21, 34, 3)).astype(np.float32)
    result = solve(image, *slopes_of(image))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, image, atol=1e-3)


def test_mean_is_that_of_the_blend() -> None:
    random = np.random.default_rng(3)
    blend, other = random.normal(100, 40, (2, 16, 17, 3))
    result = solve(blend, *slopes_of(other))
    np.testing.assert_allclose(result.mean((0, 1)), blend.mean((0, 1)), atol=1e-9)


def test_gradients_come_from_the_selected_side_without_the_seam() -> None:
    random = np.random.default_rng(4)
    first = random.normal(50, 5, (6, 8, 3))
    second = random.normal(200, 5, (6, 8, 3))
    mask = np.zeros((6, 8))
    mask[:, 4:] = 1
    along_x, along_y = select(first, second, mask)
    np.testing.assert_allclose(along_x[:, :4], np.diff(first, axis=1)[:, :4])
    np.testing.assert_allclose(along_x[:, 4:], np.diff(second, axis=1)[:, 4:])
    np.testing.assert_allclose(along_y[:, 4:], np.diff(second, axis=0)[:, 4:])


def test_parts_of_rows_give_what_all_rows_give() -> None:
    rows = 2 * BAND + 7
    first, second, values = np.random.default_rng(6).normal(100, 40, (3, rows, 9))
    share = np.random.default_rng(7).random((rows, 9))
    gap = second - first
    whole = Gradients(
        0, np.diff(first) + np.diff(gap) * share[:, :-1],
        np.diff(first, axis=0) + np.diff(gap, axis=0) * share[:-1],
    )
    parts = blend_gradients(values.copy(), select_gradients(first, second, share), weight=2.5)
    np.testing.assert_allclose(parts, blend_gradients(values.copy(), [whole], weight=2.5))


def test_steep_gradients_are_kept() -> None:
    image = np.zeros((2, 2, 1))
    image[:, 1] = 255
    assert select(image, image, np.zeros((2, 2)))[0].max() == 255


OFFICIAL_LIMIT = 100.0
"""The official tool clips gradients to this, in 8-bit Lab levels a pixel; ours does not."""
CASES = golden_cases("07_blend", "car_6")


def official_frames() -> list[tuple[str, int]]:
    """Every frame but the first, of which the next test but one is."""
    return [(case, j) for case in CASES for j in golden("07_blend", case)[1].get("frames", range(5))
            if j]


def official_problem(
    arrays: dict[str, np.ndarray], j: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    forward, backward, blend = (
        cv2.cvtColor(image, cv2.COLOR_BGR2LAB).astype(np.float64)
        for image in (
            arrays["f_stylized"][j + 1], arrays["b_stylized"][::-1][j], arrays["hist_blend"][j]
        )
    )
    slopes = select(forward, backward, arrays["mask"][j])
    return blend, *(np.clip(slope, -OFFICIAL_LIMIT, OFFICIAL_LIMIT) for slope in slopes)


def cut_to_bgr(lab: np.ndarray) -> np.ndarray:
    """The official last step: Lab cut, not rounded, to 8 bits."""
    return cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2BGR).astype(int)


@pytest.mark.parametrize(("case", "j"), official_frames())
def test_official_pictures_are_reproduced(case: str, j: int) -> None:
    official, _ = golden("07_blend", case)
    result = solve(*official_problem(official, j))
    off = np.abs(cut_to_bgr(result) - official["poisson"][j])
    assert off.mean() <= BLEND_MEAN_LEVELS
    assert off.max() <= BLEND_MAX_LEVELS


@pytest.mark.parametrize("case", CASES)
def test_official_picture_of_whole_numbers_is_reproduced(case: str) -> None:
    """Frame 0 is all forward and its solution nearly whole numbers: the official cut to 8 bits is
    decided by the error of LSQR, so it is compared with LSQR before the cut."""
    official, _ = golden("07_blend", case)
    problem = official_problem(official, 0)
    plain = plain_blend(*problem, LAB_WEIGHTS)
    np.testing.assert_array_equal(cut_to_bgr(plain), official["poisson"][0])
    result = solve(*problem)
    assert np.abs(result - plain).max() < SOLVER_LAB
    assert np.abs(cut_to_bgr(result) - official["poisson"][0]).mean() <= BLEND_MEAN_LEVELS


def test_sparse_least_squares_within_one_level() -> None:
    random = np.random.default_rng(5)
    coarse = random.normal(128, 50, (2, 6, 7, 3))
    first, second = (cv2.resize(image, (49, 40), interpolation=cv2.INTER_CUBIC) for image in coarse)
    slopes = select(first, second, random.random((40, 49)) > 0.5)
    blend = (first + second) / 2
    plain = plain_blend(blend, *slopes, LAB_WEIGHTS)
    fast = solve(
        blend.astype(np.float32), *(slope.astype(np.float32) for slope in slopes)
    )
    images = [to_rgb(np.moveaxis(lab, -1, 0)).astype(int) for lab in (fast, plain)]
    assert np.abs(images[0] - images[1]).max() <= 1
