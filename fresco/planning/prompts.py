"""Compose the prompt of each keyframe."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from fresco.errors import SettingsError
from fresco.planning.parsing import parse_frame_number
from fresco.planning.ranges import choose_options, find_idle_ranges, parse_ranges
from fresco.settings import SamplingSettings


def compose_prompts(frames: Sequence[int], settings: SamplingSettings) -> tuple[str, ...]:
    """Make the prompt of each frame: base or its range's, the frame's own words, added words.

    Args:
        frames: numbers of keyframes in the source.
        settings: base prompt, ranges, words by frame number, added words.
    """
    refuse_composed(list_prompts(settings))
    words = {parse_frame_number(number): text for number, text in settings.key_prompts.items()}
    return tuple(
        join_prompt(
            choose_options(settings, frame).prompt, words.get(frame, ""), settings.added_prompt
        )
        for frame in frames
    )


def choose_negatives(frames: Sequence[int], settings: SamplingSettings) -> tuple[str, ...]:
    """Choose the negative prompt of each frame: its range's, or that for all frames."""
    return tuple(choose_options(settings, frame).negative_prompt for frame in frames)


def list_composed(settings: SamplingSettings) -> tuple[str, ...]:
    """List every prompt that a frame can have, and the negative one; without those of ranges."""
    settings = dataclasses.replace(settings, ranges=())
    numbers = sorted(map(parse_frame_number, settings.key_prompts))
    free = next(number for number in range(len(numbers) + 1) if number not in numbers)
    return (*compose_prompts((free, *numbers), settings), settings.negative_prompt)


def join_prompt(*parts: str) -> str:
    """Join parts of a prompt by commas; empty parts and commas at their ends are dropped."""
    stripped = (part.strip().strip(",").strip() for part in parts)
    return ", ".join(part for part in stripped if part)


def list_prompts(settings: SamplingSettings) -> dict[str, str]:
    """List every prompt of the settings, by the name of its option."""
    prompts = {
        "sampling.prompt": settings.prompt, "sampling.added_prompt": settings.added_prompt,
        "sampling.negative_prompt": settings.negative_prompt,
    }
    for each in parse_ranges(settings.ranges):
        for name, text in (("prompt", each.prompt), ("negative", each.negative_prompt)):
            prompts |= {f"sampling.ranges {each.name} {name}": text} if text else {}
    return prompts | {
        f"sampling.key_prompts {number}": text for number, text in settings.key_prompts.items()
    }


def refuse_composed(prompts: Mapping[str, str]) -> None:
    """Refuse prompts with AND, because they give a frame more than one row in the UNet.

    Args:
        prompts: texts by the name that the error gives them.

    Raises:
        SettingsError: one of them is composed.
    """
    for name, text in prompts.items():
        if re.search(r"\bAND\b", text):
            raise SettingsError(
                f"{name} is {text!r}; FRESCO cannot guide prompts composed with AND. "
                "Write it in small letters, or use a comma."
            )


def find_unused_words(keys: Iterable[int], settings: SamplingSettings) -> tuple[str, ...]:
    """Make a note for every key prompt of a frame that is not a keyframe, and each unused range."""
    known = sorted(keys)
    idle = [n for n in sorted(map(parse_frame_number, settings.key_prompts)) if n not in known]
    return (*(
        f"The words for frame {number} are not used, because it is not a keyframe; the nearest is "
        f"{min(known, key=lambda key: abs(key - number))}. Make it a keyframe or move the words."
        for number in idle if known
    ), *find_idle_ranges(known, settings))
