"""Encode sound as AAC or Opus in another process.

Decoding some sound damages the memory of the process: PyAV 17.1 to 18.1 free a channel layout of a
custom order twice, which 6.1 and 7.1 PCM in MOV has. In another process that does not end the
program. This module is both sides: `encode_sound` sends a request, and `main` answers it in the
other process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from fresco.digests import digest
from fresco.video.sound import SoundError, SoundSource, iterate_packets, read_sound_info
from fresco.video.streams import choose_sound_stream, open_container
from fresco.video.timing import to_fraction
from fresco.writing import explain, name_part

if TYPE_CHECKING:
    from av import AudioFrame

_RATES = (
    7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000,
)
"""Samples a second that AAC has (ISO 14496-3, table 1.18)."""

_BIT_RATE = 192_000

AAC, OPUS = "aac", "libopus"
"""FFmpeg's names of the encoders."""

_OPUS_RATE = 48_000
"""Samples a second at which Opus works."""

_SLACK = Fraction(1, 20)
"""Seconds that a timestamp may be off before samples are left out or silence is put in: above the
rounding of containers, below what an ear takes for out of step."""

_LAYOUTS = (
    "mono", "stereo", "2.1", "3.0", "3.0(back)", "4.0", "quad", "quad(side)", "3.1", "5.0",
    "5.0(side)", "4.1", "5.1", "5.1(side)", "6.0", "6.0(front)", "hexagonal", "6.1", "6.1(back)",
    "6.1(front)", "7.0", "7.0(front)", "7.1", "7.1(wide)", "7.1(wide-side)", "octagonal",
)
"""Layouts whose channels a file may have in another order."""

_BY_COUNT = {
    1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1",
    16: "hexadecagonal", 24: "22.2",
}
"""Layout that FFmpeg assumes for channels without one, by their number."""

_PIECE = 1 << 16
"""Number of samples of silence made at once."""


_PROGRAM = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from {__name__} import main
main(sys.argv[2])
"""
"""Program of the other process."""


def choose_rate(rate: int, encoder: str = AAC) -> int:
    """Choose the encoder's rate that loses least of a sound's rate."""
    if encoder == OPUS:
        return _OPUS_RATE
    return next((each for each in _RATES if each >= rate), _RATES[-1])


def encode_sound(sound: SoundSource, scratch: Path, encoder: str = AAC) -> Path:
    """Encode the wanted sound into a file of AAC or Opus that starts at 0.

    Raises SoundError where that cannot be done.

    Args:
        scratch: folder in which the file is kept; what was made from the same source is reused.
    """
    path = sound.path.absolute()
    try:
        state = path.stat()
        facts = [str(path), state.st_size, state.st_mtime_ns, *_dump(sound)]
        target = scratch / f"sound-{digest(facts + [encoder] * (encoder != AAC))[:16]}.m4a"
        if target.exists():
            return target
        part = name_part(target, f"{os.getpid()}.part")
        try:
            _run_encoder([str(path), str(part.absolute()), encoder, *_dump(sound)])
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, scratch) from error
    return target


def _dump(sound: SoundSource) -> list[Any]:
    first, last = (None if time is None else str(time) for time in sound.span)
    return [first, last, str(sound.shift), [str(shift) for shift in sound.clock_shifts]]


def _list_path() -> list[str]:
    """List where the other process looks for modules, so that it finds this package."""
    return list(dict.fromkeys([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]))


def _run_encoder(request: list[Any]) -> None:
    done = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(_list_path()), json.dumps(request)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    with done:
        try:
            # Its input stays open; if it closes, the process knows that this one has ended.
            answer = done.stdout.read() if done.stdout else b""
            code = done.wait()
        except BaseException:
            done.kill()
            raise
    if code == 0:
        return
    reason = answer.decode("utf-8", "replace").strip()
    raise SoundError(reason or f"its decoder crashed with code {code}")


# What follows runs in the other process.

_kept: list[Any] = []
"""Layouts, which must not be freed (see above); the process ends without doing so."""


def main(request: str) -> None:
    """Encode what a JSON request asks for, and end the process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    path, target, encoder, first, last, shift, clock_shifts = json.loads(request)
    span = tuple(None if time is None else Fraction(time) for time in (first, last))
    shifts = tuple(Fraction(each) for each in clock_shifts)
    code = 0
    try:
        sound = SoundSource(Path(path), (span[0], span[1]), Fraction(shift), shifts)
        _encode(sound, Path(target), encoder)
    except Exception as error:  # whatever it is, the other process tells it as a sentence
        sys.stdout.write(str(error) or repr(error))
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(2)


def _encode(sound: SoundSource, target: Path, encoder: str) -> None:
    info = read_sound_info(sound)
    if info is None:
        raise SoundError("there is no sound")
    with open_container(sound.path) as source, av.open(str(target), "w", format="mp4") as output:
        stream = choose_sound_stream(source)
        assert stream is not None
        if stream.codec_context is None:
            raise SoundError(f"PyAV {av.__version__} does not know its codec")
        track = _Track(output, sound, encoder)
        for packet in iterate_packets(source, stream, info.stamps):
            track.add(_decode(stream, packet))
        track.add(_decode(stream, None))
        track.finish()


def _decode(stream: Any, packet: Any) -> list[AudioFrame]:
    try:
        frames = stream.codec_context.decode(packet)
    except av.FFmpegError:  # a damaged packet; silence takes its place
        return []
    _kept.extend(frame.layout for frame in frames)
    return frames


class _Track:
    """Sound without gaps and overlaps: missing parts become silence."""

    def __init__(self, output: Any, sound: SoundSource, encoder: str) -> None:
        self._output, self._sound, self._encoder = output, sound, encoder
        self._end = sound.shift
        """Second of the source up to which there is sound."""
        self._next = sound.shift
        """Second at which a frame without timestamp follows."""
        self._stream: Any = None
        self._resampler: Any = None
        self._kind: tuple[str, str, int] = ("", "", 0)
        self._position = 0

    def add(self, frames: list[AudioFrame]) -> None:
        """Encode decoded frames, each at its time."""
        for frame in frames:
            start = self._next if frame.pts is None else frame.pts * to_fraction(frame.time_base)
            self._next = start + Fraction(frame.samples, frame.sample_rate)
            first, last = self._sound.span
            if (first is None or self._next > first) and (last is None or start < last):
                self._place(_bring_to_known_layout(frame), start, last)

    def _place(self, frame: AudioFrame, start: Fraction, last: Fraction | None) -> None:
        rate, gap, skipped = frame.sample_rate, start - self._end, 0
        # The very first sound is placed to the sample.
        if self._stream is None or abs(gap) > _SLACK:
            self._add_silence(frame, round(gap * rate))
            skipped = max(0, round(-gap * rate))
        end = frame.samples
        if last is not None:
            end = min(end, skipped + round((last - self._end) * rate))
        piece = _cut(frame, skipped, end)
        if piece is not None:
            self._feed(piece)

    def _add_silence(self, like: AudioFrame, samples: int) -> None:
        while samples > 0:
            piece = _make_silence(like, min(samples, _PIECE))
            self._feed(piece)
            samples -= piece.samples

    def _feed(self, frame: AudioFrame) -> None:
        """Encode samples that directly follow those before."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._stream is None:
            rate = choose_rate(frame.sample_rate, self._encoder)
            self._stream = self._output.add_stream(self._encoder, rate=rate)
            self._stream.codec_context.bit_rate = _BIT_RATE
            mono = len(frame.layout.channels) == 1
            self._stream.codec_context.layout = "mono" if mono else "stereo"
        if kind != self._kind:
            self._drain()
            self._kind = kind
            context = self._stream.codec_context
            samples = "flt" if self._encoder == OPUS else "fltp"
            self._resampler = av.AudioResampler(samples, context.layout.name, context.sample_rate)
        self._end += Fraction(frame.samples, frame.sample_rate)
        frame.pts = None
        self._write(self._resampler.resample(frame))

    def _drain(self) -> None:
        if self._resampler is not None:
            self._write(self._resampler.resample(None))

    def _write(self, pieces: list[AudioFrame]) -> None:
        for piece in pieces:
            piece.pts, piece.time_base = self._position, Fraction(1, piece.sample_rate)
            self._position += piece.samples
            self._output.mux(self._stream.encode(piece))

    def finish(self) -> None:
        """Encode the remaining samples."""
        if self._stream is None:
            raise SoundError("not one sample of it could be decoded")
        self._drain()
        self._output.mux(self._stream.encode(None))


def _read_planes(frame: AudioFrame) -> np.ndarray:
    """Read the samples of a frame as [channels, samples]."""
    values = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(frame.samples, -1).T


def _make_frame(planes: np.ndarray, like: AudioFrame, layout: str) -> AudioFrame:
    """Make a frame from [channels, samples] with format and rate of another."""
    values = planes if like.format.is_planar else planes.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(values), format=like.format.name, layout=layout
    )
    frame.sample_rate = like.sample_rate
    return frame


def _cut(frame: AudioFrame, first: int, end: int) -> AudioFrame | None:
    """Cut samples `first` up to `end` from a frame; None if there are none."""
    if first >= end:
        return None
    if first == 0 and end == frame.samples:
        return frame
    return _make_frame(_read_planes(frame)[:, first:end], frame, frame.layout.name)


def _make_silence(like: AudioFrame, samples: int) -> AudioFrame:
    planes = _read_planes(like)
    middle = 128 if planes.dtype == np.uint8 else 0
    quiet = np.full((planes.shape[0], samples), middle, planes.dtype)
    return _make_frame(quiet, like, like.layout.name)


def _bring_to_known_layout(frame: AudioFrame) -> AudioFrame:
    """Reorder the channels of a frame so that FFmpeg can mix them to stereo."""
    if "channels" not in frame.layout.name:  # FFmpeg's name of a layout that is not one of its own
        return frame
    names = [channel.name for channel in frame.layout.channels]
    for layout in _LAYOUTS:
        known = [channel.name for channel in av.AudioLayout(layout).channels]
        if len(known) == len(names) and set(known) == set(names):
            order = [names.index(name) for name in known]
            return _make_frame(_read_planes(frame)[order], frame, layout)
    count = len(names)
    if count not in _BY_COUNT:
        raise SoundError(f"its {count} channels ({frame.layout.name}) have no known places")
    return _make_frame(_read_planes(frame), frame, _BY_COUNT[count])
