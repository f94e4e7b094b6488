"""The frames of a source that a run uses, scaled to its working size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest
from fresco.errors import SettingsError
from fresco.progress import Progress
from fresco.run.inputs import Source
from fresco.settings import FrescoSettings
from fresco.video.reader import FrameSource, SourceIndex, VideoInfo, open_source
from fresco.video.size import scale_frame, working_size
from fresco.workspace import has_room, read_arrays, write_arrays

_FRAME = "frame"
"""Name of the array in the file of a stored frame."""


@dataclass(frozen=True, slots=True)
class WorkingFrames:
    """Frames at working size. Picklable: a worker process opens the source itself."""

    path: str
    """The source."""
    size: tuple[int, int]
    """Width and height of the frames."""
    end: int = -1
    """Last frame that is used; the file may be cut off after it. -1: the last frame of the file."""
    index: SourceIndex | None = None
    """Index of the source, so that a worker need not decode all of it again."""
    kept: Path | None = None
    """Folder of frames that this run has already decoded; None if there is none."""

    def __call__(self, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames `first` to `last`, both included, as [H, W, 3] RGB."""
        numbers = range(first, last + 1)
        if not self._list_missing(numbers):
            for number in numbers:
                kept = self._load(number)
                yield kept if kept is not None else self._decode(number)
            return
        with self._open() as source:
            for frame in source.frames(first, last):
                yield scale_frame(frame, self.size)

    def pick(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Read single frames, as [N, H, W, 3] RGB."""
        kept = {number: self._load(number) for number in numbers}
        missing = [number for number, frame in kept.items() if frame is None]
        if missing:
            with self._open() as source:
                kept |= {n: scale_frame(source.frame(n), self.size) for n in missing}
        return np.stack([frame for number in numbers if (frame := kept[number]) is not None])

    def keep(self, number: int, frame: NDArray[np.uint8]) -> None:
        """Store a frame of the source [h, w, 3] for this run, at working size."""
        if self.kept is not None:
            # An archive, because it has a checksum.
            write_arrays(self._path(number), {_FRAME: scale_frame(frame, self.size)})

    def keep_all(self, numbers: Iterable[int], progress: Progress) -> None:
        """Store frames for this run if there is space, so that the source is decoded only once."""
        missing = self._list_missing(sorted(set(numbers)))
        if not missing or not self.has_room(len(missing)):
            return
        with progress.stage("frames", len(missing)) as stage, self._open() as source:
            for number in missing:
                self.keep(number, source.frame(number))
                stage.advance()

    def has_room(self, count: int) -> bool:
        """Whether `count` frames may be stored: they may take a limited share of the free disk."""
        width, height = self.size
        return self.kept is not None and has_room(self.kept.parent, count * width * height * 3)

    def _list_missing(self, numbers: Iterable[int]) -> list[int]:
        if self.kept is None:
            return list(numbers)
        return [number for number in numbers if not self._path(number).exists()]

    def _path(self, number: int) -> Path:
        assert self.kept is not None
        return self.kept / f"{number:06d}.npz"

    def _load(self, number: int) -> NDArray[np.uint8] | None:
        """Read a stored frame; None if it is not there or damaged."""
        if self.kept is None:
            return None
        arrays = read_arrays(self._path(number))
        frame = arrays.get(_FRAME) if arrays else None
        if frame is None or frame.shape != (*self.size[::-1], 3) or frame.dtype != np.uint8:
            return None
        return frame

    def _decode(self, number: int) -> NDArray[np.uint8]:
        with self._open() as source:
            return scale_frame(source.frame(number), self.size)

    def _open(self) -> FrameSource:
        return open_source(self.path, last_frame=self.end, index=self.index)


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a source that a run uses."""

    info: VideoInfo
    """Facts about the whole source."""
    first: int
    """First frame used."""
    last: int
    """Last frame used, included."""
    frames: WorkingFrames
    """Access to the frames, by number in the source."""
    cache_key: str
    """Digest of the source's bytes, the range and the working size."""
    range_key: str
    """The same without the working size, for what is computed at the source's own size."""
    source: Source
    """The source, which must not change while the run reads it."""

    @property
    def count(self) -> int:
        """Number of frames used."""
        return self.last - self.first + 1

    def resized(self, size: tuple[int, int]) -> Clip:
        """Return the same part of the source, with frames of another size (width, height)."""
        if size == self.frames.size:
            return self
        frames = dataclasses.replace(self.frames, size=size, kept=None)
        return dataclasses.replace(self, frames=frames, cache_key=digest(self.range_key, size))

    @property
    def numbers(self) -> range:
        """Numbers of the frames used."""
        return range(self.first, self.last + 1)

    def read_source(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames used, in order, at the source's own size [h, w, 3]."""
        with open_source(
            self.frames.path, last_frame=self.frames.end, index=self.frames.index
        ) as source:
            yield from source.frames(self.first, self.last)

    def read_alpha(self) -> Iterator[NDArray[np.float32]]:
        """How far each pixel of the frames used hides what is below, [h, w] from 0 to 1."""
        with open_source(
            self.frames.path, last_frame=self.frames.end, index=self.frames.index
        ) as source:
            yield from source.alphas(self.first, self.last)


def open_clip(path: Path, settings: FrescoSettings) -> Clip:
    """Read a source's facts and check the range of frames in the settings."""
    first, last = settings.output.first_frame, settings.output.last_frame
    held = Source(path)
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
    # Version 0.1 read mirrored sources without mirroring them, so its keyframes do not fit.
    mirrored = [True] if info.mirrored else []
    content = held.read_content()
    return Clip(
        info, first, last, WorkingFrames(str(path), size, end, index),
        digest(content, first, last, size, *mirrored), digest(content, first, last, *mirrored),
        held,
    )
