"""The words of each keyframe: base prompt, words of single keyframes, added words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from fresco.errors import SettingsError
from fresco.planning.parsing import parse_frame_number
from fresco.planning.ranges import choose_options, find_idle_ranges, parse_ranges
from fresco.settings import SamplingSettings


def compose_prompts(frames: Sequence[int], settings: SamplingSettings) -> tuple[str, ...]:
    """The prompt of each frame: base or its range's, the words of exactly that frame, added words.

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
    """The negative prompt of each frame: that for all, or its range's."""
    return tuple(choose_options(settings, frame).negative_prompt for frame in frames)


def list_composed(settings: SamplingSettings) -> tuple[str, ...]:
    """Every prompt that any frame may have, and the negative one; without those of ranges, which
    are digested by themselves."""
    settings = dataclasses.replace(settings, ranges=())
    numbers = sorted(map(parse_frame_number, settings.key_prompts))
    free = next(number for number in range(len(numbers) + 1) if number not in numbers)
    return (*compose_prompts((free, *numbers), settings), settings.negative_prompt)


def join_prompt(*parts: str) -> str:
    """Parts of a prompt joined by a comma; empty ones and commas at the seams are dropped."""
    stripped = (part.strip().strip(",").strip() for part in parts)
    return ", ".join(part for part in stripped if part)


def list_prompts(settings: SamplingSettings) -> dict[str, str]:
    """Every prompt of the settings, by the name of its option."""
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
    """Refuse prompts composed with AND: they give a frame more than one row in the UNet's batch.

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
    """A sentence for every key prompt whose frame is not a keyframe, and each range without one."""
    known = sorted(keys)
    idle = [n for n in sorted(map(parse_frame_number, settings.key_prompts)) if n not in known]
    return (*(
        f"The words for frame {number} are not used, because it is not a keyframe; the nearest is "
        f"{min(known, key=lambda key: abs(key - number))}. Make it a keyframe or move the words."
        for number in idle if known
    ), *find_idle_ranges(known, settings))
