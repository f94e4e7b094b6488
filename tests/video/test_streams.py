"""Which stream is the video and which the sound, and that no packet of the video goes astray."""

from __future__ import annotations

import enum
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from fresco.errors import VideoError
from fresco.video.decoding import FrameDecoder
from fresco.video.index import index_video
from fresco.video.reader import open_source
from fresco.video.streams import read_disposition
from tests.helpers.clips import ClipOptions, moving_texture, write_clip, write_sound

X264 = {"crf": "10", "preset": "veryfast", "threads": "1", "g": "10", "bf": "2"}
COUNT = 24


def write_streams(path: Path, *streams: str, timecode: str = "", default: int = -1) -> Path:
    """A file with these streams, in this order: `video` (64 x 48), `small` (32 x 32), `sound`."""
    with av.open(str(path), "w") as output:
        if timecode:
            output.metadata["timecode"] = timecode
        made: list[Any] = []
        for number, kind in enumerate(streams):
            stream: Any = output.add_stream("aac" if kind == "sound" else "libx264", rate=(
                48_000 if kind == "sound" else 25
            ))
            if kind != "sound":
                stream.width, stream.height = (64, 48) if kind == "video" else (32, 32)
                stream.pix_fmt, stream.options = "yuv420p", X264
            if default >= 0:
                try:
                    stream.disposition = av.stream.Disposition(1 if number == default else 0)
                except TypeError:
                    pytest.skip("PyAV 17.0 writes no dispositions")
            made.append(stream)
        for kind, stream in zip(streams, made, strict=True):
            for frame in (sound if kind == "sound" else images)(stream):
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return path


def images(stream: Any) -> list[av.VideoFrame]:
    frames = []
    for number, rgb in enumerate(moving_texture(COUNT, stream.height, stream.width)):
        frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        frames.append(frame)
    return frames


def sound(_: Any) -> list[av.AudioFrame]:
    frames = []
    for start in range(0, COUNT * 1920, 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        frames.append(frame)
    return frames


def require_all(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    with open_source(path) as source:
        assert (source.info.width, source.info.height) == size
        assert source.info.frames == COUNT == len(list(source.frames()))
        assert not [note for note in source.info.notes if "packets" in note]


@pytest.mark.parametrize("name", ["a.mov", "a.mp4"])
@pytest.mark.parametrize("streams", [("video",), ("video", "sound"), ("sound", "video")])
def test_a_timecode_track_does_not_matter(
    tmp_path: Path, name: str, streams: tuple[str, ...]
) -> None:
    path = write_streams(tmp_path / name, *streams, timecode="01:00:00:00")
    with av.open(str(path)) as container:
        assert "data" in [stream.type for stream in container.streams]
    require_all(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mov"])
def test_the_last_frames_are_there_where_sound_is_the_first_stream(
    tmp_path: Path, name: str
) -> None:
    require_all(write_streams(tmp_path / name, "sound", "video"))


def test_attached_fonts_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        if not hasattr(output, "add_attachment"):
            pytest.skip("this PyAV writes no attachments")
        output.add_attachment("font.ttf", "application/x-truetype-font", b"not a font")
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", X264
        for frame in images(stream):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    require_all(path)


def test_references_that_are_not_shown_are_no_loss(tmp_path: Path) -> None:
    how = ClipOptions(codec="libvpx", options={"cpu-used": "8", "deadline": "realtime"})
    path = write_clip(tmp_path / "a.webm", moving_texture(COUNT), how)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    hidden = bytes([packets[5][0] & ~0x10]) + packets[5][1:]
    data = path.read_bytes()
    assert data.count(packets[5]) == 1
    path.write_bytes(data.replace(packets[5], hidden))
    with open_source(path) as source:
        assert source.info.frames == COUNT - 1
        assert not source.info.notes


def test_packets_without_an_image_are_told(tmp_path: Path) -> None:
    how = ClipOptions(options=X264 | {"g": "12", "bf": "0"})
    path = write_clip(tmp_path / "whole.ts", moving_texture(COUNT), how)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        second = [packet.pos for packet in container.demux(video=0)][1]
    # Tables come first, in two packets of 188 bytes; the first key frame is left out.
    header = data[: 3 * 188]
    cut = tmp_path / "cut.ts"
    cut.write_bytes(header + data[second // 188 * 188 :])
    with open_source(cut) as source:
        assert source.info.frames < COUNT - 1
        lost = COUNT - 1 - source.info.frames
        assert any(note.startswith(f"{lost} of {COUNT - 1} packets") for note in source.info.notes)


def test_images_that_are_never_asked_for_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check itself: a reader that forgets what the decoder still holds does not pass."""
    path = write_streams(tmp_path / "a.mp4", "video")
    decode = FrameDecoder.decode
    monkeypatch.setattr(
        FrameDecoder, "decode", lambda self, packet: decode(self, packet) if packet.size else []
    )
    found = index_video(path).info
    lost = COUNT - found.frames
    assert lost > 0
    assert f"{lost} of {COUNT} packets of the source give no image." in found.notes


@pytest.mark.parametrize(("name", "codec", "mark"), [
    ("a.mp4", "libx264", b"avc1"), ("a.avi", "mpeg4", b"FMP4"),
])
def test_video_of_an_unknown_kind_is_refused(
    tmp_path: Path, name: str, codec: str, mark: bytes
) -> None:
    how = ClipOptions(codec=codec, options={"b": "1M"})
    path = write_clip(tmp_path / name, moving_texture(5), how)
    data = path.read_bytes()
    assert mark in data
    path.write_bytes(data.replace(mark, b"zq0z"))
    with pytest.raises(VideoError, match="cannot decode"):
        open_source(path)


def test_the_stream_marked_as_default_is_the_video(tmp_path: Path) -> None:
    if not hasattr(av.stream, "Disposition"):
        pytest.skip("this PyAV hides which stream is the default")
    first = write_streams(tmp_path / "first.mkv", "video", "small", default=0)
    second = write_streams(tmp_path / "second.mkv", "video", "small", default=1)
    require_all(first, (64, 48))
    require_all(second, (32, 32))
    assert "The source has 2 video streams; number 2 was taken." in open_source(second).info.notes


class Plain(enum.Flag):
    """As in PyAV 17.0."""

    default = 1
    attached_pic = 1024


class Whole(enum.IntFlag):
    """As in the others."""

    default = 1
    attached_pic = 1024


@pytest.mark.parametrize("kind", [Plain, Whole])
def test_dispositions_of_every_kind_are_read(kind: Any) -> None:
    both = SimpleNamespace(disposition=kind.default | kind.attached_pic)
    assert read_disposition(both) == 1025
    assert read_disposition(SimpleNamespace(disposition=kind(0))) == 0
    assert read_disposition(SimpleNamespace()) is None


def test_a_cover_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as output:
        track = output.add_stream("libmp3lame", rate=48_000)
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        output.mux(cover.encode(image.reformat(format="yuvj420p")))
        for frame in sound(track):
            output.mux(track.encode(frame))
        output.mux(cover.encode(None))
        output.mux(track.encode(None))
    with pytest.raises(VideoError, match="holds sound and a cover picture but no video"):
        open_source(path)


def test_sound_alone_is_called_sound(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds sound but no video"):
        open_source(write_sound(tmp_path / "song.m4a"))
