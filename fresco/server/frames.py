"""Give single frames of jobs: of the source, of the result, and of the steps between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.control import ControlUnit
from fresco.flow.arrays import Flow
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.server.drafts import Drafts
from fresco.server.hints import draw_hint
from fresco.server.images import fit_side
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import Goal, JobRequest
from fresco.server.jobs.segments import (
    JobSegment,
    find_carried,
    list_segments,
    read_share,
)
from fresco.server.masked import Masked
from fresco.server.ports import Environment
from fresco.server.videos import read_frame
from fresco.workspace import frame_name, read_image

Image = NDArray[np.uint8]


class Layer(str, Enum):
    """Which image of a frame is shown."""

    SOURCE = "source"
    """The source's frame."""
    RESULT = "result"
    """The frame of the result; beside a replaced keyframe, the new frame or its draft."""
    KEYFRAME = "keyframe"
    """The keyframe, laid over the source by the job's mask."""
    FLOW = "flow"
    """Motion to the frame before, as colours: hue is the direction, saturation the length."""
    OCCLUSION = "occlusion"
    """White where a pixel is not visible in the frame before."""
    FORWARD = "forward"
    """The keyframe before, propagated to the frame as a draft."""
    BACKWARD = "backward"
    """The keyframe after, propagated to the frame as a draft."""
    SIDE = "side"
    """Which side the run selected: black for the forward, white for the backward side."""
    HINT = "hint"
    """The hint of a ControlNet unit for the keyframe, computed again."""
    MASK = "mask"
    """The mask without its soft edge; white is translated."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An image of a frame."""

    image: Image
    """[H, W, 3] RGB."""
    draft: bool = False
    """Whether it is a draft, because a keyframe beside it was replaced."""


class Frames:
    """Gives single frames of the jobs of one engine."""

    def __init__(self, engine: JobEngine, drafts: Drafts, environment: Environment) -> None:
        self._engine, self._drafts, self._environment = engine, drafts, environment
        self.masked = Masked(engine, drafts)

    def look(self, job: str, number: int, layer: Layer, *, unit: int = 1) -> Seen | None:
        """Get a frame of a job by its number in the source; None if the job has no such image.

        When a keyframe is viewed, the motion beside it is computed in the background, because the
        keyframe may be replaced next.

        Args:
            unit: number of the unit whose hint is wanted, from 1.
        """
        keys = self._engine.outcome(job).keys
        if number in keys:
            self._drafts.prepare(job, number)
        if layer is Layer.SOURCE:
            return Seen(read_frame(Path(self._engine.request(job).source), number))
        if layer is Layer.KEYFRAME:
            return _see(self._read_key(job, number))
        if layer in (Layer.FLOW, Layer.OCCLUSION):
            return self._look_at_motion(job, number, layer)
        if layer is Layer.MASK:
            return self._look_at_mask(job, number)
        if layer is Layer.HINT:
            return self._look_at_hint(job, number, unit) if number in keys else None
        if layer is Layer.SIDE:
            return _see(read_share(self._engine.folder(job), number))
        if layer in (Layer.FORWARD, Layer.BACKWARD):
            return _see(self._drafts.draw_side(job, number, int(layer is Layer.BACKWARD)))
        return self._look_at_result(job, number)

    def _look_at_motion(self, job: str, number: int, layer: Layer) -> Seen | None:
        """Compute it again, by DIS at working size; None if there is no frame before."""
        frames = self._drafts.open(self._engine.request(job))
        if number < 1:
            return None
        before, here = frames(number - 1, number)
        motion = estimate_motion(before, here, DisEstimator())
        if layer is Layer.FLOW:
            return Seen(color_flow(motion.backward))
        white = np.where(motion.backward_occlusion, np.uint8(255), np.uint8(0))
        return Seen(np.repeat(white[..., None], 3, axis=2))

    def draw_draft(self, job: str, number: int) -> Image | None:
        """Draw a frame from the current keyframes of a job, laid over the source by its mask.

        None if the frame is not between two of them.
        """
        draft = self._drafts.draw(job, number)
        return None if draft is None else self.masked.lay(job, number, draft)

    def read_small_keys(self, job: str, numbers: Iterable[int], side: int) -> dict[int, Image]:
        """Read small keyframes of a job, laid over the source by its mask, at most `side` high."""
        keys = self._engine.outcome(job).keys
        found = {
            number: image for number in numbers if number in keys
            and (image := read_image(keys[number])) is not None
        }
        return self.masked.lay_small(job, {
            number: fit_side(image, round(side * max(image.shape[:2]) / image.shape[0]))
            for number, image in found.items()
        })

    def _read_key(self, job: str, number: int) -> Image | None:
        path = self._engine.outcome(job).keys.get(number)
        image = read_image(path) if path else None
        return None if image is None else self.masked.lay(job, number, image)

    def _look_at_hint(self, job: str, number: int, unit: int) -> Seen | None:
        request = self._engine.request(job)
        units = list_hinted(request)
        if not 1 <= unit <= len(units):
            return None
        return Seen(draw_hint(
            self._environment, Path(request.source), number, units[unit - 1], request.settings
        ))

    def _look_at_mask(self, job: str, number: int) -> Seen | None:
        share = self.masked.find_plain(job, number)
        if share is None:
            return None
        grey = np.rint(share * 255).astype(np.uint8)
        return Seen(np.repeat(grey[..., None], 3, axis=2))

    def list_retouched(self, job: str) -> list[JobSegment]:
        """List the segments with a keyframe that has changed since the video was made."""
        retouched = self._engine.retouched(job)
        if not retouched:
            return []
        return [
            segment for segment in list_segments(self._engine.folder(job))
            if retouched & {segment.first, segment.last}
        ]

    def _look_at_result(self, job: str, number: int) -> Seen | None:
        """Get a frame of the video; beside a replaced keyframe, the new frame or its draft."""
        outcome = self._engine.outcome(job)
        if not (outcome.output and outcome.output.exists()):
            return None
        if number in self._engine.retouched(job) and number in outcome.keys:
            return _see(self._read_key(job, number))
        for segment in self.list_retouched(job):
            if number in segment.interior:
                place = find_carried(self._engine.folder(job), segment)
                new = read_image(place / frame_name(number)) if place else None
                if new is not None:
                    return Seen(self.masked.lay(job, number, new))
                draft = self.draw_draft(job, number)
                if draft is not None:
                    return Seen(draft, draft=True)
        first = self._engine.request(job).settings.output.first_frame
        return Seen(read_frame(outcome.output, number - first))


def color_flow(flow: Flow) -> Image:
    """Draw flow [H, W, 2] as colours [H, W, 3].

    Hue is the direction. Saturation is the length, compared with the 99th percentile. Parts without
    motion are white.
    """
    length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
    longest = max(1.0, float(np.percentile(length, 99)))
    hue = np.rint(angle * np.float32(90 / np.pi)).astype(int) % 180
    saturation = np.rint(255 * np.minimum(length / np.float32(longest), 1))
    full = np.full(hue.shape, 255)
    hsv = np.stack([hue, saturation, full], axis=2).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def list_hinted(request: JobRequest) -> tuple[ControlUnit, ...]:
    """The ControlNet units that a job's keyframes were translated with."""
    return () if request.goal is Goal.PROPAGATION else request.host.control


def _see(image: Image | None) -> Seen | None:
    return None if image is None else Seen(image)
