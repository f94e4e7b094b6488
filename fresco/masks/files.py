"""Read masks from files: drawings on single frames, or sequences with one for every frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fresco.errors import SettingsError, VideoError
from fresco.masks.edge import Share, read_levels
from fresco.video.folder import decode_image, find_images
from fresco.video.numbering import find_number, number_images
from fresco.video.reader import SourceIndex, open_source

Size = tuple[int, int]
"""Width and height."""

SHAPE = 0.02
"""Share by which proportions of mask and frames may differ because of rounding."""


def check_shape(name: str, mask: Size, frames: Size, *, what: str = "mask") -> bool:
    """Whether a mask must be scaled; SettingsError if its proportions are not the frames'.

    Args:
        name: what the mask is called, for the error.
        what: what it is, if not a mask.
    """
    if mask == frames:
        return False
    if abs(mask[0] * frames[1] / (mask[1] * frames[0]) - 1) > SHAPE:
        raise SettingsError(
            f"{name} is {mask[0]}x{mask[1]}, the frames are {frames[0]}x{frames[1]}; give a "
            f"{what} of the frames' proportions."
        )
    return True


def tell_scaled(name: str, mask: Size, frames: Size) -> str:
    """Make a note about a mask that is scaled."""
    return (f"{name} is {mask[0]}x{mask[1]}; it is scaled to the frames' {frames[0]}x{frames[1]}.")


def refuse_useless(shares: Iterable[Share], *, invert: bool) -> None:
    """Raise SettingsError if masks translate nothing, or everything."""
    some = whole = False
    for share in shares:
        some |= bool(share.any())
        whole |= not (share == 1).all()
        if some and whole:
            return
    black, white = not some, not whole
    if (white if invert else black):
        raise SettingsError(
            f"The mask is {'white' if invert else 'black'} everywhere, so nothing would be "
            "translated; paint what is meant, or change mask.invert."
        )
    if black or white:
        raise SettingsError(
            f"The mask is {'white' if white else 'black'} everywhere, so all would be translated; "
            "set mask.source to none for that, or paint what is meant."
        )


def read_drawing(path: Path) -> Share:
    """Read a drawn mask at its own size."""
    return read_levels(decode_image(path))


@dataclass(frozen=True, slots=True)
class MaskSequence:
    """A mask for every frame, or one for all frames."""

    path: Path
    """Folder, video, or image."""
    index: SourceIndex
    """Its index, from opening it once."""
    start: int
    """Number of its first used frame."""
    still: bool
    """Whether it is one image for all frames."""
    size: Size
    """Width and height of the masks."""

    def read(self, count: int) -> Iterator[Share]:
        """Read the masks of this number of used frames, in order."""
        with open_source(self.path, index=self.index) as source:
            if self.still:
                share = read_levels(source.frame(0))
                yield from (share for _ in range(count))
                return
            for image in source.frames(self.start, self.start + count - 1):
                yield read_levels(image)

    def pick(self, position: int) -> Share:
        """Read the mask of one of the used frames, counted from the first of them."""
        with open_source(self.path, index=self.index) as source:
            return read_levels(source.frame(0 if self.still else self.start + position))


def open_sequence(
    path: Path, used: range, frames: int, size: Size
) -> tuple[MaskSequence, tuple[str, ...]]:
    """Open and check the masks of a folder, a video or an image, with notes.

    Args:
        used: numbers of the source's frames that are used.
        frames: how many the source has.
        size: of them.
    """
    if not path.exists():
        raise SettingsError(f"mask.path is {path}, which does not exist; check it.")
    if path.is_dir():
        _refuse_gaps(path)
    try:
        with open_source(path) as source:
            info, index = source.info, source.index
    except VideoError as error:
        raise SettingsError(f"The mask cannot be read: {error}") from error
    notes: list[str] = []
    if check_shape(path.name, (info.width, info.height), size):
        notes.append(tell_scaled(path.name, (info.width, info.height), size))
    start = used[0]
    if info.frames not in (1, frames):
        if info.frames != len(used):
            raise SettingsError(
                f"{path} holds {info.frames} masks, but the source has {frames} frames, of which "
                f"{len(used)} are used ({used[0]} to {used[-1]}); give one for each of either, or "
                "one image for all."
            )
        start = 0
        notes.append(
            f"{path.name} holds as many masks as frames are used, so its first one is that of "
            f"frame {used[0]}."
        )
    still = info.frames == 1 and len(used) > 1
    start = 0 if info.frames == 1 else start
    return MaskSequence(path, index, start, still, (info.width, info.height)), tuple(notes)


def _refuse_gaps(folder: Path) -> None:
    """Raise SettingsError if a number is missing in the names of a folder's masks."""
    images = find_images(folder)[0]
    if not images:
        raise SettingsError(f"{folder} holds no images; give PNG masks.")
    if number_images(images) is None:
        return
    numbers = sorted(number for path in images if (number := find_number(path)) is not None)
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise SettingsError(
                f"{folder} has no mask with the number {before + 1}, though it has {before} and "
                f"{after}; add what is missing, or set mask.source to drawing, which carries "
                "masks to the frames between."
            )
