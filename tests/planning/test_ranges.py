"""Ranges of frames with a prompt, a strength or a seed of their own."""

from __future__ import annotations

import pytest

from fresco.errors import SettingsError
from fresco.planning.keyframes import make_plan
from fresco.planning.prompts import choose_negatives, compose_prompts, list_prompts, refuse_composed
from fresco.planning.ranges import (
    FrameRange,
    check_ranges,
    choose_options,
    cut_at_ranges,
    find_idle_ranges,
    parse_ranges,
)
from fresco.planning.shots import Shot
from fresco.settings import KeyframeSettings, SamplingSettings

SNOW = "10-19 strength=0.6 seed=7 prompt=a castle, in snow: (white:1.2) negative=rain"


def test_a_range_is_read_with_all_it_may_have() -> None:
    assert parse_ranges(("30- prompt=b", SNOW, "5: seed=1")) == (
        FrameRange(5, 5, seed=1),
        FrameRange(10, 19, "a castle, in snow: (white:1.2)", "rain", 0.6, 7),
        FrameRange(30, 999_999_999, "b"),
    )


@pytest.mark.parametrize(("texts", "told"), [
    (("prompt=x",), "does not begin with frames"),
    (("9-4 prompt=x",), "before its first"),
    (("0-4 snow",), "'snow' has no name"),
    (("0-4",), "changes nothing"),
    (("0-4 seed=1 seed=2",), "seed twice"),
    (("0-4 strength=1.5",), "strength '1.5'"),
    (("0-4 strength=nan",), "strength 'nan'"),
    (("0-4 seed=-1",), "seed '-1'"),
    (("0-4 seed=1", "4-9 seed=2"), "overlap at frame 4"),
])
def test_what_cannot_be_meant_is_refused(texts: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parse_ranges(texts)


def test_frames_behind_the_source_are_refused() -> None:
    sampling = SamplingSettings(ranges=("0-9 seed=1",))
    check_ranges(sampling, 10)
    with pytest.raises(SettingsError, match="holds 0-9, but the source ends with frame 8"):
        check_ranges(sampling, 9)
    check_ranges(SamplingSettings(ranges=("8- seed=1",)), 9)


def test_frames_have_the_options_of_their_range() -> None:
    sampling = SamplingSettings(
        prompt="a castle", added_prompt="oil", key_prompts={"12": "birds"}, ranges=(SNOW,),
        negative_prompt="text", seed=3,
    )
    words = "a castle, in snow: (white:1.2)"
    assert compose_prompts((9, 12, 20), sampling) == (
        "a castle, oil", f"{words}, birds, oil", "a castle, oil")
    assert choose_negatives((9, 12), sampling) == ("text", "rain")
    assert (choose_options(sampling, 12).seed, choose_options(sampling, 20).seed) == (7, 3)
    with pytest.raises(SettingsError, match="ranges 0-5 prompt is 'a AND b'"):
        refuse_composed(list_prompts(SamplingSettings(ranges=("0-5 prompt=a AND b",))))


def test_no_batch_holds_keyframes_of_two_ranges() -> None:
    sampling = SamplingSettings(ranges=("4-7 seed=1",))
    assert cut_at_ranges((0, 2, 4, 6, 8, 10), sampling) == ((0, 2), (4, 6), (8, 10))
    plans, _ = make_plan(
        [0.0] * 12, [Shot(0, 11)], KeyframeSettings(keys="0,2,4,6,8,10"), first=0,
        split=lambda keys: cut_at_ranges(keys, sampling),
    )
    assert [[batch.all for batch in group] for group in plans[0].groups] == [
        [(0, 2)], [(4, 6)], [(8, 10, 11)]]
    assert len(plans[0].segments) == 6  # frames between are carried across
    assert find_idle_ranges([0, 8], sampling)[0].startswith("The range 4-7 is not used")
