"""Carry one keyframe in one direction, frame by frame: along the flow, or by patches.

Both ways return arrays that are kept on disk. The image is made from them when it is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import Flow, Mask, resize_flow
from fresco.propagation.ahead import look_ahead
from fresco.propagation.grid import choose_grid, fit_image
from fresco.propagation.guide_folders import GuideFolder
from fresco.propagation.guides import Guide, KeySources, normalise_distance
from fresco.propagation.render import warp_key
from fresco.propagation.scratch import Arrays, Scratch, round_arrays
from fresco.propagation.synthesizer import PatchSynthesizer
from fresco.propagation.tracks import KeyFrame, Track, advance_track

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

Image = NDArray[np.uint8]

CHAIN = 16
"""Frames after which the synthesis starts over.

Each frame begins with the matches of the frame before, which only the running program holds. An
interrupted run therefore continues from the last such start, and its results are the same byte by
byte. A start costs the time of a few frames, and an interruption at most this many frames in each
direction."""


class Carrier(Protocol):
    """Carries one keyframe to the frames before or after it, one by one."""

    restarts: int
    """Frames after which it can continue from what was kept; 0: from the keyframe only."""

    shown: str
    """Name of the array that `image` needs."""

    def follow(
        self, image: Image, step: Flow, hidden: Mask, number: int = -1
    ) -> Callable[[], Arrays]:
        """Find the motion to the next frame, and return a function that makes the frame.

        That function returns the arrays to keep: `cost` [h, w], and after every `restarts` frames
        all that `take` needs. The motion to the frame after it may be found before it is called.

        Args:
            image: [H, W, 3] the source's frame.
            step: [h, w, 2] its flow to the frame before, on the engine's grid.
            hidden: [h, w], True = the frame before does not show the pixel.
            number: of the frame in the source; only guides from files ask for it.
        """
        ...

    def take(self, kept: Arrays, count: int) -> None:
        """Continue from a frame that was made before an interruption.

        Args:
            kept: what was kept of that frame.
            count: number of frames made until then, a multiple of `restarts`.
        """
        ...

    def image(self, kept: Arrays) -> Image:
        """Make the frame, in the size of the keyframe, from what was kept of it."""
        ...


class FlowCarrier:
    """Moves the key along the flow accumulated so far."""

    restarts = 0
    shown = "flow"

    def __init__(self, image: Image, frame: Image, estimator: FlowEstimator) -> None:
        self._image, self._key, self._estimator = image, KeyFrame(frame), estimator
        self._track = Track.start(*frame.shape[:2])

    def follow(
        self, image: Image, step: Flow, hidden: Mask, number: int = -1
    ) -> Callable[[], Arrays]:
        """See `Carrier.follow`; `flow` [H, W, 2] leads to the key."""
        track = advance_track(
            self._track, step, hidden, frame=image, key=self._key, estimator=self._estimator
        )
        self._track = track
        return lambda: {"flow": track.flow, "cost": track.measure_cost(image, self._key)}

    def take(self, kept: Arrays, count: int) -> None:
        """Do nothing: this carrier continues only from the keyframe or behind the last frame."""

    def image(self, kept: Arrays) -> Image:
        """Move the keyframe to the frame in one step."""
        return warp_key(self._image, kept["flow"])


class PatchCarrier:
    """Paints every frame from patches of the key."""

    restarts = CHAIN
    shown = "image"

    def __init__(
        self, image: Image, frame: Image, synthesizer: PatchSynthesizer, *,
        guides: Sequence[GuideFolder] = (), number: int = -1,
    ) -> None:
        """
        Args:
            guides: guides from files, in addition to those made from the source.
            number: of the keyframe in the source.
        """
        self._size = (image.shape[0], image.shape[1])
        self._grid = choose_grid((frame.shape[0], frame.shape[1]))
        self._frame = KeyFrame(fit_image(frame, self._grid), guides=True)
        self._key = KeySources.from_frame(_scale_to(frame, self._size), image)
        self._further = [
            (guide, guide.read(number, self._size)) for guide in guides
        ]
        self._track = Track.start(*self._grid)
        self._synthesizer = synthesizer
        self._count = 0

    def follow(
        self, image: Image, step: Flow, hidden: Mask, number: int = -1
    ) -> Callable[[], Arrays]:
        """See `Carrier.follow`; `image` is the painted frame, at the key's size."""
        track = advance_track(
            self._track, step, hidden, frame=fit_image(image, self._grid), key=self._frame,
            estimator=None,
        )
        track = round_arrays({"flow": track.flow, "seen": track.seen})
        self._track = Track(track["flow"], track["seen"])
        to_key = resize_flow(track["flow"], self._size)
        guides = self._key.make_guides(_scale_to(image, self._size), to_key)
        guides += tuple(
            Guide(folder.name, source, folder.read(number, self._size), folder.weight)
            for folder, source in self._further
        )
        restart = self._count % self.restarts == 0
        self._count += 1
        kept = track if self._count % self.restarts == 0 else {}

        def paint() -> Arrays:
            painted, error = self._synthesizer.frame(
                guides, resize_flow(step, self._size), to_key, restart=restart
            )
            distance = normalise_distance(error, guides)
            cost = cv2.resize(distance, step.shape[1::-1], interpolation=cv2.INTER_AREA)
            return {"image": painted, "cost": np.asarray(cost), **kept}

        return paint

    def take(self, kept: Arrays, count: int) -> None:
        """See `Carrier.take`."""
        self._track = Track(kept["flow"], kept["seen"])
        self._count = count

    def image(self, kept: Arrays) -> Image:
        """The frame as the program painted it."""
        return kept["image"]


def _scale_to(image: Image, size: tuple[int, int]) -> Image:
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


@dataclass(frozen=True, slots=True)
class CarryStep:
    """A frame that a keyframe is carried to."""

    frame: int
    """Its number."""
    image: Image
    """[H, W, 3] of the source."""
    flow: Flow
    """[h, w, 2] to the frame before, seen in the direction of carrying, on the engine's grid."""
    hidden: Mask
    """[h, w], True = that frame does not show the pixel."""


def carry_all(
    carrier: Carrier, name: str, steps: Iterable[CarryStep], frames: Sequence[int], scratch: Scratch
) -> Iterator[tuple[int, Arrays]]:
    """Carry a keyframe over all steps; frames kept before an interruption are not made again.

    The motion to the next frame is found while the program, a process of its own, paints this one.

    Args:
        name: under which the arrays of this direction are kept.
        frames: the numbers of all steps, in order.

    Returns:
        The number of each frame, with the arrays that are kept of it.
    """
    known = scratch.count_leading(name, frames)
    if known < len(frames):
        known -= known % carrier.restarts if carrier.restarts else known
    for frame in frames[:known]:
        yield frame, scratch.get(name, frame, carrier.shown)
    if 0 < known < len(frames):
        carrier.take(scratch.get(name, frames[known - 1]), known)
    found = (
        (step.frame, carrier.follow(step.image, step.flow, step.hidden, step.frame))
        for step in itertools.islice(steps, known, None)
    )
    for frame, make in look_ahead(found):
        yield frame, scratch.put(name, frame, **make())
