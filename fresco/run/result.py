"""Stage 4: write the video, with the source's size, frame rate and sound."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest_content
from fresco.errors import PropagationError
from fresco.masks.edge import AnyImage, FrameMasks, add_alpha, lay_over, lift_from_black
from fresco.planning.keyframes import KeyframePlan
from fresco.progress import Progress
from fresco.run.clip import Clip
from fresco.settings import OutputSettings
from fresco.video.codecs import FOLDERS
from fresco.video.reader import VideoInfo
from fresco.video.size import scale_deep, scale_frame, scale_levels
from fresco.video.writer import ImageFolderWriter, VideoWriter
from fresco.workspace import frame_name, read_image, read_json, write_json
from fresco.writing import clear_parts, write_bytes

EXPORTED = ".fresco-keys.json"
"""File with the names and digests of the keyframes that were exported into a folder."""

Writer = VideoWriter | ImageFolderWriter
"""Writes the frames of a result."""

ImageLookup = Callable[[int], "NDArray[np.uint8] | None"]
"""Returns the image of a frame by its number in the source; None if it is absent or damaged."""


def read_stored(folder: Path) -> ImageLookup:
    """Return a lookup of the images in a folder of the workspace."""
    return lambda number: read_image(folder / frame_name(number))


def find_end(info: VideoInfo, number: int) -> Fraction:
    """Time in seconds at which the next frame of the source begins, or the source ends."""
    times = info.timestamps
    return times[number + 1] if number + 1 < len(times) else times[0] + info.seconds


def choose_sound(info: VideoInfo, first: int, last: int) -> dict[str, Any]:
    """Choose the writer's arguments for the part of the sound that belongs to these frames."""
    if not info.has_sound:
        return {}
    sound = {"sound_from": Path(info.path), "clock_shifts": info.clock_shifts}
    if last - first + 1 == info.frames:
        return sound
    return sound | {"sound_range": (info.timestamps[first], find_end(info, last))}


def prepare_writer(
    clip: Clip, output: Path, settings: OutputSettings, workspace: Path,
    confirm: Callable[[], None], comment: str = "",
) -> Writer:
    """Create the writer of the result, and try its folder, container and sound.

    What cannot be written is refused here, before any work.

    Args:
        output: a video file, or a folder of images when the name has no suffix.
        workspace: folder for sound that must be encoded.
        confirm: called before the result gets its name; raises if the source has changed.
        comment: text that is stored in a video file, or in every image.
    """
    width, height = _find_size(clip, settings)
    # Times are those of the source; the writer shifts frames and sound together.
    times = clip.info.timestamps[clip.first:clip.last + 1]
    if output.suffix:
        sound = choose_sound(clip.info, clip.first, clip.last) if settings.sound else {}
        writer: Writer = VideoWriter(
            output, width, height, clip.info.rate, timestamps=times,
            end=find_end(clip.info, clip.last), crf=settings.crf, codec=settings.codec,
            pixel_aspect=clip.info.pixel_aspect, scratch=workspace, confirm=confirm,
            comment=comment, colour=clip.info.colour,
            alpha=settings.background == "transparent", **sound,
        )
    else:
        writer = ImageFolderWriter(
            output, confirm=confirm, bits=FOLDERS.get(settings.codec, 8), comment=comment
        )
    writer.rehearse()
    return writer


def _find_size(clip: Clip, settings: OutputSettings) -> tuple[int, int]:
    return (clip.info.width, clip.info.height) if settings.source_size else clip.frames.size


def write_result(
    clip: Clip, images: ImageLookup, writer: Writer, settings: OutputSettings, progress: Progress,
    *, masks: FrameMasks | None = None,
) -> tuple[str, ...]:
    """Write every frame of the clip by the writer of `prepare_writer`; return the writer's notes.

    Args:
        masks: show the images only inside these masks. Elsewhere is the source, or nothing with a
            transparent background. Frames with that have the alpha of the source, too.
    """
    size, scale = _find_size(clip, settings), scale_deep if writer.deep else scale_frame
    with progress.stage("write", clip.count) as stage, writer:
        finish = (
            _open_alpha(clip, masks, size) if settings.background == "transparent"
            else _open_masking(clip, masks, size, scale)
        )
        for number in clip.numbers:
            image = images(number)
            if image is None:
                raise PropagationError(
                    f"The image of frame {number} is missing or damaged. Start the same command "
                    "again: it makes what is missing."
                )
            writer.write(finish(scale(image, size)))
            stage.advance()
    return writer.notes


def _open_alpha(
    clip: Clip, masks: FrameMasks | None, size: tuple[int, int]
) -> Callable[[AnyImage], AnyImage]:
    """Return a function that gives the images, in order, the source's alpha times the mask.

    Their colours were made over black where the source is transparent.
    """
    whole = np.ones(size[::-1], np.float32)
    shares = masks.read(size) if masks else itertools.repeat(whole)
    if not clip.info.transparent:
        return lambda image: add_alpha(image, next(shares))
    alphas = (scale_levels(alpha, size) for alpha in clip.read_alpha())

    def finish(image: AnyImage) -> AnyImage:
        alpha = next(alphas)
        return add_alpha(lift_from_black(image, alpha), alpha * next(shares))

    return finish


def _open_masking(
    clip: Clip, masks: FrameMasks | None, size: tuple[int, int], scale: Callable[..., AnyImage]
) -> Callable[[AnyImage], AnyImage]:
    """Return a function that lays the images, in order, over the source's frames by their masks."""
    if masks is None:
        return lambda image: image
    pairs = zip(clip.read_source(), masks.read(size), strict=True)

    def finish(image: AnyImage) -> AnyImage:
        source, share = next(pairs)
        return lay_over(scale(source, size), image, share)

    return finish


def find_export(output: Path) -> Path:
    """The folder beside a result for exported keyframes."""
    return output.parent / f"{output.stem}-keys"


def export_keyframes(folder: Path, output: Path, plans: Sequence[KeyframePlan]) -> Path:
    """Copy the translated keyframes that exist to a folder beside the result, by frame number.

    Images of an earlier export that are no longer keyframes are deleted; otherwise a propagation
    from that folder would use them. An image that was retouched there stays until its keyframe is
    translated again.
    """
    target = find_export(output)
    numbers = [number for plan in plans for number in plan.keyframes]
    clear_parts(target / EXPORTED, *(target / frame_name(number) for number in numbers))
    before = read_json(target / EXPORTED) or {}
    now: dict[str, str] = {}
    for name in map(frame_name, numbers):
        if read_image(folder / name) is None:
            continue
        now[name] = digest_content(folder / name)
        if before.get(name) != now[name] or not (target / name).exists():
            write_bytes(target / name, (folder / name).read_bytes())
    for name in before.keys() - now.keys():
        if (target / name).exists() and digest_content(target / name) == before[name]:
            (target / name).unlink()
    write_json(target / EXPORTED, now)
    return target
