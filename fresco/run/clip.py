"""The part of a source that a run works on, at working size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.errors import SettingsError
from fresco.settings import FrescoSettings
from fresco.video.reader import FrameSource, SourceIndex, VideoInfo, open_source
from fresco.video.size import scale_frame, working_size
from fresco.workspace import digest, digest_content


@dataclass(frozen=True, slots=True)
class WorkingFrames:
    """Frames at working size. Picklable: a worker process opens the source itself."""

    path: str
    """The source."""
    size: tuple[int, int]
    """Width and height of the frames given."""
    end: int = -1
    """Last frame that is ever asked for; a file cut off behind it will do. -1: its last."""
    index: SourceIndex | None = None
    """What is known of the source, so that a worker need not decode all of it again."""

    def __call__(self, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
        """Frames `first` to `last`, both included, as [H, W, 3] RGB."""
        with self._open() as source:
            for frame in source.frames(first, last):
                yield scale_frame(frame, self.size)

    def pick(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Single frames, as [N, H, W, 3] RGB."""
        with self._open() as source:
            return np.stack([scale_frame(source.frame(number), self.size) for number in numbers])

    def _open(self) -> FrameSource:
        return open_source(self.path, last_frame=self.end, index=self.index)


@dataclass(frozen=True, slots=True)
class Clip:
    """What a run works on."""

    info: VideoInfo
    """The whole source."""
    first: int
    """First frame used."""
    last: int
    """Last frame used, included."""
    frames: WorkingFrames
    """Access to the frames, by number in the source."""
    cache_key: str
    """Digest of the source's bytes, the range and the working size."""

    @property
    def count(self) -> int:
        """Frames used."""
        return self.last - self.first + 1

    @property
    def numbers(self) -> range:
        """Numbers of the frames used."""
        return range(self.first, self.last + 1)


def open_clip(path: Path, settings: FrescoSettings) -> Clip:
    """Read what there is to know of a source and check the range asked for."""
    first, last = settings.output.first_frame, settings.output.last_frame
    with open_source(path, last_frame=last) as source:
        info, index = source.info, source.index
    end = last
    last = info.frames - 1 if last < 0 else last
    if first >= info.frames or last >= info.frames:
        name, value = ("last", last) if first < info.frames else ("first", first)
        raise SettingsError(
            f"output.{name}_frame is {value}, but {path} has {info.frames} frames; "
            f"give at most {info.frames - 1}."
        )
    size = working_size(info.width, info.height, settings.sampling.resolution)
    # Mirrored sources were read as if they were not, up to 0.1: those keyframes do not fit.
    mirrored = [True] if info.mirrored else []
    cache_key = digest(digest_content(path), first, last, size, *mirrored)
    return Clip(info, first, last, WorkingFrames(str(path), size, end, index), cache_key)
