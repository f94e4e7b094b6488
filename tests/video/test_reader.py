"""Reading: what decodes counts, every frame is found exactly, bad input is told by name."""

from __future__ import annotations

import random
import socket
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fresco.errors import VideoError
from fresco.video.reader import VideoReader, open_source
from tests.helpers.clips import (
    SHARED_CLIPS,
    TURNS,
    ClipOptions,
    moving_texture,
    package_clip,
    set_display_matrix,
    shared_clip,
    truncated,
    write_clip,
    write_sound,
)
from tests.helpers.tolerances import COLOR_MEAN

X264 = {"crf": "10", "preset": "veryfast", "threads": "1"}

KINDS = {
    "b-frames.mp4": ClipOptions(options=X264 | {"g": "12", "bf": "3", "sc_threshold": "0"}),
    "open-gop.mp4": ClipOptions(options=X264 | {"g": "8", "x264-params": "open-gop=1:b-pyramid=2"}),
    "refresh.mp4": ClipOptions(options=X264 | {"g": "10", "x264-params": "intra-refresh=1"}),
    "intra.mkv": ClipOptions(options=X264 | {"g": "1"}),
    "stream.ts": ClipOptions(options=X264 | {"g": "9", "bf": "2"}),
    "mpeg4.avi": ClipOptions(codec="mpeg4", options={"g": "7", "bf": "2", "b": "4M"}),
    "mpeg2.mpg": ClipOptions(codec="mpeg2video", options={"g": "7", "bf": "2", "b": "4M"}),
    "vp9.webm": ClipOptions(codec="libvpx-vp9", options={"g": "9", "cpu-used": "8", "crf": "10"}),
    "motion.avi": ClipOptions(codec="mjpeg", pix_fmt="yuvj420p", options={"b": "8M"}),
    "hevc.mp4": ClipOptions(
        codec="libx265", options={"x265-params": "keyint=9:crf=8:log-level=none"}
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_any_order_equals_front_to_back(tmp_path: Path, name: str) -> None:
    frames = moving_texture(40)
    path = write_clip(tmp_path / name, frames, KINDS[name])
    with open_source(path) as source:
        assert source.info.frames == len(frames)
        assert source.info.rate == 25
        assert not source.info.variable_rate
        assert (source.info.width, source.info.height) == (64, 48)
        assert not source.info.notes
        straight = list(source.frames())
        assert len(straight) == len(frames)
        for got, true in zip(straight, frames, strict=True):
            assert np.abs(got.astype(int) - true).mean() < 2 * COLOR_MEAN
        order = [*range(40), *range(39, -1, -1)]
        random.Random(7).shuffle(order)
        for index in order[:30]:
            assert np.array_equal(source.frame(index), straight[index]), index


def test_ranges_and_interleaving(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving_texture(12), ClipOptions(options=X264))
    with open_source(path) as source:
        straight = list(source.frames())
        one, two = source.frames(2, 5), source.frames(4, 9)
        pairs = [(next(one), source.frame(11), next(two)) for _ in range(4)]
        for k, (a, b, c) in enumerate(pairs):
            assert np.array_equal(a, straight[2 + k])
            assert np.array_equal(b, straight[11])
            assert np.array_equal(c, straight[4 + k])
        assert next(one, None) is None
        for wrong in (-1, 12):
            with pytest.raises(VideoError, match="0 to 11"):
                source.frame(wrong)
        with pytest.raises(VideoError, match="before the first"):
            list(source.frames(5, 4))


def test_variable_rate_is_exact(tmp_path: Path) -> None:
    times = [Fraction(k * k, 90) + Fraction(k, 30) for k in range(15)]
    how = ClipOptions(timestamps=times, options=X264 | {"g": "4"})
    path = write_clip(tmp_path / "v.mp4", moving_texture(15), how)
    with open_source(path) as source:
        assert source.info.variable_rate
        assert source.info.timestamps == tuple(times)
        assert source.info.rate == (14 / times[-1]).limit_denominator(1001)
        straight = list(source.frames())
        assert np.array_equal(source.frame(9), straight[9])


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(10)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_rate_is_a_fraction(tmp_path: Path, rate: Fraction, name: str) -> None:
    path = write_clip(tmp_path / name, moving_texture(20), ClipOptions(rate=rate, options=X264))
    info = open_source(path).info
    assert info.rate == rate
    assert not info.variable_rate
    assert info.seconds == pytest.approx(20 / rate, abs=0.002)


MATRICES = [
    *TURNS.values(), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0),
]
"""All display matrices that map the pixels of an image onto pixels; the last four mirror it."""


def displayed(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """An image as the matrix says: every pixel moved by itself."""
    a, b, c, d = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    shown = np.empty((down.max() + 1, across.max() + 1, 3), np.uint8)
    shown[down, across] = image
    return shown


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_orientation_is_honoured(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    how = ClipOptions(options=X264, aspect=Fraction(4, 3))
    path = write_clip(tmp_path / "r.mp4", moving_texture(3), how)
    with open_source(path) as source:
        stored = source.frame(1)
        assert source.info.pixel_aspect == Fraction(4, 3)
    set_display_matrix(path, matrix)
    with open_source(path) as source:
        shown = source.frame(1)
        assert np.array_equal(shown, displayed(stored, matrix))
        assert np.array_equal(list(source.frames())[1], shown)
        assert (source.info.height, source.info.width) == shown.shape[:2]
        assert source.info.mirrored == (matrix not in TURNS.values())
        turned = matrix[0] == 0
        assert source.info.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libvpx-vp9"), ("a.mov", "prores_ks"), ("a.mov", "mjpeg"), ("a.mp4", "libx264")],
)
def test_the_aspect_that_a_container_names(tmp_path: Path, name: str, codec: str) -> None:
    layout = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    how = ClipOptions(codec=codec, pix_fmt=layout, options={}, aspect=Fraction(16, 9))
    path = write_clip(tmp_path / name, moving_texture(2), how)
    assert open_source(path).info.pixel_aspect == Fraction(16, 9)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.mp4", "libx264"), ("a.mov", "libx264"),
     ("a.ts", "libx264"), ("a.flv", "libx264"), ("a.nut", "libx264"), ("a.wmv", "wmv2")],
)
def test_a_file_that_starts_late_is_not_cut_off(tmp_path: Path, name: str, codec: str) -> None:
    times = [5 + Fraction(number, 25) for number in range(24)]
    how = ClipOptions(codec=codec, options={}, timestamps=times)
    path = write_clip(tmp_path / name, moving_texture(24), how)
    with open_source(path) as source:
        assert source.info.frames == 24
        assert source.info.timestamps[0] == 5
        assert not source.info.notes


@pytest.mark.parametrize("name", ["cut.mkv", "cut.webm"])
def test_a_file_that_starts_late_and_is_cut_off(tmp_path: Path, name: str) -> None:
    times = [5 + Fraction(number, 10) for number in range(60)]
    how = ClipOptions(codec="libvpx", options={}, timestamps=times)
    whole = write_clip(tmp_path / f"whole_{name}", moving_texture(60), how)
    with pytest.raises(VideoError, match="cut off"):
        open_source(truncated(whole, tmp_path / name, 0.6))


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_alpha_that_the_usual_decoder_leaves_out(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.webm"
    rgba = np.dstack([np.full((48, 64, 3), 180, np.uint8), np.zeros((48, 64), np.uint8)])
    rgba[:, 32:, 3] = 255
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        stream.options = {"auto-alt-ref": "0", "g": "4", "deadline": "realtime", "cpu-used": "8"}
        stream.metadata["alpha_mode"] = "1"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.roll(rgba, 2 * number, 1), "rgba")
            frame = frame.reformat(format="yuva420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with open_source(path) as source:
        straight = list(source.frames())
        assert len(straight) == 10
        for number, rgb in enumerate(straight):
            clear = np.roll(rgba[..., 3], 2 * number, 1)[0] == 0
            assert rgb[:, clear].mean() < 4
            assert abs(rgb[:, ~clear].mean() - 180) < 4
        for number in (9, 5, 0, 7):
            assert np.array_equal(source.frame(number), straight[number])
        (note,) = source.info.notes
        assert "has transparent parts" in note


def test_frames_are_streamed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving_texture(60, 96, 128), ClipOptions(options=X264))
    one = 96 * 128 * 3
    with open_source(path) as source:
        tracemalloc.start()
        assert sum(1 for _ in source.frames()) == 60
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # One frame in float32, twice, and a few small planes; 60 frames would be 60.
    assert peak < 25 * one


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_frames(tmp_path: Path, count: int) -> None:
    path = write_clip(tmp_path / "a.mp4", moving_texture(count), ClipOptions(options=X264))
    with open_source(path) as source:
        assert source.info.frames == count == len(list(source.frames()))
        assert source.info.rate == 25
        assert source.info.seconds == Fraction(count, 25)


@pytest.mark.parametrize("size", [(16, 16), (4000, 200)])
def test_odd_shapes_of_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    frames = [np.full((height, width, 3), 90, np.uint8)] * 2
    with open_source(write_clip(tmp_path / "a.mp4", frames)) as source:
        assert (source.info.width, source.info.height) == size
        assert abs(int(source.frame(1)[0, 0, 0]) - 90) <= 1


def refused(path: Path, *words: str) -> None:
    with pytest.raises(VideoError) as caught:
        open_source(path)
    message = str(caught.value)
    assert path.name in message
    for word in words:
        assert word in message


def test_missing_path(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.mp4", "does not exist")
    with pytest.raises(VideoError, match=r"nothing\.mp4 cannot be read"):
        VideoReader(tmp_path / "nothing.mp4")


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    for count in (4, 7):
        path = write_clip(tmp_path / "a.mp4", moving_texture(count))
        assert open_source(path).info.frames == count


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "0 bytes")


@pytest.mark.parametrize("name", ["page.mp4", "page.html", "page.txt", "page.mkv", "page.avi"])
def test_a_page_is_no_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("<html><body>Sign in to download</body></html>\n" * 40)
    refused(path, "Give a" if name != "page.txt" else "give a")


def test_a_playlist_does_not_reach_out(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n")
        refused(path, "playlist")
        with pytest.raises(TimeoutError):
            server.accept()


def test_sound_alone(tmp_path: Path) -> None:
    refused(write_sound(tmp_path / "song.m4a"), "no video")


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("libmp3lame", rate=48_000)
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        output.mux(cover.encode(picture.reformat(format="yuvj420p")))
        for start in range(0, 9600, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.int16), "s16p", "stereo")
            frame.sample_rate, frame.pts = 48_000, start
            output.mux(sound.encode(frame))
        output.mux(cover.encode(None))
        output.mux(sound.encode(None))
    refused(path, "no video")


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4", "cut.avi"])
def test_a_cut_off_file_says_how_much_is_there(tmp_path: Path, name: str) -> None:
    how = ClipOptions(options=X264 | {"g": "10"}, rate=Fraction(10))
    if name.endswith("mp4"):
        how.options["movflags"] = "faststart"
    if name.endswith("avi"):
        how = ClipOptions(codec="mpeg4", options={"g": "10", "b": "4M"}, rate=Fraction(10))
    frames = moving_texture(60)
    whole = _with_index_first(write_clip(tmp_path / f"whole_{name}", frames, how))
    path = truncated(whole, tmp_path / name, 0.6)
    with pytest.raises(VideoError, match="frames can be read") as caught:
        open_source(path)
    message = str(caught.value)
    count = int(message.split(" frames can be read")[0].split()[-1])
    assert 20 <= count < 55
    assert f"last frame to {count - 1}" in message
    with open_source(path, last_frame=count - 1) as source:
        assert source.info.frames == count
        assert source.info.notes
        for got, true in zip(source.frames(), frames[:count], strict=True):
            assert np.abs(got.astype(int) - true).mean() < 2 * COLOR_MEAN


def _with_index_first(path: Path) -> Path:
    """An MP4 re-muxed with its index in front, so that a cut file can be opened."""
    return _remuxed(path) if path.suffix == ".mp4" else path


def _remuxed(path: Path, *, earlier: int = 0) -> Path:
    """The packets in a new MP4, `earlier` frames of 1/25 s before their time."""
    target = path.with_name("remuxed.mp4")
    with av.open(str(path)) as source, av.open(
        str(target), "w", options={"movflags": "faststart"}
    ) as output:
        old = source.streams.video[0]
        if hasattr(output, "add_stream_from_template"):
            new = output.add_stream_from_template(old)
        else:
            new = output.add_stream(template=old)
        for packet in source.demux(old):
            if packet.size and packet.time_base and None not in (packet.pts, packet.dts):
                ticks = round(Fraction(earlier, 25) / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                packet.stream = new
                output.mux(packet)
    return target


def test_frames_before_an_edit_are_not_counted(tmp_path: Path) -> None:
    frames = moving_texture(40)
    path = _remuxed(write_clip(tmp_path / "a.mp4", frames, KINDS["b-frames.mp4"]), earlier=5)
    with open_source(path) as source:
        assert source.info.frames == 35
        assert source.info.timestamps[:2] == (0, Fraction(1, 25))
        straight = list(source.frames())
        for got, true in zip(straight, frames[5:], strict=True):
            assert np.abs(got.astype(int) - true).mean() < 2 * COLOR_MEAN
        for index in (20, 3, 34, 0, 8):
            assert np.array_equal(source.frame(index), straight[index])


def test_a_cut_off_file_without_index(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", moving_texture(30), ClipOptions(options=X264))
    refused(truncated(whole, tmp_path / "cut.mp4", 0.5), "cut off")


def test_a_broken_packet_is_told_not_hidden(tmp_path: Path) -> None:
    how = ClipOptions(codec="mjpeg", pix_fmt="yuvj420p", options={"b": "8M"})
    path = write_clip(tmp_path / "a.mkv", moving_texture(10), how)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    data = path.read_bytes()
    assert data.count(packets[4]) == 1
    path.write_bytes(data.replace(packets[4], bytes(len(packets[4]))))
    with open_source(path) as source:
        assert source.info.frames == 9
        assert any("1 packets" in note for note in source.info.notes)
        assert source.info.timestamps[4] == Fraction(5, 25)
        assert len(list(source.frames())) == 9


def test_no_timestamps(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "raw.h264", moving_texture(20), KINDS["b-frames.mp4"])
    with open_source(path) as source:
        assert source.info.frames == 20
        assert source.info.timestamps[19] == 19 / source.info.rate
        straight = list(source.frames())
        assert np.array_equal(source.frame(13), straight[13])
        assert np.array_equal(source.frame(3), straight[3])


def test_a_name_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "plain.mp4", moving_texture(2))
    (tmp_path / "plain.mp4").rename(tmp_path / "take:1 ü%03d.mp4")
    monkeypatch.chdir(tmp_path)
    with open_source("take:1 ü%03d.mp4") as source:
        assert source.info.path == "take:1 ü%03d.mp4"
        assert len(list(source.frames())) == 2


def test_reference_clips() -> None:
    expected = {"boxer-punching-towards-camera": 32, "car-turn": 80, "dog": 300, "music": 240}
    for name in SHARED_CLIPS:
        reader = VideoReader(shared_clip(name))
        assert reader.info.frames == expected[name], name
        assert reader.info.rate in (10, 24), name
        assert not reader.info.has_sound, name


def test_a_clip_with_sound() -> None:
    info = open_source(package_clip("bigbuckbunny.mp4")).info
    assert (info.width, info.height, info.frames, info.rate) == (1280, 720, 132, 25)
    assert info.has_sound
