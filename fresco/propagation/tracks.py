"""Tracks: where every pixel of a frame lies in a keyframe, accumulated over the frames between.

A track is carried from frame to frame by composing the flows of neighbouring frames. Composed flows
drift, so the track is then corrected in three ways: by the flow straight to the keyframe where that
fits better; where a pixel is hidden, by the motion of visible pixels nearby; and by an alignment of
the remaining difference. Over ten frames at 256 pixels, the root mean square error of the warped
source is 8.8, 17.6, 10.4 and 9.9 grey levels (car, boxer, dog, music) with composed flows alone,
and 4.5, 12.2, 7.0 and 5.7 with all corrections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import (
    Flow,
    FrameMotion,
    Map,
    Mask,
    compose,
    find_inside,
    pixel_grid,
    remap,
)
from fresco.flow.motion import estimate_motion

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

Image = NDArray[np.uint8]
Grey = NDArray[np.uint8]
Planes = NDArray[np.uint8]
"""[H, W, 4] colours and grey, or [H, W] grey alone."""
Difference = NDArray[np.float32]
"""Difference of two `Planes`, of the same shape."""

STRAIGHT_GAIN = 0.8
"""The straight flow replaces a track where it lowers the error to less than this share."""
FOUND_ERROR = 4.0
"""Squared grey levels by which the error of the straight flow may be larger, if a pixel was hidden
on the way and the straight flow finds it again."""
ALIGN_GAIN = 0.95
"""An alignment is used where it lowers the error to less than this share."""
ROUNDS, GUIDE_ROUNDS = 2, 1
"""Rounds of alignment by least squares, after one by search: for tracks that move pixels, and for
tracks that only guide patches."""
PATCH = 5
"""Side in pixels of the neighbourhood over which errors are averaged: that of a patch."""
WINDOW = 5
"""Side in pixels of the window for least squares."""
FLAT = 1.0
"""Squared grey levels added to the squared gradients of a window, so that nothing moves where it is
flat."""
LIGHT = 15
"""Side in pixels of a window; the mean difference of two images over it counts as brightness."""
LIT = 0.2
"""Share of the error that is measured without removing brightness. Without this share, another
colour would count as brightness, first at the edges of objects."""
FARTHEST = 2.0
"""Pixels that one round of least squares moves at most; larger motion was found by the search."""
MEDIAN = 5
"""Side in pixels of the median over the aligned flow, and of the neighbourhood whose majority
decides."""
SPREAD = 3
"""Side of the window that smooths the motion of hidden pixels, on a grid of every second pixel."""
SMALLEST_SIDE = 16
"""Frames with a shorter side are not searched: OpenCV needs room for two levels of a patch of 8."""
HIDDEN_PENALTY = 400.0
"""Squared grey levels added to the error of a pixel that the keyframe does not show."""

FINE = 2
"""Factor by which a keyframe's frame is enlarged (bicubic) before it is moved (bilinear). That is
as sharp as a bicubic move, in a sixth of the time."""

_MEAN_OF_COLOURS = np.array([[1 / 3, 1 / 3, 1 / 3, 0]], np.float32)
_GREY = 3
"""Number of the grey channel, after the three colours."""


@dataclass(frozen=True, slots=True)
class Track:
    """Where a frame's pixels lie in a keyframe."""

    flow: Flow
    """[H, W, 2] pixels, x then y: frame to keyframe."""
    seen: Mask
    """[H, W], True = the keyframe shows the pixel."""

    @classmethod
    def start(cls, height: int, width: int) -> Track:
        """The keyframe's track to itself."""
        return cls(np.zeros((height, width, 2), np.float32), np.ones((height, width), bool))

    def measure_cost(self, frame: Image, key: KeyFrame) -> Map:
        """Mean squared colour difference around every pixel, [H, W] in squared grey levels.

        Hidden pixels get a penalty. It takes the place of a patch's distance.

        Args:
            frame: [H, W, 3] of the source.
        """
        error = _average(_subtract(key.prepare(frame), key.move(self.flow)))
        return error + np.where(self.seen, np.float32(0), np.float32(HIDDEN_PENALTY))


class KeyFrame:
    """The source's frame of a keyframe, prepared for being moved many times."""

    def __init__(self, image: Image, *, guides: bool = False) -> None:
        """Prepare an image.

        Args:
            image: [H, W, 3].
            guides: whether tracks to it only guide patches; they are then found by grey alone.
        """
        self.image = image
        self.guides = guides
        self._fine = np.asarray(cv2.resize(
            self.prepare(image), None, fx=FINE, fy=FINE, interpolation=cv2.INTER_CUBIC
        ), np.uint8)

    def prepare(self, image: Image) -> Planes:
        """Make what is compared of an image [H, W, 3]: colours and grey [H, W, 4], or grey [H, W].
        """
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        return grey if self.guides else np.asarray(cv2.merge([*cv2.split(image), grey]), np.uint8)

    def move(self, flow: Flow) -> Planes:
        """The same for the keyframe's frame, taken at p + flow(p)."""
        place = (pixel_grid(*flow.shape[:2]) + flow) * np.float32(FINE)
        place += np.float32((FINE - 1) / 2)  # a pixel's centre lies between those made from it
        return np.asarray(cv2.remap(
            self._fine, place, cast("NDArray", None), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ), np.uint8)


def _take_grey(planes: NDArray) -> NDArray:
    return planes if planes.ndim == 2 else np.asarray(cv2.extractChannel(planes, _GREY))


def _subtract(frame: Planes, moved: Planes) -> Difference:
    return np.asarray(cv2.subtract(frame, moved, dtype=cv2.CV_32F), np.float32)


def _remove_light(difference: Difference) -> Difference:
    """Remove what changes slowly over the frame, such as brightness, from a difference."""
    return difference - np.asarray(cv2.blur(difference, (LIGHT, LIGHT)), np.float32)


def _average(difference: Difference, lit: Difference | None = None) -> Map:
    """Mean square of a difference around every pixel, [H, W] in squared grey levels.

    Args:
        lit: a second difference, which is included with a share of `LIT`.
    """
    square = difference * difference
    if lit is not None:
        square = cv2.addWeighted(square, 1 - LIT, lit * lit, LIT, 0)
    if square.ndim == 3:
        square = cv2.transform(square, _MEAN_OF_COLOURS)
    return np.asarray(cv2.blur(square, (PATCH, PATCH)), np.float32)


class _Fit:
    """A flow from a frame to its keyframe, improved wherever another flow fits better.

    The brightness of both images is made alike before they are compared. Otherwise the best fit is
    what is equally bright, not what is the same. On a scene whose light changes by 16 %, tracks of
    twelve frames at 512 pixels have a median error of 0.48 pixels with the raw difference, and of
    0.34 pixels without brightness.
    """

    def __init__(self, frame: Image, key: KeyFrame, flow: Flow) -> None:
        self._frame, self._key = key.prepare(frame), key
        self.flow = flow
        self._moved, self._change, self.error = self._compare(flow)

    def _compare(self, flow: Flow) -> tuple[Planes, Difference, Map]:
        """Move the keyframe along a flow and compare.

        Returns:
            The moved keyframe, the frame's difference from it without brightness, and the error.
        """
        moved = self._key.move(flow)
        lit = _subtract(self._frame, moved)
        change = _remove_light(lit)
        return moved, change, _average(change, lit)

    def take(self, flow: Flow, limit: Map, allowed: Mask | None = None) -> Mask:
        """Use another flow where its error is below a limit, for most pixels of a neighbourhood.

        Args:
            limit: [H, W] in squared grey levels.
            allowed: [H, W], where it may be used; None: everywhere.

        Returns:
            Mask of the pixels where it was used.
        """
        moved, change, error = self._compare(flow)
        better = error < limit
        if allowed is not None:
            better &= allowed
        wish = better.view(np.uint8)
        wishes = cv2.boxFilter(wish, cv2.CV_8U, (MEDIAN, MEDIAN), normalize=False)
        taken = wish & (wishes > MEDIAN * MEDIAN // 2)
        # In place: OpenCV copies under a mask into what it is given.
        for new, own in ((flow, self.flow), (moved, self._moved), (change, self._change),
                         (error, self.error)):
            cv2.copyTo(new, taken, own)
        return taken.view(bool)

    def align(self) -> None:
        """Find the rest of the motion, and use it where it lowers the error."""
        if min(self.error.shape) >= SMALLEST_SIDE:
            self._take_rest(_search_rest(
                _take_grey(self._frame), self._match_light(), quick=self._key.guides
            ))
        for _ in range(GUIDE_ROUNDS if self._key.guides else ROUNDS):
            self._take_rest(_solve_rest(_take_grey(self._moved), _take_grey(self._change)))

    def _take_rest(self, rest: Flow) -> None:
        self.take(compose(rest, self.flow), np.float32(ALIGN_GAIN) * self.error)

    def _match_light(self) -> Grey:
        """The moved keyframe in grey, with the frame's brightness."""
        light = cv2.subtract(_take_grey(self._frame), _take_grey(self._change), dtype=cv2.CV_8U)
        return np.asarray(light, np.uint8)


def _search_rest(grey: Grey, moved: Grey, *, quick: bool) -> Flow:
    """Find the motion between two grey images by OpenCV's search.

    Args:
        quick: search at half the resolution.
    """
    if quick:
        search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_ULTRAFAST)
        search.setFinestScale(1)
    else:
        search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
        search.setFinestScale(0)
        # The motion is small: with these values tracks are as good, in half the time.
        search.setPatchStride(5)
        search.setGradientDescentIterations(8)
        search.setVariationalRefinementIterations(2)
    search.setUseMeanNormalization(False)  # both are equally bright
    # None: no initial flow; OpenCV's stubs do not allow it.
    return np.asarray(search.calc(grey, moved, None), np.float32)  # type: ignore[call-overload]


def _solve_rest(moved: Grey, change: Map) -> Flow:
    """Find small motion by least squares in a window (Lucas and Kanade 1981), [H, W, 2].

    Args:
        moved: [H, W] grey.
        change: [H, W] the image that it is compared with, minus `moved`.
    """
    along_x, along_y = (
        np.asarray(cv2.Sobel(moved, cv2.CV_32F, *axis, scale=1 / 8)) for axis in ((1, 0), (0, 1))
    )
    xx, xy, yy, xt, yt = (
        np.asarray(cv2.blur(first * second, (WINDOW, WINDOW)))
        for first, second in (
            (along_x, along_x), (along_x, along_y), (along_y, along_y),
            (along_x, change), (along_y, change),
        )
    )
    xx += np.float32(FLAT)
    yy += np.float32(FLAT)
    determinant = xx * yy - xy * xy
    rest = cv2.merge([(yy * xt - xy * yt) / determinant, (xx * yt - xy * xt) / determinant])
    return np.asarray(np.clip(rest, -FARTHEST, FARTHEST), np.float32)


def spread_motion(flow: Flow, seen: Mask) -> Flow:
    """Replace the flow of hidden pixels by that of the nearest visible pixel, smoothed."""
    if seen.all() or not seen.any():
        return flow
    near, coarse = seen[::2, ::2], flow[::2, ::2]  # what is filled in is smooth anyway
    if not near.any():
        return flow
    unknown = ~near
    labels = np.asarray(cv2.distanceTransformWithLabels(
        unknown.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )[1], np.int32)
    place_of_label = np.zeros(labels.max() + 1, np.intp)
    place_of_label[labels[near]] = np.flatnonzero(near)
    filled = coarse.copy()
    filled[unknown] = filled.reshape(-1, 2)[place_of_label[labels[unknown]]]
    smooth = cv2.blur(filled, (SPREAD, SPREAD))
    whole = cv2.resize(smooth, flow.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.copyTo(whole, (~seen).view(np.uint8), flow.copy()), np.float32)


def _straighten(fit: _Fit, seen: Mask, pair: FrameMotion) -> Mask:
    """Use the flow straight to the keyframe where it fits better; return which pixels are visible.
    """
    allowed = ~pair.forward_occlusion & find_inside(pair.forward)
    limit = np.where(seen, np.float32(STRAIGHT_GAIN) * fit.error, fit.error + FOUND_ERROR)
    return seen | fit.take(pair.forward, limit, allowed)


def advance_track(
    before: Track,
    step: Flow,
    hidden: Mask,
    *,
    frame: Image,
    key: KeyFrame,
    estimator: FlowEstimator | None,
) -> Track:
    """Compute the track of the next frame from that of its neighbour.

    Args:
        before: track of the neighbour that lies nearer to the keyframe.
        step: flow from the frame to that neighbour.
        hidden: [H, W], True = the neighbour does not show the pixel.
        frame: [H, W, 3] of the source.
        key: the source's frame of the keyframe, of the same size.
        estimator: estimates the flow straight to the keyframe; None leaves that out. A track that
            guides patches is as good without it, in a third of the time.
    """
    flow = compose(step, before.flow)
    came = remap(before.seen.view(np.uint8), step, interpolation=cv2.INTER_NEAREST)
    seen = ~hidden & came.view(bool) & find_inside(flow)
    fit = _Fit(frame, key, flow)
    if estimator is not None:
        seen = _straighten(fit, seen, estimate_motion(frame, key.image, estimator))
    if not seen.all():
        fit.take(spread_motion(fit.flow, seen), fit.error, ~seen)
    fit.align()
    # Taking the best match of every single pixel tears images apart. A flow that is smooth within
    # each object looks better, with an error 5 % larger. The median keeps the edges of objects.
    calm = cv2.merge([cv2.medianBlur(axis, MEDIAN) for axis in cv2.split(fit.flow)])
    return Track(np.asarray(calm, np.float32), seen)
