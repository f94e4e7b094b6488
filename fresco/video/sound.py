"""The source's sound in the result: packets copied as they are wherever the container allows it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from fresco.video.streams import choose_sound_stream, explain_choice

COPIED = {
    ".mp4": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "flac"}),
    ".m4v": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac"}),
}
"""Codecs copied as they are, by container: those that common players play; .mkv takes all."""

_PCM_CONTAINERS = (".mov", ".mkv")

Time = Fraction | None


def is_copied(codec: str, suffix: str) -> bool:
    """Whether sound of this codec goes into a file of this ending without re-encoding."""
    if codec.startswith("pcm_"):
        return suffix in _PCM_CONTAINERS
    return suffix == ".mkv" or codec in COPIED.get(suffix, ())


class SoundCopy:
    """Sound on its way from a source into an open output.

    Args:
        source: open input; stays open until `pump` was called for the last time.
        output: output whose header is not yet written.
        span: seconds of the source that are wanted; None at an end means all there is.
        shift: seconds of the source that become 0 in the output.
    """

    def __init__(
        self, source: InputContainer, output: OutputContainer, suffix: str, *,
        span: tuple[Time, Time], shift: Fraction,
    ) -> None:
        self.notes: tuple[str, ...] = ()
        self._output, self._span, self._shift = output, span, shift
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None
        stream = choose_sound_stream(source)
        if stream is None:
            return
        codec = stream.codec_context.name
        if is_copied(codec, suffix):
            self._packets = self._copy_packets(source, stream, _add_copied_stream(output, stream))
        else:
            self._packets = self._encode_sound(source, stream)
            self.notes += (f"The sound ({codec}) does not fit {suffix}; it was re-encoded as AAC.",)
        self.notes += explain_choice(source.streams.audio, stream, "sound")

    def pump(self, until: Time) -> None:
        """Write the sound up to a time of the output; None: all of it."""
        while True:
            if self._waiting is None:
                self._waiting = next(self._packets, None)
            packet = self._waiting
            if packet is None:
                return
            stamp = packet.dts if packet.dts is not None else packet.pts
            if until is not None and stamp * Fraction(packet.time_base) > until:
                return
            self._output.mux(packet)
            self._waiting = None

    def _is_wanted(self, start: Fraction, end: Fraction) -> bool:
        first, last = self._span
        return (first is None or end > first) and (last is None or start < last)

    def _copy_packets(
        self, source: InputContainer, stream: AudioStream, target: AudioStream
    ) -> Iterator[Any]:
        for packet in source.demux(stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if not packet.size or stamp is None:
                continue
            clock = Fraction(packet.time_base)
            start = stamp * clock
            if not self._is_wanted(start, start + max(1, packet.duration or 0) * clock):
                continue
            offset = round(self._shift / clock)
            packet.pts = stamp - offset
            packet.dts = (stamp if packet.dts is None else packet.dts) - offset
            packet.stream = target
            yield packet

    def _encode_sound(self, source: InputContainer, stream: AudioStream) -> Iterator[Any]:
        rate = stream.codec_context.sample_rate
        target = self._output.add_stream("aac", rate=rate)
        assert isinstance(target, AudioStream)
        target.codec_context.bit_rate = 192_000
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        target.codec_context.layout = layout
        return self._encode_packets(source, stream, target, av.AudioResampler("fltp", layout, rate))

    def _encode_packets(
        self, source: InputContainer, stream: AudioStream, target: AudioStream,
        resampler: av.AudioResampler,
    ) -> Iterator[Any]:
        rate = target.codec_context.sample_rate
        for frame in source.decode(stream):
            start = (frame.pts or 0) * Fraction(frame.time_base or 0)
            if not self._is_wanted(start, start + Fraction(frame.samples, frame.sample_rate)):
                continue
            for piece in resampler.resample(frame):
                piece.pts = round((start - self._shift) * rate)
                piece.time_base = Fraction(1, rate)
                yield from target.encode(piece)
        yield from target.encode(None)


def _add_copied_stream(output: OutputContainer, template: AudioStream) -> AudioStream:
    if hasattr(output, "add_stream_from_template"):
        return output.add_stream_from_template(template)
    # PyAV before 14 has the template as an argument of the general call.
    old_call: Any = output.add_stream
    return old_call(template=template)


