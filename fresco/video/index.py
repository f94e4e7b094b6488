"""What a video file really holds: every frame that decodes, and when it is shown.

Containers state wrong counts and rates, so the file is decoded once, front to back, before any use.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

logger = logging.getLogger("fresco")

_ATTACHED_PICTURE = 1024
"""Bit of a stream's disposition that marks cover art."""

LOST_END = Fraction(1, 4)
"""Seconds that may be missing at the end before a file counts as cut off: rounding of headers."""

HELD = Fraction(3, 2)
"""Ordinary frame lengths above which the last frame of a steady clip counts as held."""

_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer numbers of H.273 whose frames need tone mapping on an ordinary screen."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known about a source."""

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
    """What a person should know about this source, in sentences."""


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """Where every frame of a file is found."""

    info: VideoInfo
    """The source as its users see it."""
    pts: tuple[int, ...]
    """Timestamps in the stream's own units, rising; empty where the file has none to seek by."""
    keys: tuple[int, ...]
    """Numbers of the frames where decoding can start."""
    state: tuple[int, int] = (0, 0)
    """Bytes of the file and the time of its last change, ns, by which a changed one is known."""


@dataclass(slots=True)
class _Contents:
    """What one pass over a file has met."""

    pts: list[int | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    durations: dict[int, int] = field(default_factory=dict)
    end: Fraction = Fraction(0)
    broken: int = 0
    cut_off: str = ""
    interlaced: bool = False
    turned: int = 0


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """The container of a local file, closed on leaving; VideoError where FFmpeg cannot open it."""
    _refuse_playlist(path)
    try:
        # An absolute path cannot be taken for an address; nothing can reach the network.
        # Not `options`, which PyAV 12 also hands to streams it has not met yet, and crashes.
        container = av.open(str(path.absolute()), container_options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be read as video ({error.strerror}); it is damaged, cut off or not a "
            "video. Give a file that plays, or re-mux it first."
        ) from error
    with container:
        if container.format.name == "tty":
            raise VideoError(f"{path} is a text file; give a video file or a folder of images.")
        yield container


def _refuse_playlist(path: Path) -> None:
    """FFmpeg would wait minutes for the rest of a playlist, and look for other files."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n")
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}); check its rights.") from error
    if start.startswith((b"#EXTM3U", b"ffconcat")):
        raise VideoError(f"{path} is a playlist, which only names videos; give a video itself.")


def find_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream; cover art does not count."""
    for stream in container.streams.video:
        if not _is_cover(container, stream):
            stream.thread_type = "AUTO"
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise VideoError(f"{path} holds {kinds} but no video; give a video file.")


def _is_cover(container: InputContainer, stream: VideoStream) -> bool:
    disposition = getattr(stream, "disposition", None)
    if disposition is not None:
        return bool(int(disposition) & _ATTACHED_PICTURE)
    # PyAV before 14 hides the flag; cover art is a still-image codec beside sound.
    still = stream.codec_context.name in ("mjpeg", "png", "bmp")
    return still and bool(container.streams.audio) and stream.frames <= 1


def decode_frames(
    container: InputContainer, stream: VideoStream, *, wait_for_key: bool = False
) -> Iterator[VideoFrame]:
    """Frames from the present position on; packets that do not decode are passed over."""
    for packet in container.demux(stream):
        if wait_for_key and packet.size and not packet.is_keyframe:
            continue
        wait_for_key = False
        if packet.size and packet.is_corrupt:
            continue
        try:
            yield from packet.decode()  # pyright: ignore[reportReturnType]
        except av.FFmpegError:
            continue


def _note_packet(scan: _Contents, packet: Any) -> None:
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or packet.time_base is None:
        return
    length = packet.duration or 0
    scan.end = max(scan.end, (stamp + length) * Fraction(packet.time_base))
    if packet.stream.type == "video" and packet.pts is not None:
        scan.durations[packet.pts] = length


def _note_frame(scan: _Contents, frame: VideoFrame, stream: VideoStream) -> None:
    if frame.key_frame:
        scan.keys.append(len(scan.pts))
    if not scan.pts:
        scan.turned = _read_rotation(frame, stream)
    scan.pts.append(frame.pts)
    scan.sizes[frame.width, frame.height] += 1
    scan.interlaced = scan.interlaced or frame.interlaced_frame


def _read_contents(container: InputContainer, stream: VideoStream) -> _Contents:
    scan, last_corrupt = _Contents(), False
    try:
        for packet in container.demux():
            _note_packet(scan, packet)
            if packet.stream_index != stream.index:
                continue
            if packet.size:
                last_corrupt = packet.is_corrupt
                scan.broken += last_corrupt
            if packet.size and last_corrupt:
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError:
                scan.broken += 1
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                _note_frame(scan, frame, stream)
    except av.FFmpegError as error:
        scan.cut_off = str(error.strerror)
        for frame in stream.codec_context.decode(None):
            _note_frame(scan, frame, stream)
    if last_corrupt and not scan.cut_off:
        scan.cut_off = "its last packet is incomplete"
    return scan


def _read_rotation(frame: VideoFrame, stream: VideoStream) -> int:
    if hasattr(frame, "rotation"):
        degrees = frame.rotation
    else:
        side_data: Mapping[str, Any] = getattr(stream, "side_data", {})
        degrees = int(side_data.get("DISPLAYMATRIX", 0))
    return round(degrees / 90) * 90 % 360


def _explain_missing_end(container: InputContainer, end: Fraction) -> str:
    """A sentence if the file ends well before the time its header names, else nothing."""
    if not container.duration:
        return ""
    start = Fraction(container.start_time or 0, av.time_base)
    claimed = start + Fraction(container.duration, av.time_base)
    if claimed - end <= max(LOST_END, claimed / 50):
        return ""
    return f"it ends at {float(end):.2f} s, its header says {float(claimed):.2f} s"


def _find_steady_rate(
    times: list[Fraction], tick: Fraction, candidates: list[Fraction]
) -> Fraction | None:
    """The rate all times keep to within one tick of the clock, or None if there is none."""
    first_step = times[1] - times[0]
    if all(b - a == first_step for a, b in pairwise(times)):
        return 1 / first_step
    for rate in candidates:
        if all(abs(t - times[0] - i / rate) <= tick for i, t in enumerate(times)):
            return rate
    return None


def _list_rates(stream: VideoStream) -> list[Fraction]:
    named = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return [Fraction(rate) for rate in named if rate]


def _find_timing(
    scan: _Contents, stream: VideoStream
) -> tuple[tuple[Fraction, ...], Fraction, Fraction, bool]:
    """Times, rate, seconds and whether the rate varies, from whole timestamps."""
    clock = Fraction(stream.time_base or Fraction(1, av.time_base))
    stamps = [stamp for stamp in scan.pts if stamp is not None]
    times = [stamp * clock for stamp in stamps]
    rates = _list_rates(stream)
    last = scan.durations.get(stamps[-1], 0) * clock
    if len(times) == 1:
        rate = rates[0] if rates else (1 / last if last else Fraction(25))
        return tuple(times), rate, last or 1 / rate, False
    steady = _find_steady_rate(times, clock, rates)
    mean = (len(times) - 1) / (times[-1] - times[0])
    rate = steady or mean.limit_denominator(1001)
    # A steady clip's last frame may be held; its length is not worth more than that otherwise.
    last = last if last and (steady is None or last > HELD / rate) else 1 / rate
    return tuple(times), rate, times[-1] - times[0] + last, steady is None


def _are_usable(stamps: list[int | None]) -> bool:
    whole = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in pairwise(whole))
    return len(whole) == len(stamps) and rising


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


def _list_notes(scan: _Contents, stream: VideoStream, stamped: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if scan.cut_off:
        notes.append(f"The source is cut off ({scan.cut_off}); {len(scan.pts)} frames are used.")
    elif scan.broken:
        notes.append(f"{scan.broken} packets of the source do not decode; they are left out.")
    if not stamped:
        notes.append("The source has no usable timestamps; its frames are taken as evenly spaced.")
    if scan.interlaced:
        notes.append("The source is interlaced; its frames are used as they are, combs included.")
    transfer = _HDR_TRANSFERS.get(int(stream.codec_context.color_trc or 0))
    if transfer:
        notes.append(f"The source is HDR ({transfer}); it is not tone mapped and may look flat.")
    return tuple(notes)


def _read_pixel_aspect(stream: VideoStream, turned: int) -> Fraction:
    aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1) or Fraction(1)
    return 1 / aspect if turned in (90, 270) else aspect


def index_video(path: Path, *, last_frame: int = -1) -> VideoIndex:
    """Decode a file once and say what is in it.

    Args:
        last_frame: last frame that will be used; a file cut off behind it is accepted.
    """
    with open_container(path) as container:
        stream = find_video_stream(container, path)
        scan = _read_contents(container, stream)
        scan.cut_off = scan.cut_off or _explain_missing_end(container, scan.end)
        _check_whole(path, scan, last_frame)
        stamped = _are_usable(scan.pts)
        if stamped:
            times, rate, seconds, varies = _find_timing(scan, stream)
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
            notes=_list_notes(scan, stream, stamped),
        )
    for note in info.notes:
        logger.warning("%s: %s", path, note)
    stamps = tuple(stamp for stamp in scan.pts if stamp is not None) if stamped else ()
    return VideoIndex(info, stamps, tuple(scan.keys))
