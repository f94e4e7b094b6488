"""Measures of consistency and fidelity, computed frame by frame in constant memory.

Every measure compares a result with its source; the motion is always the source's. To judge a
number, compare it with that of the source itself and of the VAE round trip.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import FrameMotion, compose, find_inside, remap
from fresco.flow.motion import estimate_motion

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

Frame = NDArray[np.uint8]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

TRACKED = 25.0
"""Mean absolute difference of source colours, of 255, up to which a long path counts as right."""
FEWEST_TRACKED = 0.01
"""Share of the frame that must still be tracked for the error to the anchor to count."""
STEADIEST_SOURCE = 0.25
"""Grey levels of flicker that any source is taken to have: rounding alone makes as much."""
WHOLE = 0.99
"""A mask moved along a flow counts where at least this share of it arrives."""
_SOURCE = "\0source"
"""The source among the sequences; no result can be called so by accident."""

DEFINITIONS: Mapping[str, str] = {
    "warp_error": "mean squared difference (values 0..1) between a frame and the frame before it "
    "moved by the source's flow, over pixels not occluded, then over pairs; lower is steadier",
    "anchor_warp_error": "the same between a frame and the first frame of its shot, along the "
    "accumulated flow, over pixels still tracked",
    "flicker": "mean absolute second difference in time of luma along the motion, grey levels",
    "flicker_ratio": "flicker of the result over that of the source (at least 0.25 levels)",
    "sharpness_ratio": "variance of the Laplacian of luma, result over source; below 1 is blurred",
    "edge_agreement": "correlation of the gradient magnitudes of result and source; 1 is equal",
    "colour_drift": "distance in Lab of the mean colour from that of the shot's first frame, the "
    "source's own change taken off, mean over frames",
    "colour_drift_slope": "growth of that distance, Lab units per 100 frames",
    "batch_border_jump": "warp error of the pairs that cross from one batch of keyframes to the "
    "next over that of all other pairs; 1 is no jump",
    "pairs": "pairs of frames measured",
}
"""What each number of a report means, with its unit."""


def measure_warp_error(frame: Frame, earlier: Frame, flow: Map, valid: Mask) -> float | None:
    """Mean squared difference, values 0..1, between a frame and an earlier one warped to it.

    Args:
        frame, earlier: [H, W, 3].
        flow: [H, W, 2] pixels, from `frame` to `earlier`.
        valid: [H, W], True where it counts; None comes back if that is nowhere.
    """
    if not valid.any():
        return None
    moved = remap(earlier.astype(np.float32), flow)
    return float(np.square((frame - moved)[valid] / 255.0).mean(dtype=np.float64))


def to_luma(frame: Frame) -> Map:
    """Compute the luma of [H, W, 3] RGB, float32 in 0..255."""
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32)


def measure_sharpness(frame: Frame) -> float:
    """Variance of the Laplacian of luma."""
    return float(cv2.Laplacian(to_luma(frame), cv2.CV_32F).var(dtype=np.float64))


def measure_edge_agreement(frame: Frame, source: Frame) -> float | None:
    """Correlation of gradient magnitudes, -1..1; None if an image is flat."""
    strengths = []
    for image in (frame, source):
        grey = to_luma(image)
        strengths.append(np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0),
                                  cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel())
    first, second = (strength - strength.mean(dtype=np.float64) for strength in strengths)
    norm = np.sqrt(np.dot(first, first) * np.dot(second, second))
    return float(np.dot(first, second) / norm) if norm > 0 else None


def average_lab(frame: Frame) -> NDArray[np.float64]:
    """Mean colour in Lab, L in 0..100."""
    lab = cv2.cvtColor(frame.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)
    return lab.mean(axis=(0, 1), dtype=np.float64)


@dataclass(slots=True)
class _Mean:
    """A running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass(slots=True)
class _Slope:
    """A running least-squares slope."""

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))

    def add(self, x: float, y: float) -> None:
        self.sums += (1.0, x, y, x * x, x * y)

    @property
    def value(self) -> float | None:
        n, x, y, xx, xy = self.sums
        spread = n * xx - x * x
        return float((n * xy - x * y) / spread) if spread > 0 else None


def _divide(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


@dataclass(frozen=True, slots=True)
class _Motion:
    """The source's motion from a frame to the one before it and to its shot's first frame."""

    flow: Map
    """[H, W, 2] to the frame before."""
    valid: Mask
    """[H, W], True where the frame before shows the same."""
    steady: Mask
    """[H, W], True where the two frames before show the same."""
    anchor_flow: Map
    """[H, W, 2] to the shot's first frame."""
    tracked: Mask
    """[H, W], True where the path to the first frame was never hidden."""
    alike: Mask
    """[H, W], True where it is tracked and the colours agree as well."""

    @classmethod
    def still(cls, height: int, width: int) -> _Motion:
        """The motion of a shot's first frame to itself."""
        flow, everywhere = np.zeros((height, width, 2), np.float32), np.ones((height, width), bool)
        return cls(flow, everywhere, everywhere, flow, everywhere, everywhere)


@dataclass(frozen=True, slots=True)
class _Past:
    """Earlier frames of a sequence that are needed: two, whatever its length."""

    anchor: Frame
    """First frame of the shot."""
    colour: NDArray[np.float64]
    """Its mean colour."""
    previous: Frame
    """The frame before."""
    change: Map | None = None
    """Its difference in luma from the one before it, moved; None in the first."""


@dataclass(slots=True)
class _Tally:
    """Running sums of one sequence."""

    inner: _Mean = field(default_factory=_Mean)
    border: _Mean = field(default_factory=_Mean)
    to_anchor: _Mean = field(default_factory=_Mean)
    flicker: _Mean = field(default_factory=_Mean)
    sharp: _Mean = field(default_factory=_Mean)
    edges: _Mean = field(default_factory=_Mean)
    drift: _Mean = field(default_factory=_Mean)
    slope: _Slope = field(default_factory=_Slope)

    def compare(self, frame: Frame, source: Frame) -> None:
        """Add what needs no neighbour."""
        self.sharp.add(measure_sharpness(frame))
        self.edges.add(measure_edge_agreement(frame, source))

    def follow(self, past: _Past, frame: Frame, motion: _Motion, *, border: bool) -> _Past:
        """Add the next frame of a shot, and return the past for the frame after it."""
        error = measure_warp_error(frame, past.previous, motion.flow, motion.valid)
        (self.border if border else self.inner).add(error)
        if motion.alike.mean() >= FEWEST_TRACKED:
            self.to_anchor.add(
                measure_warp_error(frame, past.anchor, motion.anchor_flow, motion.alike)
            )
        change = to_luma(frame) - remap(to_luma(past.previous), motion.flow)
        if past.change is not None and motion.steady.any():
            second = change - remap(past.change, motion.flow)
            self.flicker.add(float(np.abs(second[motion.steady]).mean(dtype=np.float64)))
        return replace(past, previous=frame, change=change)


class Metrics:
    """Measures several results of one source in one pass over the frames."""

    def __init__(
        self,
        estimator: FlowEstimator,
        names: Sequence[str] = ("result",),
        *,
        borders: Collection[int] = (),
    ) -> None:
        """Prepare to measure.

        Args:
            estimator: finds the source's motion.
            names: the results to come.
            borders: positions t, counted from the first update, whose pair (t - 1, t) crosses
                from one batch of keyframes to the next.
        """
        self._estimator, self._borders = estimator, frozenset(borders)
        self._names = tuple(names)
        self._tallies = {name: _Tally() for name in (*self._names, _SOURCE)}
        self._pasts: dict[str, _Past] = {}
        self._motion: _Motion | None = None
        self._count, self._since_start = 0, 0

    def update(
        self, source: Frame, results: Mapping[str, Frame], *, starts_shot: bool = False,
        motion: FrameMotion | None = None,
    ) -> None:
        """Add the next frame of the source and of every result, [H, W, 3], all of one size.

        Args:
            starts_shot: nothing is compared with frames before this one.
            motion: the source's from the frame before to this one; None: it is estimated.
        """
        if set(results) != set(self._names):
            raise ValueError(f"results are {sorted(results)}; wanted {sorted(self._names)}")
        for name, frame in results.items():
            if frame.shape != source.shape:
                raise ValueError(f"{name} is {frame.shape}, the source {source.shape}")
        frames = {**results, _SOURCE: source}
        if starts_shot or self._motion is None:
            self._motion, self._since_start = _Motion.still(*source.shape[:2]), 0
            self._pasts = {name: _Past(f, average_lab(f), f) for name, f in frames.items()}
        else:
            self._follow(self._step(source, self._motion, motion), frames)
        for name, frame in frames.items():
            self._tallies[name].compare(frame, source)
        self._count += 1

    def _follow(self, motion: _Motion, frames: Mapping[str, Frame]) -> None:
        self._motion = motion
        self._since_start += 1
        own_change = average_lab(frames[_SOURCE]) - self._pasts[_SOURCE].colour
        for name, frame in frames.items():
            tally, past = self._tallies[name], self._pasts[name]
            distance = float(np.linalg.norm(average_lab(frame) - past.colour - own_change))
            tally.drift.add(distance)
            tally.slope.add(self._since_start, distance)
            border = self._count in self._borders
            self._pasts[name] = tally.follow(past, frame, motion, border=border)

    def _step(self, source: Frame, before: _Motion, known: FrameMotion | None) -> _Motion:
        """Motion of the next frame, from that of the one before it."""
        past = self._pasts[_SOURCE]
        # As it would be if it were kept: measures do not depend on what an earlier run has left.
        pair = known or estimate_motion(past.previous, source, self._estimator).round_to_half()
        flow = pair.backward
        valid = ~pair.backward_occlusion & find_inside(flow)
        steady = valid & (remap(before.valid.astype(np.float32), flow) > WHOLE)
        anchor_flow = compose(flow, before.anchor_flow)
        tracked = remap(before.tracked.astype(np.float32), flow) > WHOLE
        tracked &= valid & find_inside(anchor_flow)
        gap = cv2.absdiff(source, remap(past.anchor, anchor_flow)).mean(axis=-1)
        return _Motion(flow, valid, steady, anchor_flow, tracked, tracked & (gap <= TRACKED))

    def report(self) -> dict[str, dict[str, float | int | None]]:
        """The numbers of every result so far; None if there was nothing to measure."""
        return {name: self._numbers(self._tallies[name]) for name in self._names}

    def _numbers(self, tally: _Tally) -> dict[str, float | int | None]:
        pairs = _Mean(tally.inner.total + tally.border.total,
                      tally.inner.count + tally.border.count)
        own = self._tallies[_SOURCE].flicker.value
        steadiest = None if own is None else max(own, STEADIEST_SOURCE)
        slope = tally.slope.value
        return {
            "warp_error": pairs.value,
            "anchor_warp_error": tally.to_anchor.value,
            "flicker": tally.flicker.value,
            "flicker_ratio": _divide(tally.flicker.value, steadiest),
            "sharpness_ratio": _divide(tally.sharp.value, self._tallies[_SOURCE].sharp.value),
            "edge_agreement": tally.edges.value,
            "colour_drift": tally.drift.value,
            "colour_drift_slope": None if slope is None else 100 * slope,
            "batch_border_jump": _divide(tally.border.value, tally.inner.value),
            "pairs": pairs.count,
        }
