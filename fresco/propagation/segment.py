"""A segment: the frames between two keyframes ("keys"), described so that any process can fill it.
"""

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
        """Yield the frames `first` to `last`, both included, [H, W, 3] RGB, in order."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """One segment to fill. It holds only values and paths, so any process can work on it."""

    first: int
    """Frame number of the first key."""
    last: int
    """Frame number of the last key."""
    first_key: Path
    """Image of the first key."""
    last_key: Path
    """Image of the last key, of the same size."""
    frames: FrameLoader
    """Reads the source."""
    flow: FlowSettings
    """Options of the flow. They name the estimator, never `auto`: all segments must use one."""
    blend: BlendSettings
    """Which blends are on."""
    folder: Path
    """Folder where the frames between the keys are written, named by `frame_name`."""
    engine: AnyEngine
    """How the keys are carried."""
    threads: int = 1
    """Threads that work on it; the result does not depend on them."""
    device: str = "cpu"
    """Device of the flow estimator."""
    motion: Path | None = None
    """Shared folder of the motion between neighbouring frames; None if there is none."""

    @property
    def interior(self) -> range:
        """Numbers of the frames between the keys."""
        return range(self.first + 1, self.last)

    @property
    def scratch(self) -> Path:
        """Scratch folder, which exists until the segment is filled, also after an interruption."""
        return self.folder / f".segment-{self.first:06d}-{self.last:06d}"

    def path(self, frame: int) -> Path:
        """Path where a frame is written."""
        return self.folder / frame_name(frame)

    def find_missing(self) -> list[int]:
        """Numbers of the frames that are not written yet.

        A frame that exists is complete, see `workspace`.
        """
        return [frame for frame in self.interior if not self.path(frame).exists()]

    def read_keys(self) -> tuple[Image, Image]:
        """Read both keys and check their sizes."""
        first, last = (read_key(path) for path in (self.first_key, self.last_key))
        if first.shape != last.shape:
            raise PropagationError(
                f"{self.last_key} is {last.shape[1]}x{last.shape[0]}, {self.first_key} "
                f"{first.shape[1]}x{first.shape[0]}; give keyframes of one size."
            )
        return first, last

    def cache_key(self, estimator: str) -> str:
        """Digest of what the files in `scratch` were made from.

        The source's frames and all settings are left out; they are part of the name of `folder`.
        """
        read_keys = [digest_content(path) for path in (self.first_key, self.last_key)]
        return digest(read_keys, estimator, self.engine.cache_key)

    def read_source(self) -> Iterator[tuple[int, Image]]:
        """Yield the source's frames of the segment, those of the keys included, with numbers."""
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
    """Read the image of a key; PropagationError if it cannot be read."""
    image = read_image(path)
    if image is None:
        raise PropagationError(f"{path} cannot be read as an image; make that keyframe again.")
    return image


def verify_segment(job: SegmentJob) -> None:
    """Check that every frame between the keys exists, is complete, and has the keys' size."""
    height, width = job.read_keys()[0].shape[:2]
    for frame in job.interior:
        if not is_whole_image(job.path(frame), (width, height)):
            raise PropagationError(
                f"{job.path(frame)} cannot be read, or is not {width}x{height} pixels; delete it "
                "and start again; it is made again then."
            )
