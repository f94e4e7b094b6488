"""Read and write folders of images as videos."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.errors import VideoError
from fresco.video.color import lay_over_black
from fresco.video.image_header import count_images
from fresco.video.index import VideoInfo, describe_alpha
from fresco.video.numbering import find_numbering_notes, refuse_doubles, sort_key
from fresco.video.png_text import add_text
from fresco.writing import claim_part, follow_link, is_claimed, name_part

logger = logging.getLogger("fresco")

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings of files that count as frames of a folder."""

DEFAULT_RATE = Fraction(24)
"""Frames a second of a folder, which has no rate of its own."""

_OWN_NAME = re.compile(r"\d{4,}\.png")

FRAMES_MARK = ".fresco-frames"
"""File in a folder of images that this program made: their names count frames from 0, and
`ImageFolderWriter` replaces no other folder."""


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file to RGB [H, W, 3]: 16 bits are scaled down, alpha is laid over black."""
    return decode_with_alpha(path)[0]


def decode_with_alpha(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """Do the same, and say whether it has transparent parts."""
    image = _read_image(path)
    rgb = _to_rgb(image, path)
    return rgb, bool((_find_alpha(image) < 1).any())


def _find_alpha(image: NDArray[Any]) -> NDArray[np.float32]:
    """Read the alpha of an image that OpenCV has read, [H, W] in 0..1."""
    if image.ndim < 3 or image.shape[2] < 4:
        return np.ones(image.shape[:2], np.float32)
    return (image[..., 3] / np.float32(np.iinfo(image.dtype).max)).astype(np.float32)


def describe_transparent(names: Sequence[str]) -> str:
    """Make a note about images with transparent parts."""
    if len(names) == 1:
        return f"{names[0]} has transparent parts, which are laid over black."
    return f"{len(names)} images have transparent parts, which are laid over black: {names[0]}, ..."


def _read_image(path: Path) -> NDArray[np.generic]:
    """Read an image file by OpenCV."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    # Only the colour mode turns a photograph upright; only the other keeps alpha and 16 bits.
    photograph = path.suffix.lower() in (".jpg", ".jpeg")
    mode = cv2.IMREAD_COLOR if photograph else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(data, mode) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise VideoError(
            f"{path} is not an image that can be decoded ({data.size} bytes); replace or remove it."
        )
    return np.asarray(image)


def _to_rgb(image: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if image.dtype == np.uint16:
        image = np.rint(image.astype(np.float32) / 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise VideoError(f"{path} holds {image.dtype} values; save it with 8 or 16 bits.")
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] == 4:
        return lay_over_black(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA), np.uint8))
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def find_images(folder: Path) -> tuple[list[Path], int]:
    """List the images of a folder in natural order; also return the number of its files.

    Hidden files, such as the `._` files of macOS, are passed over.
    """
    try:
        files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    except OSError as error:
        raise VideoError(f"{folder} cannot be listed ({error.strerror}).") from error
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=lambda path: sort_key(path.name)), len(files)


def _list_frames(folder: Path) -> list[Path]:
    """List the images of a folder that are frames."""
    images, count = find_images(folder)
    if not images:
        raise VideoError(
            f"{folder} holds {count} files but no image; give a folder of "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} files, or a video file."
        )
    refuse_doubles(images)
    return images


@dataclass(frozen=True, slots=True)
class FolderIndex:
    """Facts about images that were all decoded once."""

    files: tuple[tuple[Path, int, int], ...]
    """The files with their sizes and times of change in ns, by which changes are recognised."""
    size: tuple[int, int]
    """Height and width of all images."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""
    transparent: bool = False
    """Whether some have transparent parts."""


def _describe_several(files: Sequence[Path]) -> tuple[str, ...]:
    """Make a note about files that contain more than the one image that is a frame."""
    found = [(file.name, count) for file in files if (count := count_images(file)) > 1]
    if not found:
        return ()
    name, count = found[0]
    more = f" {len(found)} files of the folder are such." if len(found) > 1 else ""
    return (f"{name} holds {count} images; only its first is used, as one frame.{more}",)


def _read_state(file: Path) -> tuple[Path, int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise VideoError(f"{file} cannot be read ({error.strerror}); check the path.") from error
    return file.absolute(), found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _index_once(files: tuple[tuple[Path, int, int], ...]) -> FolderIndex:
    """Decode every image; done again only if size or time of a file changed."""
    first: tuple[int, ...] | None = None
    transparent: list[str] = []
    for file, *_ in files:
        image, see_through = decode_with_alpha(file)
        shape = image.shape
        first = shape if first is None else first
        if shape != first:
            raise VideoError(
                f"{file} is {shape[1]}x{shape[0]}, {files[0][0].name} is "
                f"{first[1]}x{first[0]}; bring all images to one size."
            )
        transparent += [file.name] if see_through else []
    logger.info("%s: %d images", files[0][0].parent, len(files))
    notes = find_numbering_notes([file for file, *_ in files])
    if transparent:
        notes += (describe_alpha(
            f"{transparent[0]} has" if len(transparent) == 1
            else f"{len(transparent)} images, such as {transparent[0]}, have"
        ),)
    notes += _describe_several([file for file, *_ in files])
    for note in notes:
        logger.warning("%s: %s", files[0][0].parent, note)
    height, width = (first or (0, 0))[:2]
    return FolderIndex(files, (height, width), notes, bool(transparent))


class ImageFolder:
    """Images as frames, in natural order.

    Args:
        path: a folder, or a single image.
        index: what an earlier opening found; it counts while no file has changed.
    """

    def __init__(
        self, path: str | Path, *, rate: Fraction = DEFAULT_RATE, index: FolderIndex | None = None
    ) -> None:
        path = Path(path)
        self._files = _list_frames(path) if path.is_dir() else [path]
        states = tuple(_read_state(file) for file in self._files)
        self.index = index if index and index.files == states else _index_once(states)
        height, width = self.index.size
        count = len(self._files)
        self.info = VideoInfo(
            path=str(path), width=width, height=height, rate=rate, frames=count,
            seconds=count / rate, has_sound=False, rotation=0,
            timestamps=tuple(number / rate for number in range(count)), variable_rate=False,
            notes=self.index.notes, transparent=self.index.transparent,
        )

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Read the frame of that number, RGB [H, W, 3]."""
        check_index(index, self.info)
        rgb = decode_image(self._files[index])
        if rgb.shape[:2] != (self.info.height, self.info.width):
            raise VideoError(f"{self._files[index]} changed its size meanwhile; start again.")
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
            yield _find_alpha(_read_image(self._files[index]))

    def close(self) -> None:
        """Do nothing, because no file is open."""

    def __enter__(self) -> ImageFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_index(index: int, info: VideoInfo) -> None:
    """Raise VideoError unless the source has a frame of that number."""
    if not 0 <= index < info.frames:
        raise VideoError(
            f"There is no frame {index} in {info.path}, which has {info.frames} frames; "
            f"give 0 to {info.frames - 1}."
        )


def check_range(first: int, last: int | None, info: VideoInfo) -> int:
    """Check both ends of a range, and return its last frame; None means the source's last."""
    end = info.frames - 1 if last is None else last
    check_index(first, info)
    check_index(end, info)
    if end < first:
        raise VideoError(f"The last frame, {end}, is before the first, {first}; swap them.")
    return end


def check_folder_target(path: Path) -> None:
    """Raise VideoError unless the folder can be made, or is an earlier result to replace."""
    if not path.exists():
        return
    if not path.is_dir():
        raise VideoError(f"{path} is a file; name a new folder for the images.")
    names = [entry.name for entry in path.iterdir()]
    foreign = [name for name in names if name != FRAMES_MARK and not _OWN_NAME.fullmatch(name)]
    if names and FRAMES_MARK not in names:
        foreign = names
    if foreign:
        raise VideoError(
            f"{path} holds files that are not an earlier result, such as {min(foreign)}; name a "
            "new folder."
        )


class ImageFolderWriter:
    """Writes frames as 0000.png, 0001.png, ...; the folder appears when all are written.

    Args:
        path: folder to make; one made by an earlier run is replaced, any other is refused.
        first: number of the first image.
        confirm: called when all is written, before the folder gets its name; what it raises ends
            it.
        bits: of a sample, 8 or 16.
        comment: text that every image keeps.
    """

    def __init__(
        self, path: str | Path, *, first: int = 0, confirm: Callable[[], None] = lambda: None,
        bits: int = 8, comment: str = "",
    ) -> None:
        self.path = Path(path)
        self.deep, self._comment = bits > 8, comment
        self._confirm = confirm
        self.notes: tuple[str, ...] = ()
        self._first, self._count = first, 0
        self._claim: IO[bytes] | None = None
        # Always the same name: what a run that was killed has left is removed by the next one.
        self._target = follow_link(self.path)
        name = self._target.name
        self._part = name_part(self._target, f"{crc32(name.encode()):08x}.part")

    def rehearse(self) -> None:
        """Check that the folder can be written, and leave nothing behind."""
        self.__enter__()
        self._discard()

    def __enter__(self) -> ImageFolderWriter:
        check_folder_target(self.path)
        if is_claimed(self._part / FRAMES_MARK):
            raise VideoError(
                f"{self.path} is being written by another run. Wait for it, or name another folder."
            )
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir()
            self._claim = claim_part(self._part / FRAMES_MARK)
            (self._part / FRAMES_MARK).touch()
        except OSError as error:
            raise _explain_unwritable(self.path, error) from error
        return self

    def write(self, rgb: NDArray[Any]) -> None:
        """Write the next frame, RGB [H, W, 3], or with alpha [H, W, 4].

        It is uint8, or uint16 if the writer is `deep`.
        """
        if rgb.dtype != (np.uint16 if self.deep else np.uint8):
            raise VideoError(f"A frame is {rgb.dtype}; {self.path.name} takes the other depth.")
        done, data = cv2.imencode(".png", cv2.cvtColor(
            rgb, cv2.COLOR_RGB2BGR if rgb.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        ))
        if not done:
            raise VideoError(f"A frame of shape {rgb.shape} cannot be saved as PNG.")
        try:
            name = f"{self._first + self._count:04d}.png"
            (self._part / name).write_bytes(add_text(data.tobytes(), self._comment))
        except OSError as error:
            raise _explain_unwritable(self.path, error) from error
        self._count += 1

    def _finish(self) -> None:
        if not self._count:
            raise VideoError(f"No frame was written to {self.path}; the source gave none.")
        found = sum(1 for file in self._part.glob("*.png") if file.stat().st_size)
        if found != self._count:
            raise VideoError(f"{self.path}: {self._count} images were written, {found} are there.")
        self._confirm()
        try:
            if self._target.exists():
                shutil.rmtree(self._target)
            self._part.replace(self._target)
        except OSError as error:
            raise _explain_unwritable(self.path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Remove what was written so far; a finished folder already has its own name."""
        shutil.rmtree(self._part, ignore_errors=True)
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def _explain_unwritable(path: Path, error: OSError) -> VideoError:
    return VideoError(
        f"{path} cannot be written ({error.strerror}); check the space and the rights there."
    )
