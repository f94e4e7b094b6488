"""Find the frames that numbers in the names of files mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fresco.errors import SettingsError
from fresco.run.clip import Clip
from fresco.video.folder import FolderIndex
from fresco.video.numbering import find_number, number_images


def find_frames(
    numbers: Sequence[int], clip: Clip, what: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Find the frame that each number means, with notes.

    If the source is a folder of numbered images, a number is that of one of these. Otherwise
    numbers count frames from 0. But if they are consecutive and as many as the source has frames,
    or one less, the first number is frame 0.

    Args:
        numbers: in ascending order.
        what: what the files contain, for notes.
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


def find_frame_images(
    folder: Path, images: Sequence[Path], clip: Clip, name: str, what: str
) -> tuple[dict[int, Path], tuple[str, ...]]:
    """Find the image of every frame used, with notes; SettingsError if one is missing.

    Args:
        images: the images of the folder.
        name: name of the folder in notes.
        what: what one image is, such as hint.
    """
    if number_images(images) is None:
        raise SettingsError(
            f"The {what}s in {folder} have no frame numbers of their own; name them such as "
            "000012.png."
        )
    numbered = {number: path for path in images if (number := find_number(path)) is not None}
    frames, notes = find_frames(sorted(numbered), clip, name)
    paths = {frame: numbered[number] for number, frame in frames.items()}
    for number in clip.numbers:
        if number not in paths:
            raise SettingsError(
                f"{folder} has no {what} of frame {number}; every frame used needs one, "
                f"{clip.first} to {clip.last}."
            )
    return {number: paths[number] for number in clip.numbers}, notes
