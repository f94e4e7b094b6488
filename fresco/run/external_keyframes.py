"""Keyframes that somebody painted by hand, or another tool made."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fresco.errors import SettingsError
from fresco.planning.keyframes import KeyframePlan, plan_segments
from fresco.run.clip import Clip
from fresco.video.folder import IMAGE_SUFFIXES, decode_image
from fresco.video.size import scale_frame
from fresco.workspace import Workspace, digest, digest_content, frame_name, write_image


@dataclass(frozen=True, slots=True)
class ImportedKeyframes:
    """External keyframes at working size."""

    folder: Path
    """The images, by frame number."""
    plans: tuple[KeyframePlan, ...]
    """One a shot, with these keyframes alone."""
    ends: tuple[tuple[int, int], ...]
    """A keyframe and the end of its shot on a side where there is no other."""
    notes: tuple[str, ...]
    """What a person should know."""


def list_external_keyframes(folder: Path, clip: Clip) -> dict[int, Path]:
    """The images of a folder by frame number: the last number in each name."""
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder; give one with stylised keyframes.")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise SettingsError(
                f"{path.name} in {folder} holds no frame number; name it such as 000012.png."
            )
        number = int(numbers[-1])
        if number in found:
            raise SettingsError(
                f"{found[number].name} and {path.name} are both frame {number}; keep one."
            )
        if number not in clip.numbers:
            raise SettingsError(
                f"{path.name} is frame {number}, outside the frames used, {clip.first} to "
                f"{clip.last}; rename it or leave it out."
            )
        found[number] = path
    if not found:
        raise SettingsError(f"{folder} holds no images; give PNG or JPEG keyframes.")
    return dict(sorted(found.items()))


def import_external_keyframes(
    clip: Clip, images: Mapping[int, Path], plans: tuple[KeyframePlan, ...], space: Workspace
) -> ImportedKeyframes:
    """Bring external keyframes to the working size, and plan with them alone."""
    cache_key = digest(clip.cache_key, {n: digest_content(p) for n, p in images.items()})
    folder = space.folder("own", cache_key)
    notes: list[str] = []
    changed: list[KeyframePlan] = []
    ends: list[tuple[int, int]] = []
    for plan in plans:
        own = tuple(n for n in plan.keyframes if n in images)
        if not own:
            raise SettingsError(
                f"The shot of frames {plan.keyframes[0]} to {plan.keyframes[-1]} has no keyframe "
                "of its own, and nothing is carried across a cut; add one, or "
                "switch keyframes.detect_shots off."
            )
        ends += [(key, end) for key, end in ((own[0], plan.keyframes[0]),
                                             (own[-1], plan.keyframes[-1])) if key != end]
        changed.append(dataclasses.replace(plan, keyframes=own, segments=plan_segments(own)))
    for number, path in images.items():
        image = decode_image(path)
        height, width = image.shape[:2]
        if (width, height) != clip.frames.size:
            notes.append(
                f"{path.name} is {width}x{height}; it is scaled to {clip.frames.size[0]}x"
                f"{clip.frames.size[1]}, the working size (sampling.resolution)."
            )
        write_image(folder / frame_name(number), scale_frame(image, clip.frames.size))
    return ImportedKeyframes(folder, tuple(changed), tuple(ends), tuple(notes))
