"""The mask of a run: check it before the work, track it to all frames, apply it to the result.

Translation and propagation do not depend on the mask. So with another mask, only the result is
written again, from the same frames. A run that ends with keyframes makes the masks of its
keyframes, so that a server can show these with them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest
from fresco.errors import SettingsError, WorkspaceError
from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.masks import carry, files, subject
from fresco.masks.edge import FrameMasks, Share, cut, feather, scale_share
from fresco.options import require_paths
from fresco.planning.keyframes import KeyframePlan
from fresco.progress import Progress, Stage
from fresco.propagation.ends import READ_AT_ONCE
from fresco.propagation.motion import find_pair
from fresco.run.clip import Clip, open_clip
from fresco.run.context import RunContext, log_stage, open_run
from fresco.run.external_keyframes import list_external_keyframes
from fresco.run.inputs import Source
from fresco.run.keyframes import note_masks
from fresco.settings import FrescoSettings, MaskSettings
from fresco.temporary import open_temporary_folder
from fresco.video.reader import VideoInfo
from fresco.video.size import working_size
from fresco.workspace import (
    drop_damaged,
    frame_name,
    read_arrays,
    read_image,
    write_arrays,
    write_image,
)

Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True, slots=True)
class MaskInput:
    """The checked inputs of a mask."""

    settings: MaskSettings
    """Its options."""
    drawings: Mapping[int, Path] = field(default_factory=dict)
    """Drawn masks by frame number; empty unless they are drawn."""
    sequence: files.MaskSequence | None = None
    """Masks of all frames, read from files."""
    held: tuple[Source, ...] = ()
    """The files, which must not change while they are read."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""


def check_mask(clip: Clip, settings: MaskSettings) -> MaskInput | None:
    """Read and check the inputs of a mask; None if everything is translated.

    What cannot be used is refused here, before any work.
    """
    if settings.source == "none":
        return None
    require_paths(mask=settings)
    size = clip.info.width, clip.info.height
    if settings.source == "drawing":
        return _check_drawings(clip, settings, size)
    if settings.source == "files":
        path = Path(settings.path).expanduser()
        if not path.exists():
            raise SettingsError(f"mask.path is {path}, which does not exist; check it.")
        held = Source(path)
        sequence, notes = files.open_sequence(path, clip.numbers, clip.info.frames, size)
        files.refuse_useless(
            sequence.read(1 if sequence.still else clip.count), invert=settings.invert
        )
        return MaskInput(settings, sequence=sequence, held=(held,), notes=notes)
    return MaskInput(settings)


def _check_drawings(clip: Clip, settings: MaskSettings, size: Size) -> MaskInput:
    path = Path(settings.path).expanduser()
    if path.is_dir():
        drawings, notes = list_external_keyframes(path, clip, what="masks")
    elif path.is_file():
        drawings, notes = _place_drawing(path, clip)
    else:
        raise SettingsError(
            f"mask.path is {path}, which is not there; give a drawn mask, or a folder of them."
        )
    held = tuple(Source(each) for each in drawings.values())
    scaled: list[str] = []

    def read() -> Iterator[Share]:
        for each in drawings.values():
            share = files.read_drawing(each)
            shape = share.shape[1], share.shape[0]
            if files.check_shape(each.name, shape, size):
                scaled.append(files.tell_scaled(each.name, shape, size))
            yield cut(share)

    shares = read()
    files.refuse_useless(shares, invert=settings.invert)
    for _ in shares:  # this checks the shapes of the rest, too
        pass
    return MaskInput(settings, drawings, held=held, notes=(*notes, *scaled))


def _place_drawing(path: Path, clip: Clip) -> tuple[dict[int, Path], tuple[str, ...]]:
    """Find the frame of a single drawing: the number in its name, or else the first frame."""
    number = int(path.stem) if path.stem.isdecimal() and len(path.stem) < 10 else None
    if number is None:
        return {clip.first: path}, (
            f"{path.name} is taken as the mask of frame {clip.first}, the first one used; name it "
            "by a frame number, such as 000012.png, for another.",
        )
    if number not in clip.numbers:
        raise SettingsError(
            f"{path.name} is frame {number}, outside the frames used, {clip.first} to {clip.last}, "
            "which are counted from 0; rename it."
        )
    return {number: path}, ()


@dataclass(frozen=True, slots=True)
class StoredMasks:
    """Masks of 0 and 1 in a folder, at working size."""

    folder: Path
    """The images, by frame number."""
    numbers: Sequence[int]
    """Numbers of the frames that have one."""
    settings: MaskSettings
    """How they are finished: inverted, softened."""

    def read(self, size: Size) -> Iterator[Share]:
        """See `FrameMasks.read`."""
        for number in self.numbers:
            share = read_stored(self.folder, number, size)
            if share is None:
                raise SettingsError(
                    f"The mask of frame {number} is missing or damaged. Start the same command "
                    "again: it makes what is missing."
                )
            yield _finish(share, self.settings)


@dataclass(frozen=True, slots=True)
class FileMasks:
    """Masks read from files."""

    sequence: files.MaskSequence
    """The files."""
    count: int
    """Number of frames used."""
    settings: MaskSettings
    """How they are finished: inverted, softened."""

    def read(self, size: Size) -> Iterator[Share]:
        """See `FrameMasks.read`; a single image is prepared only once."""
        if self.sequence.still:
            share = _finish(scale_share(next(self.sequence.read(1)), size), self.settings)
            yield from itertools.repeat(share, self.count)
            return
        for share in self.sequence.read(self.count):
            yield _finish(scale_share(share, size), self.settings)


def read_stored(folder: Path, number: int, size: Size) -> Share | None:
    """Read the mask of a frame, of 0 and 1, from the folder of `StoredMasks`; None if not there."""
    image = read_image(folder / frame_name(number))
    if image is None:
        return None
    return cut(scale_share(image[..., 0].astype(np.float32) / np.float32(255), size))


def read_file_mask(
    settings: MaskSettings, used: range, info: VideoInfo, number: int, size: Size
) -> Share:
    """Read the mask of a frame from the files that the settings name.

    Args:
        used: numbers of the frames used.
        info: facts about their source.
    """
    sequence, _ = files.open_sequence(
        Path(settings.path).expanduser(), used, info.frames, (info.width, info.height)
    )
    return scale_share(sequence.pick(number - used[0]), size)


def _finish(share: Share, settings: MaskSettings) -> Share:
    return finish_mask(share, settings.feather, invert=settings.invert)


def finish_mask(share: Share, width: float, *, invert: bool) -> Share:
    """Finish a mask: invert it if asked for, and give it a soft edge of `width` pixels."""
    return feather(1 - share if invert else share, width)


Shots = Sequence[tuple[int, int]]
"""First and last frame of each shot. Nothing is tracked from one to another."""


def list_shots(plans: Sequence[KeyframePlan]) -> Shots:
    """The shots of plans."""
    return [(plan.keyframes[0], plan.keyframes[-1]) for plan in plans]


def make_masks(
    run: RunContext, mask: MaskInput | None, shots: Shots, estimator: FlowEstimator,
    motion: Path | None, *, wanted: Collection[int] | None = None,
) -> FrameMasks | None:
    """Make the masks of all frames; None if everything is translated.

    Args:
        estimator: the run's estimator, which stores its results; it is part of the cache key.
        motion: folder of the motion between neighbouring frames; None if there is none.
        wanted: numbers of the frames that need a mask; None: all frames.
    """
    if mask is None or mask.sequence is not None:
        note_masks(run, None)
    if mask is None:
        return None
    run.notes += mask.notes
    content = [each.read_content(once=True) for each in mask.held]
    if mask.sequence is not None:
        return FileMasks(mask.sequence, run.clip.count, mask.settings)
    drawn = mask.settings.source == "drawing"
    folder = run.workspace.folder("masks", digest(
        carry.REVISION, run.clip.cache_key, list(shots), mask.settings.source,
        list(mask.drawings), content, estimator.fingerprint,
    ))
    # As workers of propagation have it, so that both may use each other's motion.
    plain = create_estimator(
        dataclasses.replace(run.settings.flow, estimator=estimator.name), estimator.device,
        progress=run.progress,
    )
    note_masks(run, folder)
    maker = _MaskMaker(run, folder, plain, motion)
    drop_damaged(folder, run.clip.frames.size)
    total = run.clip.count if wanted is None else 0
    with log_stage("masks"), run.progress.stage("masks", total) as stage:
        for first, last in shots:
            needed = [n for n in range(first, last + 1) if wanted is None or n in wanted]
            if all((folder / frame_name(n)).exists() for n in needed):
                stage.advance(len(needed), found=True)
                continue
            found = maker.read_drawings(mask.drawings, first, last) if drawn else (
                maker.find_subjects(mask.settings.source, estimator, first, last))
            ends = min(*needed, *found), max(*needed, *found)
            run.clip.frames.keep_all(range(ends[0], ends[1] + 1), run.progress)
            maker.carry_over(found, needed, stage)
    for each in mask.held:
        each.check()
    numbers = run.clip.numbers if wanted is None else sorted(wanted)
    masks = StoredMasks(folder, numbers, mask.settings)
    if not drawn and wanted is None:
        _refuse_nothing(masks, mask.settings, run.clip.frames.size)
    return masks


def track_masks(
    source: Path, settings: FrescoSettings, shots: Shots, mask: MaskSettings,
    numbers: Sequence[int],
) -> tuple[list[Share], tuple[str, ...]]:
    """Make the masks of some frames of a clip, at its own size, with notes.

    Args:
        mask: drawings on a few frames, or how to find the subject.
        numbers: numbers of the frames wanted, in ascending order.
    """
    clip = open_clip(source, settings)
    wide, high = clip.info.width, clip.info.height
    # More than the source has would be lost again.
    clip = clip.resized(working_size(wide, high, min(settings.sampling.resolution, wide, high)))
    given = check_mask(clip, mask)
    with open_temporary_folder() as folder, open_run(
        clip, settings, folder / "result", Progress(), folder / "work"
    ) as run:
        estimator = create_estimator(settings.flow)
        masks = make_masks(run, given, shots, estimator, None, wanted=numbers)
        assert masks is not None
        if mask.source != "drawing":
            _refuse_nothing(masks, mask, clip.frames.size)
        return list(masks.read((wide, high))), tuple(run.notes)


def _refuse_nothing(masks: FrameMasks, settings: MaskSettings, size: Size) -> None:
    try:
        files.refuse_useless(
            (1 - share if settings.invert else share for share in masks.read(size)),
            invert=settings.invert,
        )
    except SettingsError as error:
        raise SettingsError(
            f"By {settings.source} no frame shows a subject before a background; draw a mask "
            "(mask.source drawing), or set mask.source to none."
        ) from error


@dataclass(frozen=True, slots=True)
class _MaskMaker:
    """Makes the masks of a run, shot by shot."""

    run: RunContext
    folder: Path
    estimator: FlowEstimator
    motion: Path | None

    def read_drawings(
        self, drawings: Mapping[int, Path], first: int, last: int
    ) -> dict[int, Share]:
        """Read the drawings of a shot at working size."""
        size = self.run.clip.frames.size
        found = {
            number: cut(scale_share(files.read_drawing(path), size))
            for number, path in drawings.items() if first <= number <= last
        }
        if not found:
            raise SettingsError(
                f"The shot of frames {first} to {last} has no drawn mask, and masks are not "
                "tracked across a cut; draw one, or switch keyframes.detect_shots off."
            )
        return found

    def find_subjects(
        self, choice: str, estimator: FlowEstimator, first: int, last: int
    ) -> dict[int, Share]:
        """Find the subject on some frames of a shot, at working size."""
        found: dict[int, Share] = {}
        for numbers in subject.group_frames(subject.choose_frames(first, last)):
            frames = self.run.clip.frames.pick(numbers)
            shares = subject.find_subjects(frames, choice, estimator, self.run.settings.flow)
            found |= {n: share for n, share in zip(numbers, shares, strict=True) if n not in found}
        return found

    def carry_over(
        self, found: Mapping[int, Share], needed: Sequence[int], stage: Stage
    ) -> None:
        """Write the masks of a shot, tracked from the masks of some of its frames.

        Masks are written for the frames that need one, and for frames passed by the tracking.
        """
        numbers = sorted(found)
        for number in numbers:
            self._write(number, found[number], stage)
        for key, end in (
            (numbers[0], min(numbers[0], *needed)), (numbers[-1], max(numbers[-1], *needed)),
        ):
            for carried in self._carry(found[key], key, end):
                self._write(carried.number, carried.share, stage)
        for before, after in itertools.pairwise(numbers):
            if any(before < number < after for number in needed):
                self._join(found, before, after, stage)

    def _join(self, found: Mapping[int, Share], before: int, after: int, stage: Stage) -> None:
        """Write the masks between two frames that have one."""
        # One side lies on the disk: a stretch may be long.
        with open_temporary_folder() as place:
            for carried in self._carry(found[before], before, after - 1):
                write_arrays(place / f"{carried.number}.npz", {
                    "share": carried.share, "cost": carried.cost,
                })
            for behind in self._carry(found[after], after, before + 1):
                kept = read_arrays(place / f"{behind.number}.npz")
                if kept is None:
                    raise WorkspaceError(
                        f"A file in {place} was damaged or removed while it was in use. Start the "
                        "same command again."
                    )
                ahead = carry.CarriedMask(behind.number, kept["share"], kept["cost"])
                position = (behind.number - before) / (after - before)
                self._write(
                    behind.number, carry.join_sides(ahead, behind, position=position), stage
                )

    def _carry(self, drawn: Share, key: int, end: int) -> Iterator[carry.CarriedMask]:
        """Track a mask from its frame to another, forward or backward."""
        if key == end:
            return iter(())
        image = self.run.clip.frames.pick([key])[0]
        return carry.carry_mask(drawn, image, self._walk(image, key, end))

    def _walk(self, image: NDArray[np.uint8], key: int, end: int) -> Iterator[carry.MaskStep]:
        way = 1 if end > key else -1
        before = image
        for number, image in self._read_away(key, end):
            pair = (before, image) if way > 0 else (image, before)
            motion = find_pair(self.motion, max(number, number - way), *pair, self.estimator)
            yield carry.MaskStep(number, image, *(
                (motion.backward, motion.backward_occlusion) if way > 0 else
                (motion.forward, motion.forward_occlusion)
            ))
            before = image

    def _read_away(self, key: int, end: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield frames away from a frame; backward a few at a time, since sources run forward."""
        frames = self.run.clip.frames
        if end > key:
            yield from enumerate(frames(key + 1, end), key + 1)
            return
        for last in range(key - 1, end - 1, -READ_AT_ONCE):
            first = max(end, last - READ_AT_ONCE + 1)
            yield from reversed(list(enumerate(frames(first, last), first)))

    def _write(self, number: int, share: Share, stage: Stage) -> None:
        grey = np.rint(cut(share) * 255).astype(np.uint8)
        write_image(self.folder / frame_name(number), np.repeat(grey[..., None], 3, axis=2))
        stage.advance()
