"""Read the keyframes of an img2img call, and plan their batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image, fromarray

from fresco.errors import SettingsError, VideoError
from fresco.planning.keyframes import Batch, KeyframePlan, plan_batches
from fresco.planning.prompts import find_unused_words
from fresco.planning.ranges import check_ranges, cut_at_ranges
from fresco.progress import Progress
from fresco.run.masks import Shots, list_shots, track_masks
from fresco.run.translate import detect_keyframes
from fresco.server.videos import probe_video
from fresco.settings import FrescoSettings
from fresco.temporary import open_temporary_folder
from fresco.video.reader import open_source
from fresco.webui.img2img.keyframe_texts import FRAME, read_texts
from fresco.webui.img2img.masks import Drawing, collect_masks, open_tracked, to_image
from fresco.webui.img2img.request import Request
from fresco.workspace import frame_name


@dataclass(frozen=True, slots=True)
class CallFrames:
    """The frames and batches that a call translates."""

    images: tuple[Image, ...]
    """Keyframes in the source's size."""
    numbers: tuple[int, ...]
    """Their numbers in the source."""
    batches: tuple[Batch, ...]
    """Of places in `images`, not of numbers in the source. Every keyframe is new in exactly one; a
    batch without anchors begins a shot."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""
    masks: tuple[Image, ...] = ()
    """One for all keyframes, one for each, or none."""


def collect_frames(
    request: Request, given: Sequence[Image | None], own_mask: Image | None = None
) -> CallFrames:
    """Collect the frames of a call: of the source that it names, or the images given with it.

    Args:
        given: `p.init_images`; the page gives None where nothing was chosen
        own_mask: the mask of img2img itself
    """
    images = [image for image in given if image is not None]
    if not request.has_source:
        found, shots = take_images(images, request.settings), [(0, len(images) - 1)]
        drawing = own_mask and Drawing(own_mask, 0)
        with open_temporary_folder() as folder:

            def save() -> Path:
                for number, image in enumerate(images):
                    image.convert("RGB").save(folder / frame_name(number))
                return folder

            return _add_masks(request, found, len(images), shots, drawing, save)
    known = own_mask and Drawing(own_mask, _find_painted(images))
    if request.data:
        with open_temporary_folder() as folder:
            path = folder / "video.mp4"
            path.write_bytes(request.data)
            try:
                probe_video(path, "video")
                return _read_source(path, request, known)
            except VideoError as error:
                # The message must not name a path of the server.
                raise VideoError(str(error).replace(str(path), "video")) from error
    return _read_source(request.video or Path(request.path), request, known)


def _find_painted(images: Sequence[Image]) -> int:
    """Number of the frame that the image of img2img is, by its own text; -1 if it does not say."""
    texts = images[0].info if images else {}
    return int(read_texts(texts).get(FRAME, -1))


def _read_source(path: Path, request: Request, own: Drawing | None) -> CallFrames:
    """Read keyframes and masks of a video or a folder of images."""
    found, count, plans = read_keyframes(path, request.settings)
    shots = list_shots(plans)
    if own and not shots[0][0] <= own.frame <= shots[-1][1]:
        own = dataclasses.replace(own, frame=shots[0][0])
    return _add_masks(request, found, count, shots, own, lambda: path)


def _add_masks(
    request: Request, found: CallFrames, count: int, shots: Shots, own: Drawing | None,
    get_source: Callable[[], Path],
) -> CallFrames:
    """Add the masks to the frames of a call.

    Args:
        count: frames of the source.
        own: the mask of img2img itself.
        get_source: gives the source, where masks must be tracked through it.
    """
    size = found.images[0].size
    with open_tracked(request, own, shots[0][0], count, size) as mask:
        if mask is None:
            masks = collect_masks(request, found.numbers, count, size)
            return dataclasses.replace(found, masks=masks)
        shares, notes = track_masks(get_source(), request.settings, shots, mask, found.numbers)
    if own:
        notes += (f"The mask of img2img counts as drawn on frame {own.frame}, and is tracked to "
                  "the others.",)
    masks = tuple(map(to_image, shares))
    return dataclasses.replace(found, masks=masks, notes=(*found.notes, *notes))


def take_images(given: Sequence[Image], settings: FrescoSettings) -> CallFrames:
    """Take the images given with a call; each is a keyframe, and all are one shot."""
    if not given:
        raise VideoError(
            "There is no frame. Give FRESCO a video or a path, or give img2img an image (in the "
            "API init_images)."
        )
    _require_no_choice(settings)
    check_ranges(settings.sampling, len(given))
    sizes = sorted({image.size for image in given})
    if len(sizes) > 1:
        named = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise VideoError(f"The frames have different sizes ({named}); give frames of one size.")
    numbers = tuple(range(len(given)))
    return CallFrames(
        tuple(given), numbers, tuple(
            batch for group in cut_at_ranges(numbers, settings.sampling)
            for batch in plan_batches(group, settings.keyframes.batch_size)
        ),
        find_unused_words(numbers, settings.sampling),
    )


def _require_no_choice(settings: FrescoSettings) -> None:
    """Refuse options that would have no effect on images given with the call."""
    keys, output, usual = settings.keyframes, settings.output, FrescoSettings()
    chosen = {
        "keyframes.keys": keys.keys != usual.keyframes.keys,
        "output.first_frame": output.first_frame != usual.output.first_frame,
        "output.last_frame": output.last_frame != usual.output.last_frame,
    }
    if named := [name for name, differs in chosen.items() if differs]:
        raise SettingsError(
            f"{' and '.join(named)} cannot choose among the images of img2img (init_images), which "
            "are all keyframes; give FRESCO a video or a path, or give img2img only the images "
            "wanted."
        )


def read_keyframes(
    path: Path, settings: FrescoSettings
) -> tuple[CallFrames, int, tuple[KeyframePlan, ...]]:
    """Read the keyframes of a video or a folder of images, with its number of frames and its plans.
    """
    with open_temporary_folder() as folder:
        clip, _, plans, notes = detect_keyframes(path, settings, Progress(), folder)
        numbers = tuple(number for plan in plans for number in plan.keyframes)
        with open_source(path, last_frame=clip.frames.end) as source:
            images = tuple(
                fromarray(np.asarray(source.frame(number))) for number in numbers
            )
    notes = (*clip.info.notes, *notes)
    return CallFrames(images, numbers, _placed(plans, numbers), notes), clip.info.frames, plans


def _placed(plans: Sequence[KeyframePlan], numbers: Sequence[int]) -> tuple[Batch, ...]:
    place = {number: index for index, number in enumerate(numbers)}
    return tuple(
        Batch(
            batch.number,
            tuple(place[number] for number in batch.anchors),
            tuple(place[number] for number in batch.frames),
        )
        for plan in plans for batch in plan.batches
    )
