"""Keyframes of a shot brought to one exposure and colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.blending.histogram import to_lab, to_rgb
from fresco.flow.dis import DisEstimator
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.colours import Comparison, find_levels, solve_levels, take_off
from fresco.run.translate import propagate_keys
from fresco.video.reader import open_source
from fresco.workspace import frame_name, write_image
from tests.helpers.clips import moving_texture, write_clip

Image = NDArray[np.uint8]

SIDE = 96
LEVELS = np.array([[0, 0, 0], [9, -4, 3], [-6, 2, 0], [4, 3, -5]], float)
"""What four keyframes have too much, on the scale of 8-bit Lab."""
DIMS = 14.0
"""What the source itself loses of lightness from the third frame on."""


def make_shot() -> tuple[list[Image], list[Image]]:
    """Sources that move and dim, and keyframes of other colours that have levels of their own."""
    plain = moving_texture(4, SIDE, SIDE)
    sources = [take_off(frame, np.array([DIMS * (n > 1), 0, 0])) for n, frame in enumerate(plain)]
    keys = [to_rgb(to_lab(source) * 0.6 + 60 + level[:, None, None].astype(np.float32))
            for source, level in zip(sources, LEVELS, strict=True)]
    return sources, keys


def test_levels_are_found_though_the_source_moves_and_dims() -> None:
    sources, keys = make_shot()
    found = find_levels(lambda n: (keys[n], sources[n]), ["a"] * 4, DisEstimator())
    wanted = LEVELS.copy()
    wanted[2:, 0] += 0.4 * DIMS  # these keyframes dim by less than their source does
    assert np.abs(found - (wanted - wanted.mean(axis=0))).max() < 1.0
    assert np.abs(found.mean(axis=0)).max() < 1e-6


def test_a_keyframe_with_other_words_stays_as_it_is() -> None:
    sources, keys = make_shot()
    found = find_levels(
        lambda n: (keys[n], sources[n]), ["a", "a", "a, night", "a"], DisEstimator()
    )
    assert np.abs(found[2]).max() < 1e-6
    assert np.abs(found[1] - found[0] - LEVELS[1]).max() < 1.0


def test_keyframes_that_show_nothing_of_each_other_stay() -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for _ in range(2)]
    found = find_levels(lambda n: (frames[n], frames[n]), ["a", "a"], DisEstimator())
    assert np.abs(found).max() < 1e-6


def test_one_keyframe_stays() -> None:
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert np.array_equal(find_levels(lambda n: (image, image), ["a"], DisEstimator()),
                          np.zeros((1, 3)))


def test_groups_that_are_not_compared_keep_their_own_mean() -> None:
    one = Comparison(0, 1, np.array([4.0, 0, 0]))
    other = Comparison(2, 3, np.array([0, 6.0, 90.0]))
    found = solve_levels(5, [one, other])
    wanted = [[-2, 0, 0], [2, 0, 0], [0, -3, -30], [0, 3, 30], [0, 0, 0]]  # 45 is limited to 30
    assert found == pytest.approx(np.array(wanted, float), abs=1e-9)


def test_external_keyframes_are_evened_out_on_request(tmp_path: Path) -> None:
    """What is carried has one lightness; the keyframes themselves stay, and a second run finds all
    that the first one made."""
    plain = moving_texture(5, SIDE, SIDE)
    clip = write_clip(tmp_path / "clip.mp4", plain)
    folder = tmp_path / "keys"
    folder.mkdir()
    for number, level in ((0, -12.0), (4, 12.0)):
        image = take_off(plain[number], np.array([-level, 0, 0]))
        write_image(folder / frame_name(number), image)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def spread(even: bool) -> float:
        settings = from_dict({
            "flow": {"estimator": "dis"}, "keyframes": {"detect_shots": False},
            "propagation": {"method": "flow", "workers": 1, "even_colours": even},
        })
        output = tmp_path / f"{even}.mp4"
        propagate_keys(clip, folder, output, settings, Progress())
        with open_source(output) as video:
            means = [float(to_lab(frame)[0].mean()) for frame in video.frames()]
        return max(means) - min(means)

    assert spread(False) > 18
    assert spread(True) < 4
    assert spread(True) < 4
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
