"""Gives single frames of jobs: of the source, of the result, and of the steps between."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import Flow
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.server.drafts import Drafts
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.segments import (
    JobSegment,
    find_carried,
    list_segments,
    read_mask,
    read_share,
)
from fresco.server.videos import read_frame
from fresco.workspace import frame_name, read_image

Image = NDArray[np.uint8]


class Layer(str, Enum):
    """The image of a frame that is shown."""

    SOURCE = "source"
    """The source's frame."""
    RESULT = "result"
    """The video's frame, or what there is of it with a keyframe that was replaced."""
    KEYFRAME = "keyframe"
    """The keyframe as the model, or somebody, made it."""
    FLOW = "flow"
    """Motion to the frame before, as colours: hue is the direction, saturation the length."""
    OCCLUSION = "occlusion"
    """White: the frame before does not show it."""
    FORWARD = "forward"
    """The keyframe before, propagated to the frame as a draft."""
    BACKWARD = "backward"
    """The keyframe after, propagated to the frame as a draft."""
    SIDE = "side"
    """Which side the run took: black the forward one, white the backward one."""
    MASK = "mask"
    """White: it is translated. As it was carried or found, without its soft edge."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An image of a frame."""

    image: Image
    """[H, W, 3] RGB."""
    draft: bool = False
    """Whether it is a draft, beside a keyframe that was replaced."""


class Frames:
    """Gives single frames of the jobs of one engine."""

    def __init__(self, engine: JobEngine, drafts: Drafts) -> None:
        self._engine, self._drafts = engine, drafts

    def look(self, job: str, number: int, layer: Layer) -> Seen | None:
        """A frame of a job by its number in the source; None: the job has no such image.

        The motion beside a keyframe that is looked at is found in the background: it may be
        replaced next.
        """
        keys = self._engine.outcome(job).keys
        if number in keys:
            self._drafts.prepare(job, number)
        if layer is Layer.SOURCE:
            return Seen(read_frame(Path(self._engine.request(job).source), number))
        if layer is Layer.KEYFRAME:
            return _see(read_image(keys[number])) if number in keys else None
        if layer in (Layer.FLOW, Layer.OCCLUSION):
            return self._look_at_motion(job, number, layer)
        if layer is Layer.MASK:
            return self._look_at_mask(job, number)
        if layer is Layer.SIDE:
            return _see(read_share(self._engine.folder(job), number))
        if layer in (Layer.FORWARD, Layer.BACKWARD):
            return _see(self._drafts.draw_side(job, number, int(layer is Layer.BACKWARD)))
        return self._look_at_result(job, number)

    def _look_at_motion(self, job: str, number: int, layer: Layer) -> Seen | None:
        """Made anew, by DIS on frames of working size; None: no frame lies before it."""
        frames = self._drafts.open(self._engine.request(job))
        if number < 1:
            return None
        before, here = frames(number - 1, number)
        motion = estimate_motion(before, here, DisEstimator())
        if layer is Layer.FLOW:
            return Seen(color_flow(motion.backward))
        white = np.where(motion.backward_occlusion, np.uint8(255), np.uint8(0))
        return Seen(np.repeat(white[..., None], 3, axis=2))

    def _look_at_mask(self, job: str, number: int) -> Seen | None:
        mask = read_mask(self._engine.folder(job), number)
        if mask is not None and self._engine.request(job).settings.mask.invert:
            mask = np.invert(mask)
        return _see(mask)

    def list_retouched(self, job: str) -> list[JobSegment]:
        """The segments of which a keyframe differs from that in the video."""
        retouched = self._engine.retouched(job)
        if not retouched:
            return []
        return [
            segment for segment in list_segments(self._engine.folder(job))
            if retouched & {segment.first, segment.last}
        ]

    def _look_at_result(self, job: str, number: int) -> Seen | None:
        """Of the video; beside a keyframe that was replaced since, what there is of the frame with
        the new keyframe."""
        outcome = self._engine.outcome(job)
        if not (outcome.output and outcome.output.exists()):
            return None
        if number in self._engine.retouched(job) and number in outcome.keys:
            return _see(read_image(outcome.keys[number]))
        for segment in self.list_retouched(job):
            if number in segment.interior:
                place = find_carried(self._engine.folder(job), segment)
                new = read_image(place / frame_name(number)) if place else None
                if new is not None:
                    return Seen(new)
                draft = self._drafts.draw(job, number)
                if draft is not None:
                    return Seen(draft, draft=True)
        first = self._engine.request(job).settings.output.first_frame
        return Seen(read_frame(outcome.output, number - first))


def color_flow(flow: Flow) -> Image:
    """Flow [H, W, 2] as colours [H, W, 3]: hue is the direction, saturation the length beside the
    longest but one of a hundred; still parts are white."""
    length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
    longest = max(1.0, float(np.percentile(length, 99)))
    hue = np.rint(angle * np.float32(90 / np.pi)).astype(int) % 180
    saturation = np.rint(255 * np.minimum(length / np.float32(longest), 1))
    full = np.full(hue.shape, 255)
    hsv = np.stack([hue, saturation, full], axis=2).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _see(image: Image | None) -> Seen | None:
    return None if image is None else Seen(image)
