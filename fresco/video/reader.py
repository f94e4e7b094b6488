"""Read frames by number: one interface for video files and folders of images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from fresco.errors import VideoError
from fresco.video.animation import ImagePages
from fresco.video.color import frame_to_alpha, frame_to_rgb
from fresco.video.decoding import decode_frames
from fresco.video.folder import (
    DEFAULT_RATE,
    IMAGE_SUFFIXES,
    FolderIndex,
    ImageFolder,
    check_index,
    check_range,
)
from fresco.video.image_header import count_images
from fresco.video.index import VideoIndex, VideoInfo, index_video
from fresco.video.streams import find_video_stream, open_container

__all__ = [
    "FrameSource", "ImageFolder", "SourceIndex", "VideoInfo", "VideoReader", "open_source",
]

SourceIndex = VideoIndex | FolderIndex
"""Facts from decoding a source once; picklable, for other processes that open it."""

_PAGES = frozenset({".webp", ".tif", ".tiff"})
"""Endings of files whose several images FFmpeg does not read one after the other."""

_SEEKS = 3
"""Number of key frames that are tried, nearest first, before decoding from the start."""


class FrameSource(Protocol):
    """Gives frames by number. It is a context manager; use one in each thread."""

    @property
    def info(self) -> VideoInfo:
        """Facts about the source."""
        ...

    @property
    def index(self) -> SourceIndex:
        """Data with which another process can open the source faster."""
        ...

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Read the frame of that number, RGB [H, W, 3]."""
        ...

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield frames `first` to `last`, both included, one at a time."""
        ...

    def alphas(
        self, first: int = 0, last: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the alpha of these frames, [H, W] from 0 (transparent) to 1."""
        ...

    def close(self) -> None:
        """Close the source."""
        ...

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, *exception: object) -> None: ...


class _Decoder:
    """An open file and a position in it."""

    def __init__(self, path: Path, index: VideoIndex) -> None:
        self._path, self._index = path, index
        self._numbers = {
            stamp: number for number, stamp in enumerate(index.pts) if stamp is not None
        }
        self._stack = ExitStack()
        self._next = 0
        self._open()

    def _open(self) -> None:
        self.close()
        self._container = self._stack.enter_context(open_container(self._path))
        self._stream = find_video_stream(self._container, self._path)
        self._frames = decode_frames(self._container, self._stream)
        self._next = 0

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _list_keys_before(self, index: int) -> list[int]:
        """List frames up to `index` at which decoding can start, nearest first."""
        keys = self._index.keys
        end = bisect_right(keys, index)
        return list(reversed(keys[max(0, end - _SEEKS) : end]))

    def frame(self, index: int) -> VideoFrame:
        """Decode the frame of that number."""
        keys = self._list_keys_before(index) if self._index.pts else []
        near = self._next <= index and (not keys or keys[0] <= self._next)
        if near:
            found = self._decode_up_to(index)
            if found is not None:
                return found
        for key in keys:
            if key == 0:
                break
            self._seek(key)
            found = self._decode_up_to(index)
            if found is not None:
                return found
        self._open()
        found = self._decode_up_to(index)
        if found is None:
            raise VideoError(
                f"Frame {index} of {self._path} can no longer be read; did the file change?"
            )
        return found

    def _seek(self, key: int) -> None:
        stamp = self._index.pts[key]
        assert stamp is not None  # or the frame would not be listed as a key
        self._container.seek(stamp, stream=self._stream, backward=True)
        self._frames = decode_frames(self._container, self._stream, wait_for_key=True)
        self._next = -1

    def _decode_up_to(self, index: int) -> VideoFrame | None:
        """Decode up to that frame; None if it was passed or the file ended."""
        try:
            for frame in self._frames:
                number = self._find_number(frame)
                self._next = number + 1 if number >= 0 else -1
                if number == index:
                    return frame
                if number > index:
                    return None
        except av.FFmpegError:
            # A file cut off behind the frames in use ends so; any other loss is reported above.
            return None
        return None

    def _find_number(self, frame: VideoFrame) -> int:
        if not self._index.pts:
            return self._next
        if frame.pts is None:  # it follows the one before, where that is known
            return self._next
        # Frames of a seek into the middle of a group may lie before anything indexed.
        return self._numbers.get(frame.pts, -1)


@lru_cache(maxsize=4)
def _index_once(path: Path, last_frame: int, size: int, changed: int) -> VideoIndex:
    """Index a file; done again only if its size or time changed."""
    index = replace(index_video(path, last_frame=last_frame), state=(size, changed))
    if last_frame < 0:
        _whole[path] = size, changed
    return index


_whole: dict[Path, tuple[int, int]] = {}
"""States of files that were read to their end: their index is the same for every last frame."""


class VideoReader:
    """Reads frames of a video file.

    Args:
        last_frame: last frame that will be used; a file cut off behind it is accepted.
        index: what an earlier opening found; it counts while the file has not changed.
    """

    def __init__(
        self, path: str | Path, *, last_frame: int = -1, index: VideoIndex | None = None
    ) -> None:
        # Absolute, or two runs in different folders would share an index.
        self._path = Path(path).absolute()
        try:
            state = self._path.stat()
        except OSError as error:
            raise VideoError(
                f"{path} cannot be read ({error.strerror}); check the path."
            ) from error
        now = state.st_size, state.st_mtime_ns
        known = index if index and index.state == now else (
            _index_once(self._path, -1 if _whole.get(self._path) == now else last_frame, *now)
        )
        self._index = replace(known, info=replace(known.info, path=str(path)))
        self._decoder: _Decoder | None = None

    @property
    def info(self) -> VideoInfo:
        """Facts about the file."""
        return self._index.info

    @property
    def index(self) -> VideoIndex:
        """Data with which another process can open the file faster."""
        return self._index

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Read the frame of that number, RGB [H, W, 3]; reading in order needs no seek."""
        check_index(index, self.info)
        if self._decoder is None:
            self._decoder = _Decoder(self._path, self._index)
        return self._to_upright_rgb(self._decoder.frame(index))

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield frames `first` to `last`, both included; several may run at once."""
        for frame in self._decode(first, last):
            yield self._to_upright_rgb(frame)

    def alphas(
        self, first: int = 0, last: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the alpha of these frames, [H, W] from 0 (transparent) to 1."""
        for frame in self._decode(first, last):
            alpha = frame_to_alpha(frame)
            if alpha is None:
                alpha = np.ones((frame.height, frame.width), np.float32)
            yield self._turn_upright(alpha)

    def _decode(self, first: int, last: int | None) -> Iterator[VideoFrame]:
        end = check_range(first, last, self.info)
        decoder = _Decoder(self._path, self._index)
        try:
            for index in range(first, end + 1):
                yield decoder.frame(index)
        finally:
            decoder.close()

    def _to_upright_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        return self._turn_upright(frame_to_rgb(frame))

    def _turn_upright(self, image: NDArray[Any]) -> NDArray[Any]:
        if self.info.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.info.rotation // 90))

    def close(self) -> None:
        """Close the file."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_source(
    path: str | Path, *, last_frame: int = -1, rate: Fraction = DEFAULT_RATE,
    index: SourceIndex | None = None,
) -> FrameSource:
    """Open a video file, a folder of images, or a file of one or more images.

    Args:
        last_frame: last frame that will be used; a file cut off behind it is accepted.
        rate: frames a second of a folder, which has none of its own.
        index: what an earlier opening found; else, and where files have changed, all is decoded.
    """
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path} does not exist; check the path.")
    several = path.is_file() and count_images(path) > 1
    if several and path.suffix.lower() in _PAGES:
        return ImagePages(path, rate=rate)
    if path.is_dir() or (path.suffix.lower() in IMAGE_SUFFIXES and not several):
        known = index if isinstance(index, FolderIndex) else None
        return ImageFolder(path, rate=rate, index=known)
    if not path.stat().st_size:
        raise VideoError(f"{path} is empty (0 bytes); copy or download it again.")
    known = index if isinstance(index, VideoIndex) else None
    return VideoReader(path, last_frame=last_frame, index=known)
