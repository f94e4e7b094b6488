"""Write video files with the source's timing and sound, whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from enum import Enum
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fresco.errors import VideoError
from fresco.processes import ordinary_threads
from fresco.temporary import open_temporary_folder
from fresco.video.animation import ImagePages
from fresco.video.codecs import AUTOMATIC, Codec, choose_codec
from fresco.video.color import UNTOLD, Colour
from fresco.video.containers import CONTAINERS
from fresco.video.folder import ImageFolderWriter, check_folder_target
from fresco.video.index import HELD, index_video
from fresco.video.result_sound import open_sound
from fresco.video.sound import SoundCopy, SoundError, SoundSource
from fresco.writing import claim_part, follow_link, name_part, require_names, write_through

__all__ = ["ImageFolderWriter", "VideoWriter", "check_target"]

logger = logging.getLogger("fresco")

_FINEST = 2**31 - 1
"""Largest number of ticks a second that MP4 can store."""

_FALLBACK_TICKS = 90_000
"""Ticks a second used where exact times would need more than `_FINEST`; broadcast's own clock."""

_FILE_ERRORS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EMFILE,
    errno.ENFILE,
})
"""Errors of the file's place; all others come from the container or the encoder."""


def check_target(path: Path, codec: str = AUTOMATIC) -> None:
    """Raise VideoError unless a result can be written there: a video, or a folder without suffix.

    Args:
        codec: a name of `codecs.CODECS`, or `AUTOMATIC`; a folder holds PNG files whatever it is.
    """
    if not path.name:
        raise VideoError(f"{path} names no result; give a video file or a new folder.")
    if path.suffix:
        _check_video_target(path, codec)
    else:
        check_folder_target(path)


def _check_video_target(path: Path, codec: str) -> Codec:
    chosen = choose_codec(codec, path)
    require_names(path)
    if path.is_dir():
        raise VideoError(f"{path} is a folder; name a file.")
    return chosen


def _require_alpha(codec: Codec, path: Path) -> Codec:
    """Return the codec for frames with alpha; VideoError if it or its container has none."""
    codec = codec.with_alpha()
    if codec.encoder == "libvpx-vp9" and path.suffix.lower() == ".mp4":
        raise VideoError(
            f"{path.name} cannot keep transparency, because VP9 has it in .webm and .mkv only; "
            "name the result .webm."
        )
    return codec


class _Sound(Enum):
    """How the sound is kept, best first."""

    COPIED = "copied"
    ENCODED = "encoded"
    LEFT_OUT = "left out"


class VideoWriter:
    """Writes a video file, which gets its name when it is finished and checked.

    Args:
        path: ends in one of `containers.CONTAINERS`; folders on the way are made.
        width, height: size of the frames to come; odd ones are padded by a repeated edge where
            the codec needs even ones.
        rate: frames a second.
        timestamps: seconds of every frame on the source's clock; None: evenly at `rate`.
        end: second on that clock at which the last frame ends; None: after one frame at `rate`.
        crf: quality on the scale of H.264, 0..51, lower is better.
        codec: a name of `codecs.CODECS`, or `AUTOMATIC`.
        sound_from: file whose sound is copied; a silent one is fine.
        sound_range: first and last second of the source's sound; None: all of it.
        clock_shifts: seconds added to the source's stored times, part by part (`VideoInfo`).
        scratch: folder where encoded sound is kept for a later run; None: one of the system's.
        pixel_aspect: width of a pixel over its height.
        confirm: called when all is written, before the file gets its name; what it raises ends it.
        comment: text that the file keeps, where its container can (`Container.keeps_comment`).
        colour: what the source's colours mean; the result's mean the same.
        alpha: frames have a fourth channel, straight alpha.
    """

    def __init__(
        self, path: str | Path, width: int, height: int, rate: Fraction | int, *,
        timestamps: Sequence[Fraction] | None = None, end: Fraction | None = None, crf: int = 17,
        codec: str = AUTOMATIC, sound_from: str | Path | None = None,
        sound_range: tuple[Fraction | float, Fraction | float] | None = None,
        clock_shifts: tuple[Fraction, ...] = (), scratch: Path | None = None,
        pixel_aspect: Fraction = Fraction(1), confirm: Callable[[], None] = lambda: None,
        comment: str = "", colour: Colour = UNTOLD, alpha: bool = False,
    ) -> None:
        self.path = Path(path)
        self._confirm, self._comment = confirm, comment
        self._size = (width, height)
        self._rate = Fraction(rate)
        self._crf, self._aspect = crf, pixel_aspect
        self._check_arguments()
        self._codec = _check_video_target(self.path, codec)
        if alpha:
            self._codec = _require_alpha(self._codec, self.path)
        self._channels = 4 if alpha else 3
        self._container = CONTAINERS[self.path.suffix.lower()]
        self._colour = self._codec.choose_colour(colour)
        self._start = timestamps[0] if timestamps else None
        self._clock, self._stamps, self._notes = _convert_to_ticks(
            timestamps, self._rate, self._codec
        )
        length = end - timestamps[-1] if timestamps and end is not None else 1 / self._rate
        self._last_length = max(1, round(length / self._clock))
        self._held = length > HELD / self._rate
        self._sound_source = _describe_sound(sound_from, sound_range, self._start, clock_shifts)
        self._scratch = scratch
        self._target = follow_link(self.path)
        self._part = name_part(self._target, f"{os.getpid()}.part")
        self._claim: IO[bytes] | None = None
        self._stack = ExitStack()
        self._count = 0
        self._sound: SoundCopy | None = None
        self._sound_kept: _Sound | None = None
        """None until `rehearse` has found out."""
        self._sound_notes: tuple[str, ...] = ()
        across, down = self._codec.halved
        self._pad = (width % 2 if across else 0, height % 2 if down else 0)
        if any(self._pad):
            self._notes += (
                f"{width}x{height} is odd; padded to {width + self._pad[0]}x"
                f"{height + self._pad[1]} by repeating the edge, as {self._codec.label} needs.",
            )

    @property
    def deep(self) -> bool:
        """Whether frames of 16 bits keep more than those of 8."""
        return self._codec.deep

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about what was done, in sentences."""
        return self._notes + self._sound_notes

    def _check_arguments(self) -> None:
        width, height = self._size
        if width < 1 or height < 1:
            raise VideoError(f"The frame size is {width}x{height}; it must be at least 1x1.")
        if self._rate <= 0:
            raise VideoError(f"The rate is {self._rate} frames a second; it must be above 0.")

    def rehearse(self) -> None:
        """Try folder, container, encoder and the whole sound, and leave nothing behind.

        So what cannot be written is known before any work. If only the sound fails, it is left out,
        with a note.
        """
        if self._sound_kept is not None:
            return
        reasons: list[str] = []
        for kept in _Sound:
            try:
                self._try(kept)
            except SoundError as error:
                reasons.append(str(error))
                continue
            self._sound_kept = kept
            break
        if self._sound_kept is _Sound.LEFT_OUT and self._sound_source is not None:
            self._sound_notes = (f"The sound is left out: {reasons[-1].rstrip('.')}.",)
        for note in self.notes:
            logger.warning("%s: %s", self.path.name, note)

    def _try(self, kept: _Sound) -> None:
        """Write a file with the sound only, and remove it."""
        try:
            self._open(kept)
            with ordinary_threads():
                self._output.start_encoding()
            if not self._container.has_sound:
                self._encode_blank()
            if self._sound is not None:
                self._sound.pump(None)
            self._stack.close()
        except (OSError, av.FFmpegError) as error:
            if kept is not _Sound.LEFT_OUT and error.errno not in _FILE_ERRORS:
                raise SoundError(_find_reason(error)) from error
            raise self._explain_unwritable(error) from error
        finally:
            self._discard()

    def _encode_blank(self) -> None:
        """Write one black frame and end the stream."""
        frame = self._codec.make_frame(np.zeros((*self._size[::-1], self._channels), np.uint8))
        frame.pts, frame.time_base = 0, self._clock
        for packet in (frame, None):
            self._output.mux(self._stream.encode(packet))

    def __enter__(self) -> VideoWriter:
        self.rehearse()
        assert self._sound_kept is not None
        try:
            self._open(self._sound_kept)
        except SoundError as error:
            self._discard()
            raise VideoError(
                f"The sound of {self.path.name} can no longer be read ({error}); start again."
            ) from error
        except (OSError, av.FFmpegError) as error:
            self._discard()
            raise self._explain_unwritable(error) from error
        except BaseException:
            self._discard()
            raise
        return self

    def _open(self, kept: _Sound) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._sound = None
        self._claim = claim_part(self._part)
        self._output = self._stack.enter_context(
            av.open(str(self._part.absolute()), "w", format=self._container.format)
        )
        if self._comment and self._container.keeps_comment:
            self._output.metadata["comment"] = self._comment
        self._stream = self._add_video_stream(self._output)
        if self._sound_source is None or kept is _Sound.LEFT_OUT:
            return
        suffix = self.path.suffix.lower()
        if not self._container.has_sound:
            raise SoundError(f"{suffix} files have none")
        if self._scratch is None:
            own = ExitStack()
            self._scratch = own.enter_context(open_temporary_folder())
            weakref.finalize(self, own.close)
        self._sound, self._sound_notes = open_sound(
            self._sound_source, suffix, self._output, self._stack, self._scratch,
            encode=kept is _Sound.ENCODED,
        )

    def _add_video_stream(self, output: OutputContainer) -> VideoStream:
        stream = output.add_stream(self._codec.encoder, rate=self._rate)
        assert isinstance(stream, VideoStream)
        context: Any = stream.codec_context
        context.width, context.height = (s + p for s, p in zip(self._size, self._pad, strict=True))
        context.pix_fmt = self._codec.layout
        context.options = self._codec.quality(self._crf, self._held)
        if tag := self._codec.tags.get(self._container.format):
            context.codec_tag = tag
        # Both clocks, or the encoder rounds times to the rate.
        stream.time_base = context.time_base = self._clock
        context.sample_aspect_ratio = self._aspect
        self._codec.tag(context, self._colour)
        return stream

    def _pump_sound(self, until: Fraction | None) -> None:
        """Write sound up to a time; if only that fails, the video continues without it."""
        if self._sound is None:
            return
        try:
            self._sound.pump(until)
        except (SoundError, OSError, av.FFmpegError) as error:
            if not isinstance(error, SoundError) and error.errno in _FILE_ERRORS:
                raise
            note = (
                f"The sound ends at {float(self._sound.seconds):.2f} s: {_find_reason(error)}."
            )
            self._sound = None
            self._sound_notes += (note,)
            logger.warning("%s: %s", self.path.name, note)

    def write(self, rgb: NDArray[Any]) -> None:
        """Write the next frame, RGB [H, W, 3], or with alpha [H, W, 4], of the given size.

        It is uint8, or uint16 if the writer is `deep`.
        """
        width, height = self._size
        kinds = (np.uint8, np.uint16) if self.deep else (np.uint8,)
        if rgb.shape != (height, width, self._channels) or rgb.dtype not in kinds:
            raise VideoError(
                f"Frame {self._count} is {rgb.dtype} {rgb.shape}; {self.path.name} takes "
                f"{' or '.join(kind.__name__ for kind in kinds)} {(height, width, self._channels)}."
            )
        stamp = self._find_stamp(self._count)
        if any(self._pad):
            rgb = np.pad(rgb, ((0, self._pad[1]), (0, self._pad[0]), (0, 0)), mode="edge")
        frame = self._codec.make_frame(rgb, self._colour)
        frame.pts, frame.time_base = stamp, self._clock
        if hasattr(frame, "duration"):
            frame.duration = self._find_length(self._count)
        try:
            self._pump_sound(stamp * self._clock)
            # The first frame opens the encoder.
            with ordinary_threads() if not self._count else nullcontext():
                self._output.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise self._explain_unwritable(error) from error
        self._count += 1

    def _find_stamp(self, number: int) -> int:
        if self._stamps is None:
            return round(number / self._rate / self._clock)
        if number >= len(self._stamps):
            raise VideoError(
                f"More frames came for {self.path.name} than the {len(self._stamps)} timestamps "
                "given."
            )
        return self._stamps[number]

    def _find_length(self, number: int) -> int:
        """Number of ticks for which a frame is shown."""
        if self._stamps is None:
            return self._find_stamp(number + 1) - self._find_stamp(number)
        if number + 1 < len(self._stamps):
            return self._stamps[number + 1] - self._stamps[number]
        return self._last_length

    def _finish(self) -> None:
        if not self._count:
            raise VideoError(f"No frame was written to {self.path}; the source gave none.")
        if self._stamps is not None and self._count != len(self._stamps):
            raise VideoError(
                f"{self._count} frames were written to {self.path.name}, {len(self._stamps)} "
                "timestamps were given; the run was cut short."
            )
        try:
            rest = self._stream.encode(None)
            if self._held:
                rest[-1].duration = self._last_length  # the encoder loses that of the frame
            self._output.mux(rest)
            self._pump_sound(None)
            self._stack.close()
            self._check_result()
            self._confirm()
            write_through(self._part)
            self._part.replace(self._target)
        except (OSError, av.FFmpegError) as error:
            raise self._explain_unwritable(error) from error

    def _check_result(self) -> None:
        """Decode the finished file: every frame must be there, at its time."""
        read = ImagePages if self._container.by_pages else index_video
        info = read(self._part).info
        if info.frames != self._count:
            raise VideoError(
                f"{self.path.name} has {info.frames} frames, {self._count} were written; check "
                "the space on the disk and run again."
            )
        wanted = [self._find_stamp(number) * self._clock for number in range(self._count)]
        slack = self._container.tick or Fraction(0)
        for number, (found, time) in enumerate(zip(info.timestamps, wanted, strict=True)):
            if abs(found - info.timestamps[0] - time + wanted[0]) > slack:
                raise VideoError(
                    f"Frame {number} of {self.path.name} is shown at {float(found)} s instead of "
                    f"{float(time)} s; report this with the source's timestamps."
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Close everything and remove unfinished files; a finished file already has its own name.
        """
        with suppress(OSError, av.FFmpegError):
            self._stack.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _explain_unwritable(self, error: OSError | av.FFmpegError) -> VideoError:
        reason = _find_reason(error)
        if error.errno == errno.ENAMETOOLONG:
            return VideoError(f"{self.path} cannot be written ({reason}); choose a shorter name.")
        if error.errno == errno.EFBIG:
            return VideoError(
                f"{self.path} cannot be written: it would be larger than the file system, or a "
                "limit of this user, allows. Choose another place, or write less: fewer frames, or "
                "a higher output.crf."
            )
        if error.errno in _FILE_ERRORS:
            return VideoError(
                f"{self.path} cannot be written ({reason}); check the space and the rights there."
            )
        width, height = self._size
        return VideoError(
            f"{self.path} cannot be written: FFmpeg refuses {width}x{height} at {self._rate} "
            f"frames a second in {self.path.suffix} ({reason}). Try another kind of file, such "
            "as .mkv, or another size."
        )


def _find_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _describe_sound(
    path: str | Path | None, span: tuple[Fraction | float, Fraction | float] | None,
    start: Fraction | None, clock_shifts: tuple[Fraction, ...],
) -> SoundSource | None:
    """Where the sound comes from, and which second of it becomes 0."""
    if path is None:
        return None
    if span is None:
        return SoundSource(Path(path), shift=start or Fraction(0), clock_shifts=clock_shifts)
    first, last = (Fraction(second) for second in span)
    return SoundSource(Path(path), (first, last), first, clock_shifts)


def _convert_to_ticks(
    timestamps: Sequence[Fraction] | None, rate: Fraction, codec: Codec
) -> tuple[Fraction, tuple[int, ...] | None, tuple[str, ...]]:
    """Find a clock in which all timestamps are whole, and convert them, from 0 on, with notes."""
    if codec.tick is not None and rate * codec.tick > Fraction(1, 2):
        raise VideoError(
            f"{codec.label} shows at most {1 / codec.tick / 2} frames a second as they are; the "
            f"source has {float(rate):g}. Choose another output.codec."
        )
    if not timestamps:
        return codec.tick or 1 / rate, None, ()
    times = [Fraction(time) - timestamps[0] for time in timestamps]
    for number, (a, b) in enumerate(pairwise(times)):
        if b <= a:
            raise VideoError(
                f"Timestamp {number + 1} is {float(timestamps[number + 1])} s, not after the one "
                "before; give rising times."
            )
    ticks, notes = lcm(*(time.denominator for time in times)), ()
    if codec.tick is not None:
        ticks = int(1 / codec.tick)
        if len({round(time * ticks) for time in times}) < len(times):
            raise VideoError(
                f"Some frames of the source lie closer together than {codec.label} can tell apart "
                f"({ticks} times a second). Choose another output.codec."
            )
    elif ticks > _FINEST:
        ticks = _FALLBACK_TICKS
        notes = (f"The source's times are finer than MP4 can store; rounded to 1/{ticks} s.",)
    return Fraction(1, ticks), tuple(round(time * ticks) for time in times), notes
