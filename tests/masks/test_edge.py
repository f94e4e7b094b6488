"""Levels and soft edge of masks: what is outside stays exact."""

from __future__ import annotations

import numpy as np
import pytest

from fresco.masks.edge import cut, feather, lay_over, read_levels, scale_share


def test_levels_that_codecs_leave_count_as_black_and_white() -> None:
    grey = np.array([[0, 16, 17, 128, 238, 239, 255]], np.uint8)
    share = read_levels(np.repeat(grey[..., None], 3, axis=2))
    assert share[0, [0, 1]].tolist() == [0, 0]
    assert share[0, [5, 6]].tolist() == [1, 1]
    assert share[0, 2:5] == pytest.approx(np.array([17, 128, 238]) / 255)
    assert cut(share).tolist() == [[0, 0, 0, 1, 1, 1, 1]]


def test_the_soft_edge_lies_inside_and_the_frames_border_is_none() -> None:
    share = np.zeros((20, 30), np.float32)
    share[5:, 10:] = 1  # touches two borders of the frame
    soft = feather(share, 4)
    assert (soft[share == 0] == 0).all()
    assert soft[12, 10:16] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1], abs=1e-5)
    assert (soft[10:, 15:] == 1).all()
    assert np.array_equal(feather(share, 0), share)


def test_laid_over_is_the_source_at_0_and_the_image_at_1() -> None:
    random = np.random.default_rng(0)
    source, image = random.integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    share = random.choice(np.array([0, 0.5, 1], np.float32), (9, 8))
    mixed = lay_over(source, image, share)
    assert np.array_equal(mixed[share == 0], source[share == 0])
    assert np.array_equal(mixed[share == 1], image[share == 1])
    middle = share == 0.5
    mean = (source[middle].astype(float) + image[middle]) / 2
    assert np.abs(mixed[middle] - mean).max() <= 0.5


def test_scaling_keeps_what_a_mask_covers() -> None:
    share = np.zeros((16, 16), np.float32)
    share[4:12, 4:8] = 1
    large = cut(scale_share(share, (64, 64)))
    assert large.sum() == pytest.approx(share.sum() * 16, rel=0.01)  # corners are rounded
    assert scale_share(share, (16, 16)) is share
