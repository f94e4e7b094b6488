"""Guides against plain sums and known motion."""

from __future__ import annotations

import numpy as np
import pytest

from fresco.propagation.guides import KeySources, detect_edges, encode_positions, normalise_distance
from tests.helpers.scenes import negative, texture

HEIGHT, WIDTH = 20, 24
FRAME = texture(HEIGHT, WIDTH, 3)


def test_edges_are_the_laplacian_cut_off_at_both_ends() -> None:
    grey = FRAME[..., 1].copy()
    grey[5, 5], grey[9, 9] = 255, 0
    found = detect_edges(np.repeat(grey[..., None], 3, axis=-1))
    plain = np.zeros_like(grey)
    for y in range(1, HEIGHT - 1):
        for x in range(1, WIDTH - 1):
            value = 4 * int(grey[y, x]) - sum(
                int(grey[y + b, x + a]) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)))
            plain[y, x] = min(max(value, 0), 255)
    np.testing.assert_array_equal(found[1:-1, 1:-1], plain[1:-1, 1:-1])
    assert (found[5, 5], found[9, 9]) == (255, 0)


def test_positions_are_a_ramp_down_in_red_and_right_in_green() -> None:
    still = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    ramp = encode_positions(still)
    np.testing.assert_array_equal(ramp[:, 3, 0], np.rint(np.arange(HEIGHT) * 255 / (HEIGHT - 1)))
    np.testing.assert_array_equal(ramp[4, :, 1], np.rint(np.arange(WIDTH) * 255 / (WIDTH - 1)))
    assert ramp[..., 2].max() == 0
    moved = encode_positions(still - np.float32([3, 2]))
    np.testing.assert_array_equal(moved[2:, 3:], ramp[:-2, :-3])
    np.testing.assert_array_equal(moved[:2, :3], np.zeros((2, 3, 3)))
    assert encode_positions(np.zeros((1, 1, 2), np.float32)).shape == (1, 1, 3)


def test_guides_of_a_moved_frame_name_what_went_where() -> None:
    key = KeySources.from_frame(FRAME, negative(FRAME))
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32) - np.float32([3, 0])
    guides = {guide.name: guide for guide in key.make_guides(FRAME[::-1], flow)}
    assert {name: guide.weight for name, guide in guides.items()} == {
        "colour": 6, "edge": 0.5, "temporal": 0.5, "position": 2}
    np.testing.assert_array_equal(guides["temporal"].target[:, 3:], negative(FRAME)[:, :-3])
    np.testing.assert_array_equal(guides["temporal"].source, negative(FRAME))
    np.testing.assert_array_equal(guides["position"].target[:, 3:], key.position[:, :-3])
    np.testing.assert_array_equal(guides["colour"].target, FRAME[::-1])
    np.testing.assert_array_equal(guides["edge"].target, detect_edges(FRAME[::-1]))


def test_distances_are_mean_squares() -> None:
    """Every channel of every guide and of the style ten levels off, in a patch of 25 pixels."""
    distance = np.full((2, 2), 25 * (1 + 6 + 0.5 + 0.5 + 2) * 10**2, np.float32)
    assert normalise_distance(distance) == pytest.approx(np.full((2, 2), 100.0))
