"""Codecs of results: frames, times and sound come back from each kind of file, or it is refused."""

from __future__ import annotations

import dataclasses
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av import VideoFrame
from numpy.typing import NDArray

from fresco.errors import VideoError
from fresco.options import entries
from fresco.video import codecs
from fresco.video.animation import ImagePages
from fresco.video.codecs import CODECS, FOLDERS, choose_codec, choose_suffix
from fresco.video.color import FULL, LIMITED, Colour
from fresco.video.containers import CONTAINERS
from fresco.video.reader import open_source
from fresco.video.writer import VideoWriter, check_target
from tests.helpers.clips import ClipOptions, moving_texture, write_clip

TIMES = [Fraction(n, 100) for n in (0, 4, 8, 20, 24, 30)]
"""Of frames that are not shown equally long, in whole hundredths, as GIF has them."""

PAIRS = [(name, suffix) for name, codec in CODECS.items() for suffix in codec.suffixes]

WORST = {"gif": 4.0, "webp": 3.0, "ffv1": 0.0, "prores-422-hq": 0.3, "prores-4444": 0.3}
"""Mean error of a smooth scene in grey levels, where it is not that of the others."""


def smooth_scene(height: int = 50, width: int = 67) -> list[NDArray[np.uint8]]:
    """Soft spots of colour that move."""
    noise = np.random.default_rng(3).uniform(60, 195, (4, 5, 3)).astype(np.float32)
    noise = (noise + 2 * noise.mean(axis=2, keepdims=True)) / 3
    whole = cv2.resize(noise, (width + 20, height + 20), interpolation=cv2.INTER_CUBIC)
    whole = np.clip(np.rint(whole), 0, 255).astype(np.uint8)
    return [whole[n : n + height, 2 * n : 2 * n + width].copy() for n in range(len(TIMES))]


def write(path: Path, frames: list[NDArray[np.uint8]], codec: str, **more: Any) -> VideoWriter:
    """The writer of a finished file."""
    height, width = frames[0].shape[:2]
    writer = VideoWriter(path, width, height, Fraction(25), codec=codec, **more)
    with writer:
        for frame in frames:
            writer.write(frame)
    return writer


def test_every_codec_can_be_chosen() -> None:
    option = next(entry.option for entry in entries() if entry.name == "codec")
    assert option.choices == ("auto", *CODECS, *FOLDERS)
    assert set(CONTAINERS) >= {suffix for _, suffix in PAIRS}
    formats = {kind.format for kind in CONTAINERS.values()}
    assert all(formats >= set(codec.tags) for codec in CODECS.values())


@pytest.mark.parametrize(("name", "suffix"), PAIRS)
def test_frames_and_times_come_back(tmp_path: Path, name: str, suffix: str) -> None:
    frames, path, codec = smooth_scene(), tmp_path / f"r{suffix}", CODECS[name]
    writer = write(path, frames, name, timestamps=TIMES, end=Fraction(34, 100), crf=4)
    with open_source(path) as found:
        assert found.info.frames == len(frames)
        assert [float(time) for time in found.info.timestamps] == pytest.approx(
            [float(time) for time in TIMES], abs=0.0011
        )
        assert (found.info.width, found.info.height) == (67 + codec.halved[0], 50)
        errors = np.stack([
            np.abs(found.frame(n)[:50, :67].astype(int) - frame) for n, frame in enumerate(frames)
        ])
    assert errors.mean() <= WORST.get(name, 1.0)
    assert any("is odd" in note for note in writer.notes) == codec.halved[0]
    if not isinstance(found, ImagePages):
        with av.open(str(path)) as container:
            stream: Any = container.streams.video[0]
            if codec.layout.startswith("yuv"):
                found_layout = stream.codec_context.pix_fmt  # ProRes 4444 is read as 12 bits
                assert found_layout.replace("p12", "p10") == codec.layout
                tags = stream.codec_context
                assert (tags.colorspace, tags.color_range) == (1, 1)


@pytest.mark.parametrize("name", ["prores-422-hq", "prores-4444", "ffv1"])
def test_what_editors_take_is_within_one_level(tmp_path: Path, name: str) -> None:
    frames = smooth_scene(96, 128)
    path = tmp_path / f"r{choose_suffix(name)}"
    write(path, frames, name)
    with open_source(path) as found:
        errors = np.stack([
            np.abs(found.frame(n).astype(int) - frame) for n, frame in enumerate(frames)
        ])
    # Halved colours are off by two in a few places.
    assert (errors <= (0 if name == "ffv1" else 1)).mean() > 0.999
    assert errors.max() <= (0 if name == "ffv1" else 2)


def test_more_bits_lose_less(tmp_path: Path) -> None:
    frames, losses = smooth_scene(96, 128), []
    for name in ("h265", "h265-10bit"):
        path = tmp_path / f"{name}.mkv"
        write(path, frames, name, crf=0)
        with open_source(path) as found:
            losses.append(np.mean([
                np.abs(found.frame(n).astype(int) - frame) for n, frame in enumerate(frames)
            ]))
    assert losses[1] < 0.8 * losses[0]


def _colour_of(path: Path) -> Colour:
    with open_source(path) as found:
        return found.info.colour


@pytest.mark.parametrize(("name", "suffix"), [
    ("h264", ".mp4"), ("h265-10bit", ".mkv"), ("av1", ".mp4"), ("vp9", ".webm"),
    ("prores-4444", ".mov"),
])
@pytest.mark.parametrize("source", [
    Colour(9, 16, 9, LIMITED), Colour(5, 6, 5, FULL),
], ids=["BT.2020 PQ", "PAL, full"])
def test_colours_mean_what_they_did(
    tmp_path: Path, name: str, suffix: str, source: Colour
) -> None:
    """Primaries, transfer, matrix and range are the source's; decoded values are the frames'."""
    if name == "prores-4444" and not hasattr(VideoFrame, "color_primaries"):
        pytest.skip("this PyAV cannot tell a frame's primaries, which ProRes keeps")
    frames, path = smooth_scene(48, 64), tmp_path / f"r{suffix}"
    write(path, frames, name, crf=4, colour=source)
    span = LIMITED if name == "prores-4444" else source.span  # it cannot say full
    assert _colour_of(path) == dataclasses.replace(source, span=span)
    with open_source(path) as found:
        errors = [np.abs(found.frame(n).astype(int) - frame) for n, frame in enumerate(frames)]
    assert np.mean(errors) < 1


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="Linux alone has real-time root")
def test_av1_makes_no_real_time_threads(tmp_path: Path) -> None:
    """Root's, such as in a container, would keep everything else from the processor."""
    with VideoWriter(tmp_path / "r.mp4", 64, 48, Fraction(25), codec="av1") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        found = {
            os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()
        }
    assert found == {os.SCHED_OTHER}


def test_sixteen_bits_are_kept_within_one_level_of_the_codec(tmp_path: Path) -> None:
    """Values between two of 8 bits, which scaling gives, survive ProRes of 10 bits."""
    ramp = np.linspace(40 * 257, 60 * 257, 64).astype(np.uint16)
    frame = np.repeat(np.tile(ramp, (48, 1))[..., None], 3, axis=2)
    path = tmp_path / "r.mov"
    with VideoWriter(path, 64, 48, Fraction(25), codec="prores-4444") as writer:
        assert writer.deep
        writer.write(frame)
    with av.open(str(path)) as container:
        found = next(container.decode(video=0))
        plane = np.frombuffer(memoryview(found.planes[0]), "<u2")[:64]
        luma = plane * 2.0 ** (10 - found.format.components[0].bits)
    wanted = 64 + ramp / 257 * 4 * 219 / 255  # limited range, in code values of 10 bits
    assert np.abs(luma - wanted).max() <= 1
    assert len(np.unique(luma)) > 50, "8 bits have 21 levels here"
    with pytest.raises(VideoError, match="takes uint8"), \
            VideoWriter(tmp_path / "r.mp4", 64, 48, Fraction(25)) as writer:
        writer.write(frame)


@pytest.mark.parametrize(("name", "suffix", "decoder"), [
    ("vp9", ".webm", "libvpx-vp9"), ("prores-4444", ".mov", "prores"), ("ffv1", ".mkv", "ffv1")])
def test_alpha_comes_back_within_one_code_value(
    tmp_path: Path, name: str, suffix: str, decoder: str
) -> None:
    deep = CODECS[name].deep
    most = 65535 if deep else 255
    ramp = np.tile(np.linspace(0, most, 64).round(), (48, 1))
    kind = np.uint16 if deep else np.uint8
    frame = np.dstack([np.full((48, 64, 3), most // 3), ramp]).astype(kind)
    path = tmp_path / f"r{suffix}"
    with VideoWriter(path, 64, 48, Fraction(25), codec=name, alpha=True, crf=0) as writer:
        writer.write(frame)
        writer.write(frame)
    with av.open(str(path)) as container:
        context = av.CodecContext.create(decoder, "r")
        context.extradata = container.streams.video[0].codec_context.extradata
        context.width, context.height = 64, 48
        found = next(f for packet in container.demux(video=0) for f in context.decode(packet))
    part = found.format.components[3]
    plane = found.planes[part.plane]
    if found.format.is_rgb:  # bgra
        alpha = np.frombuffer(memoryview(plane), np.uint8).reshape(48, -1)[:, 3:256:4]
    else:
        kind = "<u2" if part.bits > 8 else np.uint8
        alpha = np.frombuffer(memoryview(plane), kind).reshape(48, -1)[:, :64]
    levels = 1023 if deep else 255
    shown = alpha.astype(np.float64) / (2**part.bits - 1) * levels
    assert np.abs(shown - ramp / most * levels).max() <= 1


def test_codecs_and_containers_without_alpha_are_refused(tmp_path: Path) -> None:
    for name, told in (("r.mp4", "H.264 cannot keep"), ("r.gif", "GIF cannot keep")):
        with pytest.raises(VideoError, match=told):
            VideoWriter(tmp_path / name, 64, 48, Fraction(25), alpha=True)
    with pytest.raises(VideoError, match=r"VP9 has it in \.webm and \.mkv only"):
        VideoWriter(tmp_path / "r.mp4", 64, 48, Fraction(25), codec="vp9", alpha=True)


def test_the_ending_chooses(tmp_path: Path) -> None:
    chosen = {suffix: choose_codec("auto", tmp_path / f"r{suffix}").label for suffix in CONTAINERS}
    assert chosen == dict.fromkeys(CONTAINERS, "H.264") | {
        ".webm": "VP9", ".gif": "GIF", ".webp": "animated WebP"
    }
    assert choose_suffix("auto") == ".mp4"


@pytest.mark.parametrize(("source", "suffix", "codec", "said"), [
    ("aac", ".webm", "opus", "(aac) does not fit .webm; it was re-encoded as Opus"),
    ("libopus", ".webm", "opus", ""),
    ("aac", ".gif", None, "The sound is left out: .gif files have none."),
    ("pcm_s16le", ".mov", "pcm_s16le", ""),
])
def test_sound_of_each_container(
    tmp_path: Path, source: str, suffix: str, codec: str | None, said: str
) -> None:
    clip = write_clip(tmp_path / "s.mkv", moving_texture(25), ClipOptions(sound=(source,)))
    name = "prores-422-hq" if suffix == ".mov" else "auto"
    writer = write(tmp_path / f"r{suffix}", moving_texture(25), name, sound_from=clip)
    assert said in " ".join(writer.notes)
    with av.open(str(tmp_path / f"r{suffix}")) as container:
        sounds = container.streams.audio
        assert [stream.codec_context.name for stream in sounds] == ([codec] if codec else [])
        if codec:
            length = sum(float((p.duration or 0) * p.time_base) for p in container.demux(audio=0))
            assert length == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("path", "codec", "reason"), [
    ("r.mp4", "png", "name the result without an ending"),
    ("r.mp4", "prores-4444", "r.mp4 cannot hold ProRes 4444"),
    ("r.webm", "h264", r"name the result \.mp4 or \.m4v"),
    ("r.gif", "webp", "cannot hold animated WebP"),
    ("r.avi", "auto", "ends in .avi; name the result .mp4"),
])
def test_what_does_not_fit_is_refused_before_the_work(
    tmp_path: Path, path: str, codec: str, reason: str
) -> None:
    with pytest.raises(VideoError, match=reason):
        check_target(tmp_path / path, codec)
    with pytest.raises(VideoError, match=reason):
        VideoWriter(tmp_path / path, 64, 48, 25, codec=codec)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs.av, "codecs_available", {"libx264"})
    with pytest.raises(VideoError, match=r"has no encoder for AV1, 10 bit \(libsvtav1\)"):
        check_target(tmp_path / "r.mp4", "av1")


def test_times_that_gif_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="at most 50 frames a second"):
        VideoWriter(tmp_path / "r.gif", 64, 48, 60)
    times = [Fraction(0), Fraction(1, 1000), Fraction(1, 10)]
    with pytest.raises(VideoError, match="closer together than GIF"):
        VideoWriter(tmp_path / "r.gif", 64, 48, 30, timestamps=times)
    path = tmp_path / "r.gif"
    write(path, moving_texture(5), "gif", timestamps=[Fraction(n, 30) for n in range(5)])
    with open_source(path) as found:
        assert [time * 100 for time in found.info.timestamps] == [0, 3, 7, 10, 13]
