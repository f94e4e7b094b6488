"""A segment: the frames between two keys, as values and paths that any process can work on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest, digest_content
from fresco.errors import PropagationError
from fresco.propagation.engine import AnyEngine
from fresco.settings import BlendSettings, FlowSettings
from fresco.workspace import frame_name, is_whole_image, read_image

Image = NDArray[np.uint8]


class FrameLoader(Protocol):
    """Reads frames of the source at working size. Picklable: each process opens its own."""

    def __call__(self, first: int, last: int) -> Iterator[Image]:
        """Frames `first` to `last`, both included, [H, W, 3] RGB, in order."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """One segment to fill; holds values and paths only, so that any process can do it."""

    first: int
    """Frame number of the first key."""
    last: int
    """Frame number of the last key."""
    first_key: Path
    """The first key."""
    last_key: Path
    """The last key, of the same size."""
    frames: FrameLoader
    """Reads the source."""
    flow: FlowSettings
    """Estimator by name, never `auto`: all segments must agree."""
    blend: BlendSettings
    """Which blends are on."""
    folder: Path
    """Where the frames between the keys are written, by `frame_name`."""
    engine: AnyEngine
    """How the keys are carried."""
    threads: int = 1
    """Threads that work on it; the result does not depend on them."""
    device: str = "cpu"
    """Device of the flow estimator."""
    motion: Path | None = None
    """Folder of the motion between neighbouring frames, for all who need it; None: there is none.
    """

    @property
    def interior(self) -> range:
        """Numbers of the frames between the keys."""
        return range(self.first + 1, self.last)

    @property
    def scratch(self) -> Path:
        """Folder that exists from the segment's beginning to its end, over any interruption."""
        return self.folder / f".segment-{self.first:06d}-{self.last:06d}"

    def path(self, frame: int) -> Path:
        """Where a frame is written."""
        return self.folder / frame_name(frame)

    def find_missing(self) -> list[int]:
        """Numbers of the frames not written yet; what exists is whole, see `workspace`."""
        return [frame for frame in self.interior if not self.path(frame).exists()]

    def read_keys(self) -> tuple[Image, Image]:
        """Both keys, checked."""
        first, last = (read_key(path) for path in (self.first_key, self.last_key))
        if first.shape != last.shape:
            raise PropagationError(
                f"{self.last_key} is {last.shape[1]}x{last.shape[0]}, {self.first_key} "
                f"{first.shape[1]}x{first.shape[0]}; give keyframes of one size."
            )
        return first, last

    def cache_key(self, estimator: str) -> str:
        """Digest of what the files in `scratch` were made from, besides the source's frames.

        Those, and all settings, are part of the name of `folder`.
        """
        read_keys = [digest_content(path) for path in (self.first_key, self.last_key)]
        return digest(read_keys, estimator, self.engine.cache_key)

    def read_source(self) -> Iterator[tuple[int, Image]]:
        """The source's frames of the segment, keys included, with their numbers."""
        wanted = self.last - self.first + 1
        count = 0
        for image in self.frames(self.first, self.last):
            yield self.first + count, image
            count += 1
        if count != wanted:
            raise PropagationError(
                f"The source gave {count} of the {wanted} frames {self.first} to {self.last}; it "
                "may have changed since the run began. Start again."
            )


def read_key(path: Path) -> Image:
    """A key, or PropagationError."""
    image = read_image(path)
    if image is None:
        raise PropagationError(f"{path} cannot be read as an image; make that keyframe again.")
    return image


def verify_segment(job: SegmentJob) -> None:
    """Check that every frame between the keys is there, whole and of the keys' size."""
    height, width = job.read_keys()[0].shape[:2]
    for frame in job.interior:
        if not is_whole_image(job.path(frame), (width, height)):
            raise PropagationError(
                f"{job.path(frame)} cannot be read, or is not {width}x{height} pixels; delete it "
                "and start again; it is made again then."
            )
