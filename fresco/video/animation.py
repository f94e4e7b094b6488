"""Read files of several images as videos: animated WebP, TIFF of several pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.errors import VideoError
from fresco.video.color import lay_over_black
from fresco.video.folder import DEFAULT_RATE, FolderIndex, check_index, check_range
from fresco.video.image_header import count_images, list_tiff_pages
from fresco.video.index import VideoInfo, describe_alpha

_OPAQUE = ("1", "L", "RGB", "CMYK", "YCbCr", "I;16", "I;16L", "I;16B")
"""Pillow's modes without alpha."""
_SHORTEST, _INSTEAD = 10, 100
"""Milliseconds of an image below which browsers show it, and for how long instead."""


def _open_image(path: Path) -> Any:
    """Open an image file by Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise VideoError(
            f"{path} holds {count_images(path)} images, and reading them needs Pillow; install it, "
            "or convert the file to a video."
        ) from error
    try:
        return Image.open(path)
    except (OSError, ValueError) as error:
        raise VideoError(
            f"{path} holds {count_images(path)} images that cannot be read ({error}); convert it "
            "to a video or a folder of images."
        ) from error


@dataclass(frozen=True, slots=True)
class _Pages:
    """The content of a file of several images."""

    numbers: tuple[int, ...]
    """Numbers of the images, as Pillow counts."""
    times: tuple[Fraction, ...]
    """Seconds at which each is shown."""
    seconds: Fraction
    """Seconds until the last one ends."""
    transparent: bool
    """Whether some have transparent parts."""


@lru_cache(maxsize=4)
def _list_pages(path: Path, rate: Fraction, size: int, changed: int) -> _Pages:
    """List what a file contains; read again only if size or time of the file changed."""
    with _open_image(path) as image:
        if image.format == "TIFF":
            with path.open("rb") as file:
                numbers = tuple(list_tiff_pages(file))
            lengths = [1 / rate] * len(numbers)
        else:
            numbers = tuple(range(image.n_frames))
            lengths = [_read_length(image, path, number) for number in numbers]
        transparent = any(_is_transparent(image, path, number) for number in numbers)
    times = tuple(accumulate(lengths[:-1], initial=Fraction(0)))
    return _Pages(numbers, times, times[-1] + lengths[-1], transparent)


def _is_transparent(image: Any, path: Path, number: int) -> bool:
    image.seek(number)
    if image.mode in _OPAQUE and "transparency" not in image.info:
        return False
    return bool((_find_alpha(_read_pixels(image, path, number)) < 1).any())


def _read_pixels(image: Any, path: Path, number: int) -> NDArray[Any]:
    """Read one image: [H, W], [H, W, 3] or with alpha [H, W, 4]; 16 bits stay as they are."""
    try:
        image.seek(number)
        # Palettes and rarer kinds are converted to colours.
        kept = image.mode in ("L", "RGB", "RGBA") or image.mode.startswith("I;16")
        return np.array(image if kept else image.convert("RGBA"))
    except (OSError, EOFError, ValueError) as error:
        raise _explain_unreadable(path, number, error) from error


def _find_alpha(pixels: NDArray[Any]) -> NDArray[np.float32]:
    if pixels.ndim < 3 or pixels.shape[2] < 4:
        return np.ones(pixels.shape[:2], np.float32)
    return (pixels[..., 3] / np.float32(255)).astype(np.float32)


def _read_length(image: Any, path: Path, number: int) -> Fraction:
    """Seconds for which an image of an animation is shown."""
    try:
        image.seek(number)
        image.load()
    except (OSError, EOFError, ValueError) as error:
        raise _explain_unreadable(path, number, error) from error
    length = int(image.info.get("duration", 0))
    return Fraction(length if length >= _SHORTEST else _INSTEAD, 1000)


def _explain_unreadable(path: Path, number: int, error: Exception) -> VideoError:
    return VideoError(
        f"Image {number} of {path} cannot be read ({error}); convert the file to a video or a "
        "folder of images."
    )


class ImagePages:
    """The images of one file as frames: an animation with its times, pages evenly.

    Args:
        rate: frames a second of pages, which have no times.
    """

    def __init__(self, path: str | Path, *, rate: Fraction = DEFAULT_RATE) -> None:
        self._path = Path(path).absolute()
        state = self._path.stat()
        pages = _list_pages(self._path, rate, state.st_size, state.st_mtime_ns)
        self._numbers = pages.numbers
        self._image = _open_image(self._path)
        height, width = self._decode(0).shape[:2]
        self.index = FolderIndex(
            ((self._path, state.st_size, state.st_mtime_ns),), (height, width)
        )
        steps = {b - a for a, b in pairwise(pages.times)}
        count = len(pages.times)
        own = 1 / steps.pop() if len(steps) == 1 else (count / pages.seconds)
        self.info = VideoInfo(
            path=str(path), width=width, height=height, rate=own.limit_denominator(1001),
            frames=count, seconds=pages.seconds, has_sound=False, rotation=0,
            timestamps=pages.times, variable_rate=bool(steps), transparent=pages.transparent,
            notes=(describe_alpha(f"{self._path.name} has"),) if pages.transparent else (),
        )

    def _read(self, index: int) -> NDArray[Any]:
        return _read_pixels(self._image, self._path, self._numbers[index])

    def _decode(self, index: int) -> NDArray[np.uint8]:
        pixels = self._read(index)
        if pixels.dtype == np.uint16:
            pixels = np.rint(pixels.astype(np.float32) / 257).astype(np.uint8)
        if pixels.ndim == 2:
            return np.repeat(pixels[..., None], 3, axis=2)
        return lay_over_black(pixels) if pixels.shape[2] == 4 else pixels

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Read the frame of that number, RGB [H, W, 3]."""
        check_index(index, self.info)
        rgb = self._decode(index)
        if rgb.shape[:2] != (self.info.height, self.info.width):
            raise VideoError(
                f"Image {index} of {self._path} is {rgb.shape[1]}x{rgb.shape[0]}, the first is "
                f"{self.info.width}x{self.info.height}; bring all to one size."
            )
        return rgb

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield frames `first` to `last`, both included, one at a time."""
        for index in range(first, check_range(first, last, self.info) + 1):
            yield self.frame(index)

    def alphas(
        self, first: int = 0, last: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the alpha of these frames, [H, W] from 0 (transparent) to 1."""
        for index in range(first, check_range(first, last, self.info) + 1):
            yield _find_alpha(self._read(index))

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def __enter__(self) -> ImagePages:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
