"""Find and check guides of propagation from folders, before the work."""

from __future__ import annotations

import math
from pathlib import Path

from fresco.digests import digest, digest_content
from fresco.errors import SettingsError, VideoError
from fresco.masks.files import check_shape
from fresco.propagation.guide_folders import GuideFolder
from fresco.run.clip import Clip
from fresco.run.numbers import find_frame_images
from fresco.settings import PropagationSettings
from fresco.video.folder import decode_image, find_images

MOST, HEAVIEST = 8, 100.0
"""Largest number of guides in a run, and largest weight of one. Our own guides weigh 9 together."""


def check_guides(
    clip: Clip, settings: PropagationSettings
) -> tuple[tuple[GuideFolder, ...], tuple[str, ...]]:
    """Check the guides that the options name, and return them with notes."""
    named = [text for text in settings.guides if text.strip()]
    if not named:
        return (), ()
    if settings.method != "patch":
        raise SettingsError(
            f"propagation.guides are for patches, but propagation.method is {settings.method!r}; "
            "leave them out, or choose patch."
        )
    if len(named) > MOST:
        raise SettingsError(f"propagation.guides names {len(named)} folders; give at most {MOST}.")
    found, notes = [], []
    for text in named:
        guide, further = _open_guide(text.strip(), clip)
        found.append(guide)
        notes += further
    return tuple(found), tuple(notes)


def parse_guide(text: str) -> tuple[Path, float]:
    """Read folder and weight from FOLDER:WEIGHT; the default weight is 1."""
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).expanduser().is_dir():
        return Path(text).expanduser(), 1.0
    try:
        value = float(weight)
    except ValueError:
        return Path(text).expanduser(), 1.0  # the colon follows the letter of a drive
    if not (math.isfinite(value) and 0 < value <= HEAVIEST):
        raise SettingsError(
            f"The weight in propagation.guides {text!r} is {weight}; give more than 0, at most "
            f"{HEAVIEST:g}."
        )
    return Path(folder).expanduser(), value


def _open_guide(text: str, clip: Clip) -> tuple[GuideFolder, tuple[str, ...]]:
    folder, weight = parse_guide(text)
    if not folder.is_dir():
        raise SettingsError(
            f"propagation.guides names {folder}, which is not a folder; give FOLDER or "
            "FOLDER:WEIGHT."
        )
    images = find_images(folder)[0]
    used, notes = find_frame_images(folder, images, clip, f"the guide {folder.name}", "image")
    size = clip.info.width, clip.info.height
    for path in used.values():
        try:
            height, width = decode_image(path).shape[:2]
        except VideoError as error:
            raise SettingsError(f"A guide cannot be read: {error}") from error
        check_shape(f"{path.name} in {folder}", (width, height), size, what="guide")
    content = digest([[number, digest_content(path)] for number, path in used.items()])
    return GuideFolder(
        folder.name, weight,
        {number: str(path.absolute()) for number, path in used.items()}, content,
    ), notes
