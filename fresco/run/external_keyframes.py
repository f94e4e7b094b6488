"""Import external keyframes, which were painted by hand or made by another tool."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fresco.digests import digest
from fresco.errors import SettingsError
from fresco.planning.keyframes import KeyframePlan, plan_segments
from fresco.run.clip import Clip
from fresco.run.inputs import Source
from fresco.run.result import EXPORTED
from fresco.settings import FrescoSettings
from fresco.video.folder import (
    FRAMES_MARK,
    FolderIndex,
    decode_image,
    decode_with_alpha,
    describe_transparent,
    find_images,
)
from fresco.video.numbering import find_number, number_images
from fresco.video.size import carried_size, scale_frame
from fresco.workspace import Workspace, frame_name, write_image


@dataclass(frozen=True, slots=True)
class ImportedKeyframes:
    """External keyframes at the size of the clip's frames."""

    folder: Path
    """Folder of the images, named by frame number."""
    plans: tuple[KeyframePlan, ...]
    """One for each shot, with these keyframes only."""
    ends: tuple[tuple[int, int], ...]
    """Pairs of an outermost keyframe and the end of its shot on that side."""
    notes: tuple[str, ...]
    """Notes for the user."""


@dataclass(frozen=True, slots=True)
class _Numbering:
    """How the number in a keyframe's name becomes the number of a frame."""

    by_image: Mapping[int, int] | None
    """Frame of each number in the names of the source's images; None: numbers count frames from 0.
    """
    note: str = ""
    """Note for the user."""

    def find(self, number: int) -> int | None:
        """The frame that a number means, or None."""
        return number if self.by_image is None else self.by_image.get(number)


def number_keyframes(images: Iterable[Path], where: str = "") -> dict[int, Path]:
    """Sort images by the numbers in their names; SettingsError where one has none, or two the same.

    Args:
        where: where the images lie, for messages.
    """
    named: dict[int, Path] = {}
    for path in images:
        number = find_number(path)
        if number is None:
            raise SettingsError(
                f"{path.name}{where} holds no frame number; name it such as 000012.png."
            )
        if number in named:
            raise SettingsError(
                f"{named[number].name} and {path.name} are both frame {number}; keep one."
            )
        named[number] = path
    return named


def list_external_keyframes(
    folder: Path, clip: Clip, *, what: str = "keyframes"
) -> tuple[dict[int, Path], tuple[str, ...]]:
    """Find the images of a folder by frame number, with notes.

    The last number in a name counts. If the source is a folder of numbered images, it is the number
    of one of these. Otherwise, and in a folder that this program made, it counts frames from 0.

    Args:
        what: the word for such images in messages.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder; give one with {what}.")
    named = number_keyframes(find_images(folder)[0], f" in {folder}")
    if not named:
        raise SettingsError(f"{folder} holds no images; give {what} as PNG or JPEG.")
    ours = any((folder / mark).exists() for mark in (FRAMES_MARK, EXPORTED))
    numbering = _Numbering(None) if ours else _choose_numbering(sorted(named), clip, what)
    found: dict[int, Path] = {}
    for number, path in named.items():
        frame = numbering.find(number)
        if frame is None or frame not in clip.numbers:
            raise _make_outside_error(path, frame, clip, numbering)
        found[frame] = path
    return dict(sorted(found.items())), (numbering.note,) if numbering.note else ()


def _choose_numbering(numbers: Sequence[int], clip: Clip, what: str) -> _Numbering:
    """Number keyframes like the source's images if each has one there, otherwise by position."""
    index = clip.frames.index
    files = [file for file, *_ in index.files] if isinstance(index, FolderIndex) else []
    by_image = number_images(files) if len(files) > 1 else None
    if by_image is None:
        return _Numbering(None, _warn_of_counting_from_1(numbers, clip, what))
    if all(frame == number for number, frame in by_image.items()):
        return _Numbering(None)
    known = [number in by_image for number in numbers]
    lowest, highest = min(by_image), max(by_image)
    if not all(known) and all(number in clip.numbers for number in numbers):
        return _Numbering(None, (
            f"The source's images have the numbers {lowest} to {highest} in their names, and not "
            f"all {what} have one of these; so the numbers of the {what} count frames from 0."
        ))
    first = files[by_image[numbers[0]]].name if known[0] else ""
    return _Numbering(by_image, (
        f"{what.capitalize()} belong to the source's images of the same number: {numbers[0]} is "
        f"{first}, which is frame {by_image[numbers[0]]}."
    ) if first else "")


def _warn_of_counting_from_1(numbers: Sequence[int], clip: Clip, what: str) -> str:
    """Make a note if the names seem to count from 1; otherwise an empty text."""
    if numbers[0] != 1 or clip.first != 0 or clip.count == 1:
        return ""
    return (
        f"The first of the {what} is number 1, and numbers count frames from 0, so it is the "
        "second frame. If its name counts from 1, as the images of ffmpeg do, lower all numbers "
        "by one."
    )


def _make_outside_error(
    path: Path, frame: int | None, clip: Clip, numbering: _Numbering
) -> SettingsError:
    if numbering.by_image is not None and frame is None:
        numbers = numbering.by_image
        return SettingsError(
            f"{path.name} has a number that no image of the source has; theirs are {min(numbers)} "
            f"to {max(numbers)}. Rename it or leave it out."
        )
    return SettingsError(
        f"{path.name} is frame {frame}, outside the frames used, {clip.first} to "
        f"{clip.last}, which are counted from 0; rename it or leave it out."
    )


def choose_size(
    images: Mapping[int, Path], clip: Clip, settings: FrescoSettings, most: int = 0
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Choose the width and height at which external keyframes are propagated, with notes.

    It is the size that most of them have, unless that is larger than the result.

    Args:
        most: largest short side that is allowed; 0: any.
    """
    info, wanted = clip.info, settings.propagation.resolution
    source = info.width, info.height
    if not wanted:
        shapes = (decode_image(path).shape for path in images.values())
        sizes = Counter((width, height) for height, width, _ in shapes)
        common = max(sizes, key=lambda size: (sizes[size], size))
        wanted = min(common)
        if settings.output.source_size and wanted >= min(source):
            wanted, common = min(source), source
        scale = Fraction(wanted, min(source))
        fits = all(abs(side - own * scale) <= 1 for side, own in zip(common, source, strict=True))
        if fits and (not most or wanted <= most):
            return common, ()
    notes: tuple[str, ...] = ()
    if most and wanted > most:
        notes = (
            f"Keyframes are carried with a short side of {most} instead of {wanted} pixels, the "
            "most that this server takes.",
        )
        wanted = most
    return carried_size(*source, wanted), notes


def import_external_keyframes(
    clip: Clip, images: Mapping[int, Path], plans: tuple[KeyframePlan, ...], space: Workspace
) -> ImportedKeyframes:
    """Bring external keyframes to the size of the clip's frames, and plan with them alone."""
    held = [Source(path) for path in images.values()]
    for each in held:
        each.read_content(once=True)
    # Not of their content: if one is replaced, only the frames beside it are made again.
    folder = space.folder("own", digest(clip.cache_key, list(images)))
    notes: list[str] = []
    changed: list[KeyframePlan] = []
    ends: list[tuple[int, int]] = []
    for plan in plans:
        own = tuple(n for n in plan.keyframes if n in images)
        if not own:
            raise SettingsError(
                f"The shot of frames {plan.keyframes[0]} to {plan.keyframes[-1]} has no keyframe "
                "of its own, and keyframes are not propagated across a cut; add one, or "
                "switch keyframes.detect_shots off."
            )
        ends += [(key, end) for key, end in ((own[0], plan.keyframes[0]),
                                             (own[-1], plan.keyframes[-1])) if key != end]
        changed.append(dataclasses.replace(plan, keyframes=own, segments=plan_segments(own)))
    transparent: list[str] = []
    for position, (number, path) in enumerate(images.items()):
        image, see_through = decode_with_alpha(path)
        transparent += [path.name] if see_through else []
        height, width = image.shape[:2]
        if (width, height) != clip.frames.size:
            notes.append(
                f"{path.name} is {width}x{height}; it is scaled to {clip.frames.size[0]}x"
                f"{clip.frames.size[1]} (propagation.resolution)."
            )
        held[position].check()
        write_image(folder / frame_name(number), scale_frame(image, clip.frames.size))
    notes += [describe_transparent(transparent)] if transparent else []
    return ImportedKeyframes(folder, tuple(changed), tuple(ends), tuple(notes))
