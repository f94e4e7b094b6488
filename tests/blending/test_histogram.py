"""Histogram-preserving blend: golden vectors, known statistics, round trip of colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco.blending.histogram import blend_histograms, match_statistics, to_lab, to_rgb
from tests.helpers.shared import golden, golden_cases
from tests.helpers.tolerances import HISTOGRAM_MAX_LEVELS


def eight_bit_lab(bgr: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2LAB).astype(np.float64)


@pytest.mark.parametrize("case", golden_cases("07_blend", "car_6"))
def test_official_blend_is_reproduced_in_its_eight_bit_lab(case: str) -> None:
    arrays, note = golden("07_blend", case)
    count = len(arrays["hist_blend"])
    for j in note.get("frames", range(count)):
        wanted = arrays["hist_blend"][j]
        sides = arrays["f_stylized"][j + 1], arrays["b_stylized"][::-1][j]
        lab = [eight_bit_lab(image) for image in (*sides, arrays["min_error"][j])]
        weight = j / count
        blend = blend_histograms(*lab, weights=(weight, 1 - weight))
        rounded = np.clip(np.rint(blend), 0, 255).astype(np.uint8)
        result = cv2.cvtColor(rounded, cv2.COLOR_LAB2BGR).astype(int)
        assert np.abs(result - wanted).max() <= HISTOGRAM_MAX_LEVELS, j


def test_blend_has_the_statistics_of_the_selected_image() -> None:
    random = np.random.default_rng(0)
    first, second, selected = (random.normal(m, s, (40, 30, 3)) for m, s in
                               ((90, 20), (120, 5), (60, 11)))
    blend = blend_histograms(first, second, selected, weights=(0.3, 0.7))
    np.testing.assert_allclose(blend.mean((0, 1)), selected.mean((0, 1)), rtol=1e-9)
    np.testing.assert_allclose(blend.std((0, 1)), selected.std((0, 1)), rtol=1e-9)


def test_a_side_blended_with_itself_is_itself() -> None:
    image = np.random.default_rng(1).normal(100, 30, (16, 20, 3))
    np.testing.assert_allclose(
        blend_histograms(image, image, image, weights=(0.25, 0.75)), image, atol=1e-9
    )


def test_constant_channels_give_no_nan() -> None:
    flat = np.full((8, 8, 3), 77.0)
    np.testing.assert_allclose(blend_histograms(flat, flat + 9, flat, weights=(0.5, 0.5)), 77.0)
    np.testing.assert_allclose(match_statistics(flat, 5.0, 3.0), 5.0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_colours_survive_the_round_trip(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.abs(to_rgb(to_lab(image)).astype(int) - image).max() <= 1


def test_scale_is_that_of_eight_bit_lab() -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    eight_bit = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    assert np.abs(to_lab(image) - eight_bit).max() == pytest.approx(0.5, abs=1.5)
