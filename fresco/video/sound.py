"""Read the packets of a file's sound with rising timestamps, and copy them into an output."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from fresco.video.streams import choose_sound_stream, explain_choice, open_container
from fresco.video.timing import find_typical_length, repair_stamps, to_fraction

_CLOCKS_RESTART = 0x200
"""Flag of FFmpeg's formats whose timestamps may jump, such as MPEG streams."""

_LONGEST_GAP = 10
"""Seconds of a step forward above which such a clock counts as started again."""

_IN_STEP = Fraction(1, 2)
"""Seconds that the jumps of sound and video may differ and still be the same."""

Time = Fraction | None


@dataclass(frozen=True, slots=True)
class SoundSource:
    """Where the sound of a result comes from."""

    path: Path
    """A file; a silent one is fine."""
    span: tuple[Time, Time] = (None, None)
    """First and last wanted second on the video's clock; None: everything."""
    shift: Fraction = Fraction(0)
    """Second of that clock that becomes 0 in the result."""
    clock_shifts: tuple[Fraction, ...] = ()
    """Seconds that were added to the stored times of the video, part by part."""


class SoundError(Exception):
    """The sound cannot be read, encoded or written; the video is not affected."""


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """Facts about the sound that a player would choose."""

    codec: str
    notes: tuple[str, ...]
    stamps: Sequence[int]
    """Timestamps of all packets with data, in the stream's units, rising."""


def read_sound_info(sound: SoundSource) -> SoundInfo | None:
    """Read the packets of a file's sound; None if there is no sound."""
    try:
        state = sound.path.stat()
    except OSError as error:
        raise SoundError(f"{sound.path} cannot be read ({error.strerror})") from error
    return _read_once(sound.path.absolute(), sound.clock_shifts, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _read_once(
    path: Path, clock_shifts: tuple[Fraction, ...], size: int, changed: int
) -> SoundInfo | None:
    """Do the same; read again only if size or time of the file changed."""
    with open_container(path) as container:
        stream = choose_sound_stream(container)
        if stream is None:
            return None
        # Neither `channels` nor `layout` is asked for: PyAV 17.1 to 18.1 free a layout of a custom
        # order twice, which ends the process.
        codec = stream.codec_context.name if stream.codec_context else "of an unknown kind"
        notes = explain_choice(container.streams.audio, stream, "sound")
        stamps = _read_stamps(container, stream, clock_shifts)
    return SoundInfo(codec, notes, stamps)


def _read_stamps(
    container: InputContainer, stream: AudioStream, clock_shifts: Sequence[Fraction]
) -> Sequence[int]:
    """Read rising timestamps of all packets; jumps back are continued, in step with the video."""
    stored: list[int | None] = []
    lengths: list[int] = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                stored.append(packet.pts if packet.pts is not None else packet.dts)
                lengths.append(packet.duration or 0)
    except av.FFmpegError as error:
        # A file that is cut off has sound up to there.
        if not stored:
            raise SoundError(str(error.strerror or error)) from error
    clock = to_fraction(stream.time_base, Fraction(1, av.time_base))
    typical = find_typical_length(stored, round(Fraction(1, 50) / clock))
    lengths = [length or typical for length in lengths]
    jumps = container.format.flags & _CLOCKS_RESTART
    repaired = repair_stamps(
        stored, lengths, longest_gap=round(_LONGEST_GAP / clock) if jumps else None
    )
    wanted = [round(shift / clock) for shift in clock_shifts]
    changes = [0] * len(repaired.shifts)
    if len(wanted) == len(changes):
        near = _IN_STEP / clock
        steps = [a - b for a, b in zip(wanted, repaired.shifts, strict=True)]
        changes = [step if abs(step) <= near else 0 for step in steps]
    parts = [*repaired.parts[1:], len(stored)]
    stamps, part = array("q"), 0
    for number, stamp in enumerate(repaired.stamps):
        part += number >= parts[part]
        placed = round(stamp) + changes[part]
        stamps.append(max(placed, stamps[-1] + 1) if stamps else placed)
    return stamps


def iterate_packets(
    container: InputContainer, stream: AudioStream, stamps: Sequence[int]
) -> Iterator[Any]:
    """Yield the packets of a stream that have data, with the timestamps of `read_sound_info`."""
    packets = (packet for packet in container.demux(stream) if packet.size)
    # The timestamps first: behind the last one may be where the file is damaged.
    for stamp, packet in zip(stamps, packets, strict=False):
        packet.pts = packet.dts = stamp
        yield packet


class SoundCopy:
    """Copies sound from a file into an open output.

    Args:
        info: of `read_sound_info` for the same file.
        stack: closes the file when the output is finished.
        output: output whose header is not yet written.
    """

    def __init__(
        self, sound: SoundSource, info: SoundInfo, output: OutputContainer, stack: ExitStack
    ) -> None:
        self._sound, self._output = sound, output
        source = stack.enter_context(open_container(sound.path))
        stream = choose_sound_stream(source)
        assert stream is not None  # `info` would be None
        try:
            target = _add_copied_stream(output, stream)
        except (av.FFmpegError, ValueError) as error:
            raise SoundError(str(error)) from error
        self._packets = self._copy_packets(source, stream, target, info)
        self._waiting: Any = None
        self.seconds = Fraction(0)
        """Seconds of sound written so far."""

    def pump(self, until: Time) -> None:
        """Write the sound up to a time of the output; None: all of it."""
        while True:
            if self._waiting is None:
                try:
                    self._waiting = next(self._packets, None)
                except av.FFmpegError as error:
                    raise SoundError(str(error.strerror or error)) from error
            packet = self._waiting
            if packet is None:
                return
            time = packet.dts * Fraction(packet.time_base)
            if until is not None and time > until:
                return
            self._output.mux(packet)
            self.seconds = time
            self._waiting = None

    def _is_wanted(self, start: Fraction, end: Fraction) -> bool:
        first, last = self._sound.span
        return (first is None or end > first) and (last is None or start < last)

    def _copy_packets(
        self, source: InputContainer, stream: AudioStream, target: AudioStream, info: SoundInfo
    ) -> Iterator[Any]:
        for packet in iterate_packets(source, stream, info.stamps):
            clock = Fraction(packet.time_base)
            start = packet.pts * clock
            if not self._is_wanted(start, start + max(1, packet.duration or 0) * clock):
                continue
            packet.pts = packet.dts = packet.pts - round(self._sound.shift / clock)
            packet.stream = target
            yield packet


def _add_copied_stream(output: OutputContainer, template: AudioStream) -> AudioStream:
    if hasattr(output, "add_stream_from_template"):
        return output.add_stream_from_template(template)
    # PyAV before 14 has the template as an argument of the general call.
    old_call: Any = output.add_stream
    return old_call(template=template)
