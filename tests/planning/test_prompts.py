"""The words of each keyframe."""

from __future__ import annotations

import pytest

from fresco.errors import SettingsError
from fresco.planning.prompts import (
    compose_prompts,
    find_unused_words,
    list_prompts,
    refuse_composed,
)
from fresco.settings import SamplingSettings


def test_prompts_join_base_own_and_added_words() -> None:
    settings = SamplingSettings(
        prompt="a cat,", key_prompts={"38": "closed eyes", "5": " "}, added_prompt=" , oil painting"
    )
    assert compose_prompts((0, 5, 38), settings) == (
        "a cat, oil painting", "a cat, oil painting", "a cat, closed eyes, oil painting",
    )


def test_empty_parts_leave_no_comma() -> None:
    assert compose_prompts((1, 2), SamplingSettings(key_prompts={"2": "x"})) == ("", "x")


@pytest.mark.parametrize("number", ["-1", "x", "1.5", ""])
def test_key_prompts_need_frame_numbers(number: str) -> None:
    with pytest.raises(SettingsError, match="is not a frame number"):
        compose_prompts((0,), SamplingSettings(key_prompts={number: "x"}))


@pytest.mark.parametrize("option", ["prompt", "added_prompt", "negative_prompt"])
def test_composed_prompts_are_refused(option: str) -> None:
    with pytest.raises(SettingsError, match=f"{option} is 'a AND b'"):
        refuse_composed(list_prompts(SamplingSettings(**{option: "a AND b"})))
    with pytest.raises(SettingsError, match="key_prompts 3"):
        compose_prompts((0,), SamplingSettings(key_prompts={"3": "sky AND, sea"}))


def test_and_in_other_words_is_no_composition() -> None:
    refuse_composed({"prompt": "salt and pepper, BRAND, LANDSCAPE, sand", "empty": ""})


def test_words_for_frames_that_are_no_keyframes_are_told() -> None:
    settings = SamplingSettings(key_prompts={"10": "a", "12": "b"})
    notes = find_unused_words((0, 10, 20), settings)
    assert len(notes) == 1
    assert "frame 12" in notes[0]
    assert "nearest is 10" in notes[0]
