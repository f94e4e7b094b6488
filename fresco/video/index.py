"""Decode a video file once, to learn which frames it has and when each is shown.

Containers often state wrong counts and rates, so the whole file is decoded before any use.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from fresco.errors import VideoError
from fresco.video.color import FULL, UNTOLD, Colour, is_transparent
from fresco.video.decoding import (
    FrameDecoder,
    can_read_alpha,
    has_hidden_alpha,
    read_orientation,
)
from fresco.video.streams import (
    explain_choice,
    find_video_stream,
    list_video_streams,
    open_container,
)
from fresco.video.timing import (
    Place,
    RepairedStamps,
    find_typical_length,
    repair_stamps,
    to_fraction,
)

logger = logging.getLogger("fresco")

_COUNT_FROM_ZERO = frozenset({"matroska,webm", "nut", "asf", "flv"})
"""Containers whose header names the time of the end, not the length, of what starts late."""

_CLOCKS_RESTART = 0x200
"""Flag of FFmpeg's formats whose timestamps may jump, such as MPEG streams."""

_LONGEST_GAP = 10
"""Seconds of a step forward above which FFmpeg's programs take such a clock as started again."""

LOST_END = Fraction(1, 4)
"""Seconds that may be missing at the end before a file counts as cut off: rounding of headers."""

HELD = Fraction(3, 2)
"""Ordinary frame lengths above which the last frame of a steady clip counts as held."""

_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer numbers of H.273 whose frames need tone mapping on an ordinary screen."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a source."""

    path: str
    """File or folder."""
    width: int
    """Pixels across, after rotation."""
    height: int
    """Pixels down, after rotation."""
    rate: Fraction
    """Frames a second; the mean where it varies."""
    frames: int
    """Frames that can be read."""
    seconds: Fraction
    """From the start of the first frame to the end of the last."""
    has_sound: bool
    """Whether there is a sound stream."""
    rotation: int
    """Degrees the stored frames are turned counterclockwise for display: 0, 90, 180 or 270."""
    timestamps: tuple[Fraction, ...]
    """Seconds at which each frame is shown, rising."""
    variable_rate: bool
    """Whether frames last unequally long."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel over its height, after rotation."""
    notes: tuple[str, ...] = ()
    """Notes for the user, in sentences."""
    mirrored: bool = False
    """Whether the stored frames are mirrored, left to right, before they are turned."""
    clock_shifts: tuple[Fraction, ...] = ()
    """Seconds added to the stored times, part by part, where the clock starts again; else empty."""
    colour: Colour = UNTOLD
    """What the values of its colours mean."""
    transparent: bool = False
    """Whether some of its frames have transparent parts."""


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """Where every frame of a file is."""

    info: VideoInfo
    """The source as its users see it."""
    pts: tuple[int | None, ...]
    """Timestamps as stored, each once, in the stream's own units; empty where none is usable."""
    keys: tuple[int, ...]
    """Numbers of the frames where decoding can start."""
    state: tuple[int, int] = (0, 0)
    """Size of the file and its time of change in ns, by which changes are recognised."""


@dataclass(slots=True)
class _Contents:
    """What one pass over a file has found."""

    pts: list[int | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    durations: dict[int, int] = field(default_factory=dict)
    end: Fraction = Fraction(0)
    packets: int = 0
    """Number of packets with data of the video; each should give an image."""
    broken: int = 0
    damaged: int = 0
    """Number of images that the decoder had to repair."""
    cut_off: str = ""
    interlaced: bool = False
    mirrored: bool = False
    turned: int = 0
    transparent: bool = False


def _note_packet(scan: _Contents, packet: Any) -> None:
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or packet.time_base is None:
        return
    length = packet.duration or 0
    scan.end = max(scan.end, (stamp + length) * Fraction(packet.time_base))
    if packet.stream.type == "video" and packet.pts is not None:
        scan.durations[packet.pts] = length


def _note_frame(scan: _Contents, frame: VideoFrame) -> None:
    if not scan.pts:
        scan.mirrored, scan.turned = read_orientation(frame)
    if frame.key_frame:
        scan.keys.append(len(scan.pts))
    scan.pts.append(frame.pts)
    scan.sizes[frame.width, frame.height] += 1
    scan.damaged += frame.is_corrupt
    scan.interlaced = scan.interlaced or frame.interlaced_frame
    scan.transparent = scan.transparent or is_transparent(frame)


def _holds_image(packet: Any, stream: VideoStream) -> bool:
    """Whether a packet should give an image that is shown."""
    if packet.is_discard:  # before an edit
        return False
    # Bit 4 of a VP8 frame's first byte (RFC 6386, 9.1): others are only references.
    return stream.codec_context.name != "vp8" or bool(bytes(packet)[0] & 0x10)


def _count_missing(scan: _Contents) -> int:
    """Count packets that can be decoded but give no image."""
    whole = scan.packets - scan.broken
    # A packet of an interlaced stream may hold one of the two fields of an image.
    wanted = (whole + 1) // 2 if scan.interlaced else whole
    return max(0, wanted - len(scan.pts))


def _read_contents(container: InputContainer, stream: VideoStream) -> _Contents:
    scan, decoder, last = _Contents(), FrameDecoder(stream), None
    keys: set[int | None] = set()
    try:
        for packet in container.demux():
            _note_packet(scan, packet)
            # Not by its number: the packets that end a file all have number 0.
            if packet.stream.index != stream.index:
                continue
            if packet.size:
                last = packet
                scan.packets += _holds_image(packet, stream)
                keys.update([packet.pts] if packet.is_keyframe else ())
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                scan.broken += 1
                continue
            for frame in frames:
                _note_frame(scan, frame)
    except av.FFmpegError as error:
        scan.cut_off = str(error.strerror)
        for frame in decoder.drain():
            _note_frame(scan, frame)
    if not decoder.marks_keys:
        scan.keys = [number for number, stamp in enumerate(scan.pts) if stamp in keys]
    _judge_last_packet(scan, last)
    return scan


def _judge_last_packet(scan: _Contents, packet: Any) -> None:
    """Leave out the image of a last packet that is incomplete.

    Packets are marked as corrupt where the transport may have lost something, and most of them are
    whole. The last one is marked where the file ends within it.
    """
    if packet is None or not packet.is_corrupt:
        return
    scan.cut_off = scan.cut_off or "its last packet is incomplete"
    if packet.pts in scan.pts and packet.pts is not None:
        dropped = scan.pts.index(packet.pts)
        del scan.pts[dropped]
        scan.keys = [key - (key > dropped) for key in scan.keys if key != dropped]


def _explain_missing_end(container: InputContainer, end: Fraction) -> str:
    """Make a note if the file ends well before the time in its header."""
    if not container.duration:
        return ""
    claimed = Fraction(container.duration, av.time_base)
    if container.format.name not in _COUNT_FROM_ZERO:
        claimed += Fraction(container.start_time or 0, av.time_base)
    if claimed - end <= max(LOST_END, claimed / 50):
        return ""
    return f"it ends at {float(end):.2f} s, its header says {float(claimed):.2f} s"


def _find_steady_rate(
    times: list[Fraction], tick: Fraction, candidates: list[Fraction]
) -> Fraction | None:
    """Find the rate that all times keep to within one tick of the clock, or None."""
    first_step = times[1] - times[0]
    if all(b - a == first_step for a, b in pairwise(times)):
        return 1 / first_step
    for rate in candidates:
        if all(abs(t - times[0] - i / rate) <= tick for i, t in enumerate(times)):
            return rate
    return None


def _list_rates(stream: VideoStream) -> list[Fraction]:
    named = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return [to_fraction(rate) for rate in named if rate]


def _find_timing(
    scan: _Contents, stream: VideoStream, stamps: tuple[Place, ...]
) -> tuple[tuple[Fraction, ...], Fraction, Fraction, bool]:
    """Find times, rate, seconds and whether the rate varies, from rising timestamps."""
    clock = _find_clock(stream)
    times = [stamp * clock for stamp in stamps]
    rates = _list_rates(stream)
    stored = scan.pts[-1]
    last = (scan.durations.get(stored, 0) if stored is not None else 0) * clock
    if len(times) == 1:
        rate = rates[0] if rates else (1 / last if last else Fraction(25))
        return tuple(times), rate, last or 1 / rate, False
    steady = _find_steady_rate(times, clock, rates)
    mean = (len(times) - 1) / (times[-1] - times[0])
    rate = steady or mean.limit_denominator(1001)
    # A steady clip's last frame may be held; its length is not worth more than that otherwise.
    last = last if last and (steady is None or last > HELD / rate) else 1 / rate
    return tuple(times), rate, times[-1] - times[0] + last, steady is None


def _find_clock(stream: VideoStream) -> Fraction:
    """Find the seconds of one unit of the stream's timestamps."""
    return to_fraction(stream.time_base, Fraction(1, av.time_base))


def _repair_times(
    scan: _Contents, container: InputContainer, stream: VideoStream
) -> RepairedStamps | None:
    """Bring timestamps into rising order; None if most of the stored ones are unusable."""
    clock = _find_clock(stream)
    named = round(1 / ((_list_rates(stream) or [Fraction(25)])[0] * clock))
    length = find_typical_length(scan.pts, named)
    restarts = container.format.flags & _CLOCKS_RESTART
    gap = round(_LONGEST_GAP / clock) if restarts else None
    repaired = repair_stamps(scan.pts, [length] * len(scan.pts), longest_gap=gap)
    doubtful = len(repaired.replaced) + len(repaired.shifts) - 1
    return repaired if 2 * doubtful < len(scan.pts) else None


def _convert_shifts(
    repaired: RepairedStamps | None, stream: VideoStream
) -> tuple[Fraction, ...]:
    """Convert shifts to seconds that are added to the stored times, part by part."""
    if repaired is None or len(repaired.shifts) == 1:
        return ()
    return tuple(shift * _find_clock(stream) for shift in repaired.shifts)


def _are_distinct(stamps: list[int | None]) -> bool:
    """Whether a timestamp identifies a frame."""
    whole = [stamp for stamp in stamps if stamp is not None]
    return len(set(whole)) == len(whole)


def _check_whole(path: Path, scan: _Contents, last_frame: int) -> None:
    count = len(scan.pts)
    if not count:
        reason = scan.cut_off or f"{scan.broken} packets failed"
        raise VideoError(f"{path}: not one frame could be decoded ({reason}); give another file.")
    if len(scan.sizes) > 1:
        sizes = ", ".join(f"{w}x{h}" for w, h in scan.sizes)
        raise VideoError(
            f"{path} changes its size on the way ({sizes}); re-encode it to one size first."
        )
    if scan.cut_off and not 0 <= last_frame < count:
        raise VideoError(
            f"{path} is cut off or damaged ({scan.cut_off}): {count} frames can be read. Re-mux "
            f"or repair it, or set the last frame to {count - 1} to use what is there."
        )


def _list_notes(
    scan: _Contents, container: InputContainer, stream: VideoStream,
    repaired: RepairedStamps | None,
) -> tuple[str, ...]:
    notes = [*_list_loss_notes(scan), *_list_timing_notes(repaired)]
    if scan.interlaced:
        notes.append("The source is interlaced; its frames are used as they are, combs included.")
    transfer = _HDR_TRANSFERS.get(int(stream.codec_context.color_trc or 0))
    if transfer:
        notes.append(f"The source is HDR ({transfer}); it is not tone mapped and may look flat.")
    if has_hidden_alpha(stream) and not can_read_alpha(stream):
        notes.append("The source has alpha, which this PyAV cannot read; its colours are shown.")
    if scan.transparent:
        notes.append(describe_alpha("The source has"))
    return (*notes, *explain_choice(list_video_streams(container), stream, "video"))


def describe_alpha(who_has: str) -> str:
    """Make a note about transparent parts, with a subject such as `The source has`."""
    return (f"{who_has} transparent parts. The model sees them over black; output.background "
            "transparent keeps them in the result.")


def _list_loss_notes(scan: _Contents) -> list[str]:
    if scan.cut_off:
        return [f"The source is cut off ({scan.cut_off}); {len(scan.pts)} frames are used."]
    notes: list[str] = []
    if scan.broken:
        notes.append(f"{scan.broken} packets of the source do not decode; they are left out.")
    missing = _count_missing(scan)
    if missing:
        notes.append(f"{missing} of {scan.packets} packets of the source give no image.")
    if scan.damaged:
        notes.append(
            f"{scan.damaged} images of the source are damaged; they are used as far as the decoder "
            "could repair them."
        )
    return notes


def _list_timing_notes(repaired: RepairedStamps | None) -> list[str]:
    if repaired is None:
        return ["The source has no usable timestamps; its frames are taken as evenly spaced."]
    notes: list[str] = []
    if repaired.replaced:
        notes.append(
            f"{len(repaired.replaced)} timestamps of the source are wrong or missing; these frames "
            "are placed by their neighbours."
        )
    restarts = len(repaired.shifts) - 1
    if restarts:
        times = "once" if restarts == 1 else f"{restarts} times"
        notes.append(
            f"The source's clock starts again {times}; each part follows the one before."
        )
    return notes


def _read_pixel_aspect(stream: VideoStream, turned: int) -> Fraction:
    # The container's, which players prefer, else the codec's.
    aspect = to_fraction(stream.sample_aspect_ratio, 1)
    return 1 / aspect if turned in (90, 270) else aspect


def _read_colour(stream: VideoStream) -> Colour:
    context: Any = stream.codec_context
    full = (context.pix_fmt or "").startswith("yuvj")
    return Colour(
        int(context.color_primaries or 0), int(context.color_trc or 0),
        int(context.colorspace or 0), FULL if full else int(context.color_range or 0),
    )


def index_video(path: Path, *, last_frame: int = -1) -> VideoIndex:
    """Decode a file once, and describe its content.

    Args:
        last_frame: last frame that will be used; a file cut off behind it is accepted.
    """
    with open_container(path) as container:
        stream = find_video_stream(container, path)
        scan = _read_contents(container, stream)
        scan.cut_off = scan.cut_off or _explain_missing_end(container, scan.end)
        _check_whole(path, scan, last_frame)
        repaired = _repair_times(scan, container, stream)
        if repaired is not None:
            times, rate, seconds, varies = _find_timing(scan, stream, repaired.stamps)
        else:
            rate, varies = (_list_rates(stream) or [Fraction(25)])[0], False
            times = tuple(number / rate for number in range(len(scan.pts)))
            seconds = len(times) / rate
        width, height = next(iter(scan.sizes))
        if scan.turned in (90, 270):
            width, height = height, width
        info = VideoInfo(
            path=str(path), width=width, height=height, rate=rate, frames=len(times),
            seconds=seconds, has_sound=bool(container.streams.audio), rotation=scan.turned,
            timestamps=times, variable_rate=varies,
            pixel_aspect=_read_pixel_aspect(stream, scan.turned),
            notes=_list_notes(scan, container, stream, repaired), mirrored=scan.mirrored,
            clock_shifts=_convert_shifts(repaired, stream), colour=_read_colour(stream),
            transparent=scan.transparent,
        )
    for note in info.notes:
        logger.warning("%s: %s", path, note)
    if repaired is None or not _are_distinct(scan.pts):
        return VideoIndex(info, (), ())
    trusted = tuple(key for key in scan.keys if key not in repaired.replaced)
    return VideoIndex(info, tuple(scan.pts), trusted)
