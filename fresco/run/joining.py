"""Bring the keyframes of a shot nearer to each other along the motion, most at borders of batches.

Broad shapes and colours change toward those of the keyframes before and after, and of the first
one. Fine detail of each keyframe stays. This is a design of our own, see docs/method.md, section
17.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import Flow, Map, Mask, find_inside, remap
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion

Image = NDArray[np.uint8]

VERSION = 1
"""Increased when the same keyframes are joined in another way."""
_ROUNDS = 6
"""Number of rounds; so many keyframes before and after affect each."""
_BORDER_WEIGHT = 4.0
"""Weight of a neighbour in another batch; that of other neighbours, and of the keyframe, is 1."""
_FIRST_WEIGHT = 1.0
"""Weight of the first keyframe of the shot."""
_COARSE = 4.0
"""Standard deviation in pixels of the blur that separates broad from fine differences."""
_ALIKE = 8.0
"""Difference of source colours, of 255, at which two frames probably no longer show the same."""
_MEANT = 32.0
"""Broad difference of two keyframes, of 255, above which most of it is kept as intended."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """What one keyframe shows of another one."""

    flow: Flow
    """[H, W, 2] pixels, from the keyframe to the other."""
    weight: Map
    """[H, W, 1], 0 where the other does not show the same."""

    def look(self, other: Map) -> Map:
        """The other keyframe's values [H, W, 3], moved and weighted."""
        return self.weight * remap(other, self.flow)


@dataclass(frozen=True, slots=True)
class _Member:
    """A keyframe, and what it shows of others."""

    image: Map
    """[H, W, 3], the original image."""
    fixed: Map
    """[H, W, 3], itself and what it sees of the first one, weighted and added."""
    whole: Map
    """[H, W, 1], sum of all weights."""
    value: Map
    """[H, W, 3], its present value."""
    before: _Sight | None = None
    """What it sees of the keyframe before."""
    after: _Sight | None = None
    """What it sees of the keyframe after."""


def join_shot(
    read: Callable[[int], tuple[Image, Image]], prompts: Sequence[str],
    borders: Collection[int], estimator: FlowEstimator,
) -> Iterator[Image]:
    """Join the keyframes of a shot; yield them one after the other.

    About two for each round are in memory. Keyframes with different prompts do not affect each
    other.

    Args:
        read: a keyframe and its source by position, each [H, W, 3].
        prompts: prompt of every keyframe.
        borders: positions of keyframes whose batch is not that of the one before.
    """
    members: Iterable[_Member] = _link(read, prompts, borders, estimator)
    for _ in range(_ROUNDS):
        members = _agree(members)
    for member in members:
        joined = member.image + _blur(member.value - member.image)
        yield np.asarray(np.rint(joined).clip(0, 255), np.uint8)


def _agree(members: Iterable[_Member]) -> Iterator[_Member]:
    """Do one round: each keyframe becomes the weighted mean of itself and the others."""
    before: _Member | None = None
    now: _Member | None = None
    for after in itertools.chain(members, [None]):
        if now is not None:
            total = now.fixed
            if before is not None and now.before is not None:
                total = total + now.before.look(before.value)
            if after is not None and now.after is not None:
                total = total + now.after.look(after.value)
            yield dataclasses.replace(now, value=total / now.whole)
        before, now = now, after


def _link(
    read: Callable[[int], tuple[Image, Image]], prompts: Sequence[str],
    borders: Collection[int], estimator: FlowEstimator,
) -> Iterator[_Member]:
    """Find for each keyframe of a shot what it shows of its neighbours and of the first one."""
    start = read(0)
    before, waiting = start, _begin(start[0])
    for place in range(1, len(prompts)):
        now = read(place)
        member = _begin(now[0])
        if prompts[place] == prompts[place - 1]:
            motion = estimate_motion(before[1], now[1], estimator)
            weight = _BORDER_WEIGHT if place in borders else 1.0
            there = _see(before, now, motion.forward, motion.forward_occlusion, weight)
            back = _see(now, before, motion.backward, motion.backward_occlusion, weight)
            waiting = dataclasses.replace(waiting, after=there, whole=waiting.whole + there.weight)
            member = dataclasses.replace(member, before=back, whole=member.whole + back.weight)
        if place > 1 and prompts[place] == prompts[0]:
            motion = estimate_motion(start[1], now[1], estimator)
            sight = _see(now, start, motion.backward, motion.backward_occlusion, _FIRST_WEIGHT)
            seen = sight.look(start[0].astype(np.float32))
            member = dataclasses.replace(
                member, fixed=member.fixed + seen, whole=member.whole + sight.weight
            )
        yield waiting
        before, waiting = now, member
    yield waiting


def _begin(keyframe: Image) -> _Member:
    image = keyframe.astype(np.float32)
    return _Member(image, image, np.ones((*image.shape[:2], 1), np.float32), image)


def _see(
    one: tuple[Image, Image], other: tuple[Image, Image], flow: Flow, occlusion: Mask,
    weight: float,
) -> _Sight:
    """Find what a keyframe shows of another one; each is given with its source."""
    shown = (~occlusion & find_inside(flow)).astype(np.float32)[..., None]
    (keyframe, source), (other_keyframe, other_source) = (
        tuple(image.astype(np.float32) for image in pair) for pair in (one, other)
    )
    gap = _square(source - remap(other_source, flow))
    change = shown * (keyframe - remap(other_keyframe, flow))
    likeness = np.exp(-gap / (2 * _ALIKE**2) - _square(_blur(change)) / (2 * _MEANT**2))
    return _Sight(flow, np.asarray(weight * shown * likeness, np.float32))


def _blur(values: Map) -> Map:
    """Blur [H, W, 3], borders repeated."""
    blurred = cv2.GaussianBlur(values, (0, 0), _COARSE, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.float32)


def _square(difference: Map) -> Map:
    """Mean square over the colours of [H, W, 3], as [H, W, 1]."""
    return np.asarray(np.square(difference).mean(axis=-1, keepdims=True), np.float32)
