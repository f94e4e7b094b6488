"""Histogram-preserving blend: known statistics, round trip of colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco.blending.histogram import BAND, blend_histograms, match_statistics, to_lab, to_rgb


def test_blend_has_the_statistics_of_the_side_that_is_taken() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(90, 20, (40, 30)), random.normal(120, 5, (40, 30))
    chosen = np.zeros((40, 30))
    chosen[:, 12:] = 1
    taken = np.where(chosen > 0, second, first)
    blend = blend_histograms(first, second, np.full((40, 30), 0.4), chosen)
    assert blend.mean() == pytest.approx(taken.mean())
    assert blend.std() == pytest.approx(taken.std())
    plain = first + 0.4 * (second - first)
    assert np.corrcoef(blend.ravel(), plain.ravel())[0, 1] == pytest.approx(1)


def test_a_side_blended_with_itself_is_itself() -> None:
    image = np.random.default_rng(1).normal(100, 30, (16, 20))
    share = np.random.default_rng(2).random((16, 20))
    np.testing.assert_allclose(blend_histograms(image, image, share, share), image, atol=1e-9)


def test_constant_channels_give_no_nan() -> None:
    flat = np.full((8, 8), 77.0)
    half = np.full((8, 8), 0.5)
    np.testing.assert_allclose(blend_histograms(flat, flat, half, half), 77.0)
    np.testing.assert_allclose(match_statistics(flat, 5.0, 3.0), 5.0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_colours_survive_the_round_trip(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (BAND + 9, 7, 3), dtype=np.uint8)
    assert np.abs(to_rgb(to_lab(image)).astype(int) - image).max() <= 1


def test_scale_is_that_of_eight_bit_lab() -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    eight_bit = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab = np.moveaxis(to_lab(image), 0, -1)
    assert np.abs(lab - eight_bit).max() == pytest.approx(0.5, abs=1.5)
