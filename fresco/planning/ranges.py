"""Ranges of frames with their own prompt, negative prompt, strength or seed.

A range is written `48-95 strength=0.6 seed=7 prompt=a castle in snow negative=rain`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from fresco.errors import SettingsError
from fresco.settings import SamplingSettings

_FRAMES = re.compile(r"\s*(\d{1,9})(?:\s*(-)\s*(\d{1,9})?)?\s*[:,;]?(?=\s|$)", re.ASCII)
_NAME = re.compile(r"(?:^|\s)(prompt|negative|strength|seed)\s*=", re.ASCII)
_MOST_SEED = 2**63 - 1
_END = 999_999_999
"""Last frame of a range that is left open."""


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frames of the source, and their own options."""

    first: int
    """First frame, included."""
    last: int
    """Last frame, included."""
    prompt: str | None = None
    """Instead of `sampling.prompt`."""
    negative_prompt: str | None = None
    """Instead of `sampling.negative_prompt`."""
    strength: float | None = None
    """Instead of `sampling.strength`."""
    seed: int | None = None
    """Instead of `sampling.seed`."""

    @property
    def name(self) -> str:
        """Its name in messages, such as `48-95`."""
        return f"{self.first}-{'' if self.last == _END else self.last}"

    def over(self, sampling: SamplingSettings) -> SamplingSettings:
        """The options of its frames, made from those of all frames."""
        values = {
            "prompt": self.prompt, "negative_prompt": self.negative_prompt,
            "strength": self.strength, "seed": self.seed,
        }
        given = {name: value for name, value in values.items() if value is not None}
        return dataclasses.replace(sampling, **given)


@lru_cache(maxsize=64)
def parse_ranges(texts: tuple[str, ...]) -> tuple[FrameRange, ...]:
    """Read ranges, and return them in the order of their frames.

    Raises:
        SettingsError: one cannot be understood, or two overlap.
    """
    ranges = sorted((_parse(text) for text in texts), key=lambda each: each.first)
    for before, after in pairwise(ranges):
        if after.first <= before.last:
            raise SettingsError(
                f"sampling.ranges holds {before.name} and {after.name}, which overlap at frame "
                f"{after.first}; give every frame to one range at most."
            )
    return tuple(ranges)


def _parse(text: str) -> FrameRange:
    frames = _FRAMES.match(text)
    if not frames:
        raise _refuse(text, "which does not begin with frames; write such as 48-95 strength=0.6 "
                            "prompt=a castle in snow")
    first = int(frames[1])
    last = (int(frames[3]) if frames[3] else _END) if frames[2] else first
    if last < first:
        raise _refuse(text, f"whose last frame, {last}, is before its first; swap them")
    rest = text[frames.end():]
    names = list(_NAME.finditer(rest))
    before = rest[:names[0].start()] if names else rest
    if before.strip():
        raise _refuse(text, f"where {before.strip()!r} has no name; known are prompt=, negative=, "
                            "strength= and seed=")
    if not names:
        raise _refuse(text, "which changes nothing; add prompt=, negative=, strength= or seed=")
    ends = [match.start() for match in names[1:]] + [len(rest)]
    given: dict[str, str] = {}
    for match, end in zip(names, ends, strict=True):
        if match[1] in given:
            raise _refuse(text, f"which gives {match[1]} twice; leave one out")
        given[match[1]] = rest[match.end():end].strip()
    return FrameRange(
        first, last, given.get("prompt"), given.get("negative"),
        _read_strength(text, given.get("strength")), _read_seed(text, given.get("seed")),
    )


def _read_strength(text: str, word: str | None) -> float | None:
    if word is None:
        return None
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise _refuse(text, f"whose strength {word!r} is not a number from 0 to 1")
    return value


def _read_seed(text: str, word: str | None) -> int | None:
    if word is None:
        return None
    if not re.fullmatch(r"\d{1,19}", word, re.ASCII) or int(word) > _MOST_SEED:
        raise _refuse(text, f"whose seed {word!r} is not a whole number from 0; a random one is "
                            "drawn for the whole run only")
    return int(word)


def _refuse(text: str, why: str) -> SettingsError:
    return SettingsError(f"sampling.ranges holds {text[:80]!r}, {why}.")


def check_ranges(sampling: SamplingSettings, frames: int) -> None:
    """Raise SettingsError if a range ends after the last frame of the source."""
    for each in parse_ranges(sampling.ranges):
        end = each.first if each.last == _END else each.last
        if end >= frames:
            raise SettingsError(
                f"sampling.ranges holds {each.name}, but the source ends with frame {frames - 1}; "
                "frames are counted from 0."
            )


def find_range(sampling: SamplingSettings, frame: int) -> FrameRange | None:
    """Find the range that contains a frame."""
    known = parse_ranges(sampling.ranges)
    return next((each for each in known if each.first <= frame <= each.last), None)


def choose_options(sampling: SamplingSettings, frame: int) -> SamplingSettings:
    """The options of one frame."""
    found = find_range(sampling, frame)
    return found.over(sampling) if found else sampling


def cut_at_ranges(frames: Sequence[int], sampling: SamplingSettings) -> tuple[tuple[int, ...], ...]:
    """Split frames, rising, into groups that are in one range each, or in none."""
    borders = {each.first for each in parse_ranges(sampling.ranges)}
    borders |= {each.last + 1 for each in parse_ranges(sampling.ranges)}
    groups: list[list[int]] = []
    before = None
    for frame in frames:
        place = sum(border <= frame for border in borders)
        if place != before:
            groups.append([])
        groups[-1].append(frame)
        before = place
    return tuple(map(tuple, groups))


def find_idle_ranges(keys: Iterable[int], sampling: SamplingSettings) -> tuple[str, ...]:
    """Make a note for every range without a keyframe."""
    known = sorted(keys)
    return tuple(
        f"The range {each.name} is not used, because no keyframe lies in it; make one of its "
        "frames a keyframe."
        for each in parse_ranges(sampling.ranges)
        if not any(each.first <= key <= each.last for key in known)
    )
