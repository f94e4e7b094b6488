"""Working sizes (docs/method.md, section 1) and the way there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.video.size import scale_frame, working_size
from tests.helpers.clips import texture


@pytest.mark.parametrize(
    ("source", "resolution", "expected"),
    [
        ((480, 480), 512, (512, 512)), ((512, 512), 512, (512, 512)), ((640, 512), 512, (640, 512)),
        ((1280, 720), 512, (896, 512)), ((720, 1280), 512, (512, 896)),
        ((640, 272), 256, (576, 256)), ((176, 144), 512, (640, 512)), ((4000, 200), 64, (1280, 64)),
        ((16, 16), 64, (64, 64)), ((1920, 1080), 512, (896, 512)), ((854, 480), 512, (896, 512)),
        ((608, 512), 512, (640, 512)),  # 9.5 halves to even: 10
        ((544, 512), 512, (512, 512)),  # 8.5 halves to even: 8
        ((100, 100), 96, (128, 128)), ((100, 100), 33, (64, 64)),
    ],
)
def test_known_sizes(
    source: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    assert working_size(*source, resolution) == expected


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), resolution=st.integers(64, 1024))
def test_sizes_are_whole_and_near(width: int, height: int, resolution: int) -> None:
    for new, old in zip(working_size(width, height, resolution), (width, height), strict=True):
        ideal = old * resolution / min(width, height)
        assert new % 64 == 0
        assert new >= 64
        assert abs(new - ideal) <= 32 + 1e-6


@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_a_turned_picture_has_a_turned_size(width: int, height: int) -> None:
    assert working_size(width, height, 512) == working_size(height, width, 512)[::-1]


def test_resize_up_and_down() -> None:
    picture = texture(96, 128)
    small = scale_frame(picture, (64, 48))
    assert small.shape == (48, 64, 3)
    blocks = picture.reshape(48, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 0.5
    back = scale_frame(small, (128, 96))
    assert np.abs(back.astype(int) - picture).mean() < 1
    assert scale_frame(picture, (128, 96)) is picture
