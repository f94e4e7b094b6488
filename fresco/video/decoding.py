"""Decode packets to frames, with alpha, and read how frames are turned for display."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, cast

import av
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these codecs leave out alpha."""


class FrameDecoder:
    """Decodes the packets of one video stream."""

    def __init__(self, stream: VideoStream) -> None:
        self._own = _create_alpha_decoder(stream)
        self._context: Any = self._own or stream.codec_context

    @property
    def marks_keys(self) -> bool:
        """Whether frames say that decoding can start at them."""
        return self._own is None

    def decode(self, packet: Any) -> list[VideoFrame]:
        """Return the frames that a packet completes; the empty packet at the end gives the rest."""
        return cast("list[VideoFrame]", self._context.decode(packet if packet.size else None))

    def drain(self) -> list[VideoFrame]:
        """Return the remaining frames of a file that ends without its last packet."""
        return cast("list[VideoFrame]", self._context.decode(None))


def _create_alpha_decoder(stream: VideoStream) -> Any | None:
    """Create a decoder that keeps alpha which the usual one drops; None if there is none."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    if not has_hidden_alpha(stream) or name not in av.codecs_available:
        return None
    return av.CodecContext.create(name, "r")


def has_hidden_alpha(stream: VideoStream) -> bool:
    """Whether a stream has alpha that its usual decoder drops."""
    kinds = {key.lower(): value for key, value in stream.metadata.items()}
    return stream.codec_context.name in _ALPHA_DECODERS and kinds.get("alpha_mode") == "1"


def can_read_alpha(stream: VideoStream) -> bool:
    """Whether this PyAV has the decoder that keeps the alpha of `has_hidden_alpha`."""
    return _ALPHA_DECODERS.get(stream.codec_context.name) in av.codecs_available


def decode_frames(
    container: InputContainer, stream: VideoStream, *, wait_for_key: bool = False
) -> Iterator[VideoFrame]:
    """Yield frames from the present position on; packets that cannot be decoded are skipped."""
    decoder = FrameDecoder(stream)
    for packet in container.demux(stream):
        if wait_for_key and packet.size and not packet.is_keyframe:
            continue
        wait_for_key = False
        try:
            yield from decoder.decode(packet)
        except av.FFmpegError:
            continue


def read_orientation(frame: VideoFrame) -> tuple[bool, int]:
    """Whether a frame is mirrored for display, and the degrees by which it is turned after that.

    The degrees are counterclockwise: 0, 90, 180 or 270. Both come from the matrix that the file
    has for its frames, which maps x, y to ax + cy, bx + dy.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, 0
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    mirrored = a * d < b * c
    if mirrored:
        a, b = -a, -b
    return mirrored, round(-math.degrees(math.atan2(b, a)) / 90) * 90 % 360
