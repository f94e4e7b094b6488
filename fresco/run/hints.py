"""Find and check ControlNet hints that were made elsewhere, before the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fresco.control import ControlUnit
from fresco.digests import digest, digest_content
from fresco.errors import SettingsError, VideoError
from fresco.masks.files import SHAPE
from fresco.run.clip import Clip
from fresco.run.numbers import find_frame_images
from fresco.video.folder import decode_image, find_images
from fresco.video.reader import SourceIndex, open_source
from fresco.video.size import scale_frame

Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True, slots=True)
class HintSource:
    """The checked source of the hints of one unit."""

    path: Path
    """Folder of images, or a video."""
    resize_mode: str
    """How a hint of other proportions is brought to the size of the frames."""
    source: Size
    """Width and height of the source's frames."""
    content: str
    """Digest of what is read."""
    files: Mapping[int, Path] = field(default_factory=dict)
    """For a folder: the image of each frame used."""
    index: SourceIndex | None = None
    """For a video: its index."""
    offset: int = 0
    """For a video: number of the source's frame that its first frame belongs to."""

    def read(self, numbers: Sequence[int], size: Size) -> NDArray[np.uint8]:
        """Read the hints of some frames, [N, H, W, 3], at this size."""
        if self.files:
            found = [decode_image(self.files[number]) for number in numbers]
        else:
            with open_source(self.path, index=self.index) as source:
                found = [source.frame(number - self.offset) for number in numbers]
        return np.stack([
            fit_hint(image, self.source, size, self.resize_mode) for image in found
        ])


def check_hints(
    clip: Clip, units: Sequence[ControlUnit]
) -> tuple[tuple[HintSource | None, ...], tuple[str, ...]]:
    """Find the hints of each unit, with notes; None if the unit's preprocessor makes them.

    Hints that cannot be used are refused.
    """
    found: list[HintSource | None] = []
    notes: list[str] = []
    for unit in units:
        if not unit.hints:
            found.append(None)
            continue
        path = Path(unit.hints).expanduser()
        if not path.exists():
            raise SettingsError(f"control.hints is {path}, which does not exist; check it.")
        opened, size, told = (_open_folder if path.is_dir() else _open_video)(path, clip, unit)
        found.append(opened)
        notes += [*told, *_tell_cut(path, size, opened.source, unit.resize_mode)]
    return tuple(found) if any(found) else (), tuple(notes)


def _open_folder(
    folder: Path, clip: Clip, unit: ControlUnit
) -> tuple[HintSource, Size, tuple[str, ...]]:
    images = find_images(folder)[0]
    if not images:
        raise SettingsError(f"control.hints is {folder}, which holds no images; give PNG hints.")
    used, notes = find_frame_images(folder, images, clip, f"the hints {folder.name}", "hint")
    size = _measure_all(list(used.values()))
    content = digest([[number, digest_content(path)] for number, path in used.items()])
    source = clip.info.width, clip.info.height
    return HintSource(folder, unit.resize_mode, source, content, used), size, notes


def _measure_all(paths: Sequence[Path]) -> Size:
    """Find the size of the images; SettingsError if they differ."""
    size: Size | None = None
    for path in paths:
        try:
            with Image.open(path) as image:
                found = image.size
        except (OSError, UnidentifiedImageError) as error:
            raise SettingsError(f"The hint {path} cannot be read; check the file.") from error
        if size is not None and found != size:
            raise SettingsError(
                f"The hint {path} is {found[0]}x{found[1]}, others are {size[0]}x{size[1]}; give "
                "one size."
            )
        size = found
    assert size is not None
    return size


def _open_video(
    path: Path, clip: Clip, unit: ControlUnit
) -> tuple[HintSource, Size, tuple[str, ...]]:
    try:
        with open_source(path) as source:
            info, index = source.info, source.index
    except VideoError as error:
        raise SettingsError(f"The hints cannot be read: {error}") from error
    offset, notes = 0, ()
    if info.frames != clip.info.frames:
        if info.frames != clip.count:
            raise SettingsError(
                f"{path} holds {info.frames} hints, but the source has {clip.info.frames} frames, "
                f"of which {clip.count} are used ({clip.first} to {clip.last}); give one for each "
                "of either."
            )
        offset = clip.first
        notes = (f"{path.name} holds as many hints as frames are used, so its first one is that of "
                 f"frame {clip.first}.",)
    size = clip.info.width, clip.info.height
    opened = HintSource(path, unit.resize_mode, size, digest_content(path), {}, index, offset)
    return opened, (info.width, info.height), notes


def _tell_cut(path: Path, hint: Size, frames: Size, mode: str) -> tuple[str, ...]:
    """Make a note if the hints have other proportions than the frames."""
    if is_shaped(hint, frames):
        return ()
    done = {"crop": "cropped at their edges", "stretch": "stretched", "fill": "filled up with "
            "black at their edges"}[mode]
    return (f"The hints {path.name} are {hint[0]}x{hint[1]}, the frames {frames[0]}x{frames[1]}: "
            f"the hints are {done}.",)


def fit_hint(
    image: NDArray[np.uint8], source: Size, size: Size, mode: str
) -> NDArray[np.uint8]:
    """Scale a hint [h, w, 3] to the size (width, height) to which the source's frames are scaled.

    Args:
        source: width and height of the source's frames.
        mode: how a hint gets their proportions: crop (its edges are cut off), stretch, or fill
            (black edges are added).
    """
    high, wide = image.shape[:2]
    if not is_shaped((wide, high), source) and mode != "stretch":
        scales = wide / source[0], high / source[1]
        scale = min(scales) if mode == "crop" else max(scales)
        width, height = (max(1, round(side * scale)) for side in source)
        left, top = abs(wide - width) // 2, abs(high - height) // 2
        image = image[top:top + height, left:left + width] if mode == "crop" else np.pad(image, (
            (top, height - high - top), (left, width - wide - left), (0, 0),
        ))
    return scale_frame(np.ascontiguousarray(image), size)


def is_shaped(hint: Size, source: Size) -> bool:
    """Whether a hint has the proportions of the frames."""
    return abs(hint[0] * source[1] / (hint[1] * source[0]) - 1) <= SHAPE
