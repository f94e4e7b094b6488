"""Keyframes and batches: equal to the official tool where it is right, total elsewhere."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import SettingsError
from fresco.planning.keyframes import (
    Batch,
    ChangeScore,
    make_plan,
    plan_batches,
    plan_segments,
    select_keyframes,
)
from fresco.settings import KeyframeSettings
from tests.helpers.clips import package_clip
from tests.helpers.shared import GOLDEN, SHARED, golden
from tests.helpers.tolerances import CHANGE_SCORE_RELATIVE

OWN = json.loads((GOLDEN / "keyframes.json").read_text("utf-8"))
OWN_SCORES: dict[str, list[float]] = json.loads(
    (GOLDEN / "01_keyframes" / "own_scores.json").read_text("utf-8")
)["scores"]
CLIPS = {"car": "car-turn.mp4", "dog": "dog.mp4"}
FRAMES_SCORED = 60
"""Enough of a clip to tell its curve; all 300 frames of dog take four seconds."""


@dataclass(frozen=True)
class Range:
    first: int
    last: int


def obeys(keys: list[int], frames: int, high: int) -> bool:
    """Whether an official list has the last frame and no gap above the interval."""
    return keys[-1] == frames - 1 and max(np.diff(keys), default=0) <= high


def plain_select(scores: list[float], low: int, high: int) -> list[int]:
    """The global choice as plain loops over sets, for lists that need no repair."""
    last = len(scores) - 1
    free = set(range(low, len(scores) - low))
    keys = {0, last}
    while any(b - a > high for a, b in itertools.pairwise(sorted(keys))):
        best = max(free, key=lambda i: (scores[i], -i), default=None)
        if best is None:
            break
        keys.add(best)
        free -= set(range(best - low, best + low))
    return sorted(keys)


# Change scores


def scored_clip(name: str) -> tuple[Path, list[float]]:
    """A clip and its curve: an official one, or a packaged one (tests/golden/README.md)."""
    if name in OWN_SCORES:
        return package_clip(name), OWN_SCORES[name]
    return SHARED / "clips" / CLIPS[name], golden("01_keyframes", name)[0]["err"][:FRAMES_SCORED]


HERE = [name for name, file in CLIPS.items() if (SHARED / "clips" / file).exists()]


@pytest.mark.parametrize("name", [*OWN_SCORES, *HERE])
def test_change_scores_are_the_official_curve(name: str) -> None:
    path, wanted = scored_clip(name)
    video = cv2.VideoCapture(str(path))
    score, curve = ChangeScore(), []
    for _ in range(len(wanted)):
        done, bgr = video.read()
        assert done
        curve.append(score.update(bgr[:, :, ::-1]))
    video.release()
    assert curve[0] == 0.0
    np.testing.assert_allclose(curve, wanted, rtol=CHANGE_SCORE_RELATIVE)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (200, 4000), (17, 1), (512, 512)])
def test_change_is_known_for_plain_frames_of_any_size(height: int, width: int) -> None:
    score = ChangeScore()
    dark, light = np.zeros((height, width, 3), np.uint8), np.full((height, width, 3), 255, np.uint8)
    # Black to white is 2 in the range [-1, 1].
    assert [score.update(f) for f in (dark, dark, light, dark)] == [0.0, 0.0, 4.0, 4.0]


def test_change_ignores_pixel_noise_more_than_motion() -> None:
    generator = np.random.default_rng(0)
    frame = np.full((512, 512, 3), 128, np.uint8)
    noisy = np.clip(frame + generator.normal(0, 20, frame.shape), 0, 255).astype(np.uint8)
    moved = frame.copy()
    moved[100:300, 100:300] = 168
    changes = []
    for other in (noisy, moved):
        score = ChangeScore()
        score.update(frame)
        changes.append(score.update(other))
    # The raw squared differences are about equal (0.024 and 0.015).
    assert changes[0] < changes[1] / 5


# Keyframes


def official_cases() -> list[tuple[str, int]]:
    return [(name, index) for name in CLIPS for index in range(28)]


@pytest.mark.parametrize(("name", "index"), official_cases())
def test_keyframes_are_the_official_ones_or_repair_them(name: str, index: int) -> None:
    arrays, note = golden("01_keyframes", name)
    case = note["cases"][index]
    frames, low, high = case["lastframen"], case["mininterv"], case["maxinterv"]
    ours = list(select_keyframes(arrays["err"][:frames], low, high))
    if obeys(case["keys"], frames, high):
        assert ours == case["keys"]
    else:
        assert set(case["keys"]) < set(ours)
        assert obeys(ours, frames, high)


def test_golden_cases_were_all_visited() -> None:
    notes = [golden("01_keyframes", name)[1] for name in CLIPS]
    assert [len(note["cases"]) for note in notes] == [28, 28]
    right = [obeys(c["keys"], c["lastframen"], c["maxinterv"]) for n in notes for c in n["cases"]]
    assert sum(right) == 31


def test_published_keyframes_of_dog() -> None:
    arrays, _ = golden("01_keyframes", "dog")
    assert select_keyframes(arrays["err"], 10, 30) == (
        0, 11, 23, 33, 49, 60, 72, 82, 93, 106, 120, 137, 151, 170, 182, 193, 213, 228, 238, 252,
        262, 288, 299,
    )


@pytest.mark.parametrize("case", OWN["keyframes"], ids=lambda c: f"{c['min']}-{c['max']}")
def test_keyframes_of_own_vectors(case: dict[str, Any]) -> None:
    assert list(select_keyframes(OWN["scores"], case["min"], case["max"])) == case["keys"]


scores = st.lists(st.integers(1, 1000).map(lambda n: n / 1000), min_size=1, max_size=80)


@given(scores, st.integers(0, 30), st.integers(1, 40))
def test_first_and_last_are_keys_and_no_gap_is_too_large(
    curve: list[float], low: int, high: int
) -> None:
    keys = select_keyframes(curve, low, high)
    assert keys[0] == 0
    assert keys[-1] == len(curve) - 1
    assert all(0 < b - a <= high for a, b in itertools.pairwise(keys))


@given(scores, st.integers(1, 12), st.integers(1, 40))
def test_choice_is_that_of_plain_loops_plus_the_fewest_cuts(
    curve: list[float], low: int, more: int
) -> None:
    high = low + more
    plain = plain_select(curve, low, high)
    ours = select_keyframes(curve, low, high)
    assert set(plain) <= set(ours)
    cuts = sum(-(-(b - a) // high) - 1 for a, b in itertools.pairwise(plain))
    assert len(ours) == len(plain) + cuts


@given(scores, st.integers(2, 12))
def test_no_two_keys_are_nearer_than_the_minimum_if_it_leaves_room(
    curve: list[float], low: int
) -> None:
    # From three times the minimum on every gap has room for a key that keeps its distance.
    keys = select_keyframes(curve, low, 3 * low)
    assert all(b - a >= low for a, b in itertools.pairwise(keys)) or len(curve) - 1 < low


@given(scores, st.integers(1, 20))
def test_minimum_of_zero_is_one(curve: list[float], high: int) -> None:
    if high > 1:
        assert select_keyframes(curve, 0, high) == select_keyframes(curve, 1, high)


@pytest.mark.parametrize(("low", "high"), [(0, 10), (1, 10), (4, 10), (20, 10)])
def test_a_still_shot_is_split_evenly(low: int, high: int) -> None:
    assert select_keyframes([0.0] * 41, low, high) == (0, 10, 20, 30, 40)


@given(st.integers(1, 300), st.integers(0, 40), st.integers(1, 40))
def test_gaps_of_a_still_shot_differ_by_one_frame_at_most(frames: int, low: int, high: int) -> None:
    gaps = np.diff(select_keyframes([0.0] * frames, low, high)) if low != high else []
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize(
    ("frames", "low", "high", "keys"),
    [
        (0, 10, 30, ()), (1, 10, 30, (0,)), (2, 10, 30, (0, 1)), (3, 0, 1, (0, 1, 2)),
        (1, 5, 5, (0,)), (2, 5, 5, (0, 1)), (11, 5, 5, (0, 5, 10)), (12, 5, 5, (0, 5, 10, 11)),
        (4, 1, 1, (0, 1, 2, 3)), (3, 1000, 1000, (0, 2)),
    ],
)
def test_any_number_of_frames(frames: int, low: int, high: int, keys: tuple[int, ...]) -> None:
    assert select_keyframes([0.1] * frames, low, high) == keys


def test_a_gap_is_cut_at_its_largest_change() -> None:
    curve = [0.1] * 21
    curve[8] = 0.9
    # The minimum strikes out every frame; the gap of 20 still needs one cut, at 5 to 15.
    assert select_keyframes(curve, 30, 15) == (0, 10, 20)
    assert select_keyframes(curve, 19, 15) == (0, 10, 20)
    curve = [0.1] * 31
    curve[12] = 0.9
    assert select_keyframes(curve, 16, 20) == (0, 15, 30)
    assert 12 in select_keyframes(curve, 12, 20)


# Batches


@pytest.mark.parametrize("variant", ["run_fresco", "webUI"])
def test_batches_are_the_official_ones_where_those_have_no_problem(variant: str) -> None:
    file = GOLDEN / "01_keyframes" / "batch_split.json"
    cases = json.loads(file.read_text("utf-8"))["cases"]
    right = [case for case in cases[variant] if not case["problems"]]
    assert len(right) == {"run_fresco": 122, "webUI": 100}[variant]
    for case in right:
        keys = [5 * i for i in range(case["n_keys"])]
        ours = [list(batch.frames) for batch in plan_batches(keys, case["batch_size"])]
        assert ours == case["sublists"], case


@pytest.mark.parametrize("case", OWN["batches"], ids=lambda c: f"{c['count']}-of-{c['size']}")
def test_batches_of_own_vectors(case: dict[str, Any]) -> None:
    ours = [list(batch.frames) for batch in plan_batches(range(case["count"]), case["size"])]
    assert ours == case["new"]


@given(st.integers(0, 100), st.integers(3, 20))
def test_batches_hold_every_key_once_with_the_right_anchors(count: int, size: int) -> None:
    keys = [7 * i for i in range(count)]
    batches = plan_batches(keys, size)
    assert [key for batch in batches for key in batch.frames] == keys
    assert [batch.number for batch in batches] == list(range(len(batches)))
    for before, batch in itertools.pairwise(batches):
        assert batch.anchors == (keys[0], before.frames[-1])
        assert batch.all == batch.anchors + batch.frames
    assert not batches or batches[0].anchors == ()


@given(st.integers(3, 100), st.integers(3, 20))
def test_batch_sizes_stay_within_bounds(count: int, size: int) -> None:
    sizes = [len(batch.all) for batch in plan_batches(range(count), size)]
    assert min(sizes) >= 3
    assert max(sizes[:-1], default=0) <= size
    # Two anchors and a tail of three: one above a size of 4, and never more than one.
    assert sizes[-1] <= (size if size >= 5 else size + 1)


@given(st.integers(1, 100), st.integers(5, 20))
def test_the_last_batch_never_is_a_mere_rest(count: int, size: int) -> None:
    batches = plan_batches(range(count), size)
    assert len(batches) == 1 or len(batches[-1].frames) >= 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8])
def test_few_keys_are_one_batch(count: int) -> None:
    batches = plan_batches(range(count), 8)
    assert batches == ((Batch(0, (), tuple(range(count))),) if count else ())


@pytest.mark.parametrize(("count", "size", "sizes"), [(4, 3, [3, 3]), (5, 4, [3, 4])])
def test_the_first_batch_keeps_three_where_the_official_one_is_left_with_less(
    count: int, size: int, sizes: list[int]
) -> None:
    assert [len(batch.all) for batch in plan_batches(range(count), size)] == sizes


@given(st.lists(st.integers(0, 999), unique=True, min_size=1).map(sorted))
def test_segments_join_neighbours(keys: list[int]) -> None:
    segments = plan_segments(keys)
    assert [segment.first for segment in segments] == keys[:-1]
    assert [segment.last for segment in segments] == keys[1:]


# Plans


@given(st.integers(1, 60), st.integers(0, 50), st.data())
def test_plans_never_cross_a_cut(count: int, first: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, count - 1)), max_size=3)))
    bounds = [0, *(cut for cut in cuts if cut < count), count]
    shots = [Range(a, b - 1) for a, b in itertools.pairwise(bounds)]
    settings = KeyframeSettings(min_interval=2, max_interval=6, batch_size=4)
    curve = [((i * 37) % 11 + 1) / 11 for i in range(count)]
    plans, _ = make_plan(curve, shots, settings, first=first)
    covered = []
    for shot, plan in zip(shots, plans, strict=True):
        inside = range(shot.first + first, shot.last + first + 1)
        assert plan.keyframes[0] == inside[0]
        assert plan.keyframes[-1] == inside[-1]
        used = [frame for batch in plan.batches for frame in batch.all]
        used += [end for segment in plan.segments for end in (segment.first, segment.last)]
        assert set(used) <= set(inside)
        between = [n for s in plan.segments for n in range(s.first + 1, s.last)]
        covered += sorted([*plan.keyframes, *between])
    assert covered == list(range(first, first + count))


def test_the_change_across_a_cut_makes_no_keyframe() -> None:
    curve = [0.1] * 40
    curve[20] = 9.0
    settings = KeyframeSettings(min_interval=1, max_interval=18)
    plans, _ = make_plan(curve, [Range(0, 19), Range(20, 39)], settings)
    shifted, _ = make_plan(curve[20:], [Range(0, 19)], settings, first=20)
    assert plans[1] == shifted[0]
    assert plans[1].keyframes == (20, 21, 39)


def test_keys_by_hand_are_taken_and_the_ends_added_with_a_note() -> None:
    settings = KeyframeSettings(keys="3 12 14", max_interval=2, batch_size=8)
    plans, notes = make_plan([0.1] * 20, [Range(0, 9), Range(10, 19)], settings)
    assert [plan.keyframes for plan in plans] == [(0, 3, 9), (10, 12, 14, 19)]
    assert [int(note.split()[1]) for note in notes] == [0, 9, 10, 19]


def test_keys_by_hand_that_hold_the_ends_need_no_note() -> None:
    settings = KeyframeSettings(keys="100,105,109")
    plans, notes = make_plan([0.1] * 10, [Range(0, 9)], settings, first=100)
    assert plans[0].keyframes == (100, 105, 109)
    assert notes == ()


@pytest.mark.parametrize("key", [99, 110])
def test_keys_by_hand_outside_the_frames_used_are_refused(key: int) -> None:
    with pytest.raises(SettingsError, match=f"{key} .*100 to 109"):
        make_plan([0.1] * 10, [Range(0, 9)], KeyframeSettings(keys=str(key)), first=100)


def test_a_key_on_every_frame_is_warned_of() -> None:
    settings = KeyframeSettings(min_interval=1, max_interval=1)
    assert "max_interval is 1" in make_plan([0.1] * 4, [Range(0, 3)], settings)[1][0]
    assert not make_plan([0.0], [Range(0, 0)], settings)[1]


def test_a_batch_above_its_size_is_told() -> None:
    settings = KeyframeSettings(min_interval=1, max_interval=2, batch_size=4, keys="0,1,2,3,4,5")
    plans, notes = make_plan([0.1] * 6, [Range(0, 5)], settings)
    assert [len(batch.all) for batch in plans[0].batches] == [3, 5]
    assert len(notes) == 1
    assert "holds 5 frames, above batch_size 4" in notes[0]
