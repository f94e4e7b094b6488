"""Finds the frames that the numbers in names of files mean."""

from __future__ import annotations

from collections.abc import Sequence

from fresco.run.clip import Clip
from fresco.video.folder import FolderIndex
from fresco.video.numbering import number_images


def find_frames(
    numbers: Sequence[int], clip: Clip, what: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """The frame that each number means, with notes.

    Where the source is a folder of numbered images, a number is that of one of these. Else numbers
    count frames from 0; where there are as many in a row as the source has frames, or one less,
    from the first of them.

    Args:
        numbers: rising.
        what: what the files hold, for notes.
    """
    index = clip.frames.index
    files = [file for file, *_ in index.files] if isinstance(index, FolderIndex) else []
    by_image = number_images(files) if len(files) > 1 else None
    if by_image is not None and any(number in by_image for number in numbers):
        return {number: by_image[number] for number in numbers if number in by_image}, ()
    first = numbers[0] if numbers else 0
    whole = len(numbers) in (clip.info.frames, clip.info.frames - 1)
    if first and whole and numbers[-1] - first + 1 == len(numbers) and numbers[-1] > clip.last:
        return {number: number - first for number in numbers}, (
            f"The files of {what} count from {first}, so {first} is frame 0.",
        )
    return {number: number for number in numbers}, ()
