"""Bring timestamps of files into one rising order: wrong ones, missing ones, restarts.

A stream that was joined of parts starts its clock again in the middle; like FFmpeg's own programs,
we continue it there. A single wrong or missing timestamp does not affect its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import Any

_AHEAD = 16
"""Items within which a clock must be back at its place, or it counts as started again."""

_NEAR = Fraction(3, 2)
"""Lengths of an item that a timestamp may be off its expected place."""

Place = Fraction | int


def to_fraction(value: Any, otherwise: Fraction | int = 0) -> Fraction:
    """Convert a ratio of PyAV, which has its own type since version 19.

    Args:
        otherwise: where the file says nothing, or 0.
    """
    return Fraction(value or otherwise)


@dataclass(frozen=True, slots=True)
class RepairedStamps:
    """Timestamps that rise, in the units of the stored ones."""

    stamps: tuple[Place, ...]
    """One timestamp for each stored one."""
    replaced: frozenset[int]
    """Numbers of the timestamps that were wrong or missing."""
    shifts: tuple[int, ...]
    """What was added to the stored ones, part by part: (0,) where the clock never starts again."""
    parts: tuple[int, ...]
    """Number of the first item of each part."""


def find_typical_length(stored: Sequence[int | None], otherwise: int) -> int:
    """Median step from one timestamp to the next."""
    known = [stamp for stamp in stored if stamp is not None]
    steps = [b - a for a, b in pairwise(known) if b > a]
    return median_low(steps) if steps else max(1, otherwise)


def repair_stamps(
    stored: Sequence[int | None], lengths: Sequence[int], *, longest_gap: int | None = None
) -> RepairedStamps:
    """Bring timestamps into rising order.

    Args:
        lengths: of each item, above 0.
        longest_gap: a step forward above this counts as a clock that starts again; None: no step.
    """
    repair = _Repair(stored, lengths, longest_gap)
    for number in range(len(stored)):
        repair.place(number)
    replaced = frozenset(n for n, stamp in enumerate(repair.placed) if stamp is None)
    return RepairedStamps(
        _fill(repair.placed, lengths), replaced, tuple(repair.shifts), tuple(repair.parts)
    )


class _Repair:
    """One pass over timestamps, from the first to the last."""

    def __init__(
        self, stored: Sequence[int | None], lengths: Sequence[int], longest_gap: int | None
    ) -> None:
        self._stored, self._lengths, self._longest_gap = stored, lengths, longest_gap
        self.placed: list[int | None] = []
        self.shifts, self.parts = [0], [0]
        self._back = 0
        """Number of the item at which the clock is at its place again."""
        self._before, self._expected = 0, 0
        """Where the last good item is, and where the next one should be."""
        self._started = False

    def place(self, number: int) -> None:
        """Place one item, or leave it open."""
        stored = self._stored[number]
        stamp = None if stored is None or number < self._back else self._judge(number, stored)
        if stamp is None:
            self._expected += self._lengths[number]
        else:
            self._before, self._expected = stamp, stamp + self._lengths[number]
            self._started = True
        self.placed.append(stamp)

    def _judge(self, number: int, stored: int) -> int | None:
        """Find the time of an item; None if its timestamp is wrong."""
        if not self._started:
            self._before = self._expected = stored
            return None if self._is_wrong_first(number, stored) else stored
        stamp, length = stored + self.shifts[-1], self._lengths[number]
        rises = stamp > self._before
        if rises and stamp - self._expected <= _NEAR * length:
            return stamp
        if not rises or self._falls_behind(number, stored):
            back = self._find_return(number)
            if back is not None:
                self._back = back
                return None
        gap = stamp - self._before
        if not rises or (self._longest_gap is not None and gap > self._longest_gap):
            self.shifts.append(self._expected - stored)
            self.parts.append(number)
            return self._expected
        return stamp

    def _is_wrong_first(self, number: int, stored: int) -> bool:
        """Whether the first timestamp is after the next one, and no later one fits it."""
        following = next((s for s in self._stored[number + 1 :] if s is not None), None)
        if following is None or stored < following:
            return False
        return self._find_return(number) is None

    def _falls_behind(self, number: int, stored: int) -> bool:
        """Whether one of the next timestamps is before this one."""
        following = self._stored[number + 1 : number + _AHEAD]
        return any(stamp is not None and stamp < stored for stamp in following)

    def _find_return(self, number: int) -> int | None:
        """Find the next item whose time fits an uninterrupted clock; None if there is none."""
        expected = self._expected
        for ahead in range(number, min(number + _AHEAD, len(self._stored))):
            stored, length = self._stored[ahead], self._lengths[ahead]
            if ahead > number and stored is not None:
                stamp = stored + self.shifts[-1]
                if stamp > self._before and abs(stamp - expected) <= _NEAR * length:
                    return ahead
            expected += length
        return None


def _fill(placed: Sequence[int | None], lengths: Sequence[int]) -> tuple[Place, ...]:
    """Set the times of open items: after the one before, or between both neighbours."""
    known = [number for number, stamp in enumerate(placed) if stamp is not None]
    if not known:
        return tuple(sum(lengths[:number]) for number in range(len(placed)))
    filled: list[Place] = [stamp if stamp is not None else 0 for stamp in placed]
    for number in range(known[0] - 1, -1, -1):
        filled[number] = filled[number + 1] - lengths[number]
    for first, last in pairwise([*known, len(placed)]):
        for number in range(first + 1, last):
            filled[number] = filled[number - 1] + lengths[number - 1]
        if last < len(placed) and last - first > 1 and filled[last - 1] >= filled[last]:
            step = Fraction(filled[last] - filled[first]) / (last - first)
            for number in range(first + 1, last):
                filled[number] = filled[first] + step * (number - first)
    return tuple(filled)
